"""Attention in a graph: the product that gives the scores, what is done to them, and the product with the values.

Found by its form, whatever exporter wrote it: a product of two computed operands, then operators that only scale
and mask the scores, a Softmax over the last axis, and a product that reads what the Softmax gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.core.onnx.facts import ONNX_DOMAINS
from modelwright.harness.mixing.network import Layer, Network
from modelwright.targets.graphs.index import GraphIndex, index_graph

_PASSING = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Sub", "Where"})
"""What scores pass through on their way to the Softmax: scaling, and masks."""
_LONGEST = 12
"""Operators between the scores and the Softmax."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    """One attention, of all its heads.

    Attributes:
        scores: The layer that multiplies queries and keys.
        scaled: What the Softmax takes: the scores, scaled and masked.
        map: What it gives: each row of the last axis sums to 1.
        context: The layer that multiplies the map with the values; None where none does.
    """

    scores: Layer
    scaled: str
    map: str
    context: Layer | None


def find_attention(network: Network) -> list[Attention]:
    """Returns the attentions of a network, in its order."""
    index = index_graph(network.model)
    products = {layer.output: layer for layer in network.layers if not layer.operand}
    return list(_find_all(index, products)) if products else []


def _find_all(index: GraphIndex, products: Mapping[str, Layer]) -> Iterator[Attention]:
    for output, layer in products.items():
        softmax = _find_softmax(index, output)
        if softmax is None:
            continue
        attended = str(softmax.output[0])
        readers = _read_moved(index, attended)
        context = next((products[name] for name in readers if name in products), None)
        yield Attention(scores=layer, scaled=str(softmax.input[0]), map=attended, context=context)


def _find_softmax(index: GraphIndex, output: str) -> Any | None:
    """Returns the Softmax that a product's result goes to, scaled and masked; None where it goes elsewhere."""
    tensor = output
    for _ in range(_LONGEST):
        node = index.sole_consumer(tensor)
        if node is None or node.domain not in ONNX_DOMAINS:
            return None
        if node.op_type == "Softmax":
            return node
        if node.op_type not in _PASSING:
            return None
        tensor = str(node.output[0])
    return None


def _read_moved(index: GraphIndex, tensor: str) -> list[str]:
    """Returns what the readers of a tensor give, through operators that change nothing of it."""
    found = []
    for node in index.consumers.get(tensor, []):
        names = [str(name) for name in node.output]
        moves = node.op_type in ("Cast", "Dropout", "Identity") and names
        found += _read_moved(index, names[0]) if moves else names
    return found
