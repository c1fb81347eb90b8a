"""What each layer of a network multiplies and moves: counted on the shapes of real inferences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.onnx.facts import ONNX_DOMAINS
from modelwright.core.records.codec import Amount, Line, Record
from modelwright.harness.mixing.network import Network
from modelwright.targets.contract import Feeds
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.graphs.run import extra_outputs, open_session
from modelwright.targets.graphs.work import WORK_SHAPES, count_multiplications, name_operand
from modelwright.targets.readiness import require_import


class LayerWork(Record):
    """One inference of one layer, the mean over samples where shapes vary.

    Attributes:
        output: By which the layer is named.
        operator: `Conv`, `LSTM`, ...
        macs: Multiplications, each with its addition.
        weights: Elements of constants that it reads: weights, not biases.
        activations: Elements that it reads and writes of what is computed.
    """

    output: str
    operator: Line
    macs: Amount
    weights: Amount
    activations: Amount

    def moved(self) -> float:
        """Returns the elements that come from and go to memory."""
        return self.weights + self.activations


def count_work(network: Network, feeds: Sequence[Feeds], scratch: Path) -> tuple[LayerWork, ...]:
    """Returns the work of all nodes that networks spend their time in: layers, and those that stay in float.

    Nodes in subgraphs are left out, and so are all operators that do not multiply matrices.

    Args:
        network: Whose nodes are counted.
        feeds: Samples; the mean over them is taken.
        scratch: For the intermediate file of a large model.
    """
    onnx = require_import("onnx", "onnx")
    index = index_graph(network.model)
    nodes = [node for node in network.model.graph.node if node.op_type in WORK_SHAPES and node.domain in ONNX_DOMAINS]
    constants = {*index.constants, *network.weights}
    needed: dict[str, None] = {}
    for node in nodes:
        tensors = [*_operands(node), *(name_operand(node, where) for where in WORK_SHAPES[node.op_type])]
        needed |= dict.fromkeys([*tensors, *_results(node)])
    outputs = [f"shape_{number}_of_work" for number in range(len(needed))]
    readers = [onnx.helper.make_node("Shape", [name], [out]) for name, out in zip(needed, outputs, strict=True)]
    with extra_outputs(network.model, outputs, readers, onnx.TensorProto.INT64):
        session = open_session(network.model, scratch)
    sums = np.zeros((len(nodes), 3))
    for sample in feeds:
        shapes = dict(zip(needed, session.run(outputs, dict(sample)), strict=True))
        for number, node in enumerate(nodes):
            sums[number] += _count(node, shapes, constants)
    return tuple(
        LayerWork(
            output=_results(node)[0],
            operator=node.op_type,
            macs=float(macs),
            weights=float(weights),
            activations=float(activations),
        )
        for node, (macs, weights, activations) in zip(nodes, sums / len(feeds), strict=True)
    )


def _operands(node: Any) -> list[str]:
    """Returns what a node multiplies; the biases of others than recurrent layers are added only."""
    return [name for name in node.input[: 3 if node.op_type in ("LSTM", "GRU", "RNN") else 2] if name]


def _results(node: Any) -> list[str]:
    return [name for name in node.output if name]


def _count(node: Any, shapes: Mapping[str, npt.NDArray[Any]], constants: set[str]) -> tuple[float, float, float]:
    sizes = {name: math.prod(shapes[name].tolist()) for name in (*_operands(node), *_results(node))}
    macs = count_multiplications(node, [shapes[name_operand(node, where)] for where in WORK_SHAPES[node.op_type]])
    weights = sum(sizes[name] for name in _operands(node) if name in constants)
    computed = sum(sizes[name] for name in (*_operands(node), *_results(node)) if name not in constants)
    return macs, float(weights), float(computed)
