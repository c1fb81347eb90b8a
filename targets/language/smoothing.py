"""Evens out the channels that linear layers read, so that less is lost where these are rounded as they come.

What a layer reads is rounded in blocks of neighbouring channels, and one that is large leaves few levels to the others.
So each channel is divided by a factor that the rows of the matrices take over (SmoothQuant, Xiao et al., 2023,
arXiv:2211.10438, equation 4). The division costs nothing when the model runs: weights before it take it, those of a
norm, or the columns of a matrix whose channels reach the layer without being mixed. A head that shares the embedding
table is evened out with it; what is looked up is then multiplied back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.onnx.facts import read_attribute
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.language.contract import LanguageBuildRequest, Tokens
from modelwright.targets.language.energies import read_values
from modelwright.targets.language.portable import Floats, LinearLayer, PortableModel, describe_tensor
from modelwright.targets.quantization.smoothquant import SMOOTHING_FLOOR
from modelwright.targets.readiness import require_import

ALPHA = 0.5
"""Share of the difficulty that moves into the weights; of SmolLM2-135M, 0.25 and 0.75 leave more noise in all."""
MEASURED_TOKENS = 2048
"""Enough to know which channels are large."""
NOT_SMOOTHED = "no calibration texts: channels of activations are not evened out"
_NORMS = ("RMSNormalization", "LayerNormalization")


@dataclass(frozen=True, kw_only=True)
class Smoothable:
    """A value that linear layers alone read, and what can be divided instead of it.

    Attributes:
        reads: Its name.
        layers: That read it.
        divided: Names of constants whose last axis are its channels.
        heads: The shape [key and value heads, query heads of each, channels] of what an attention gives: those of one
            key and value head are the same columns of the matrix before. None where each channel has its own.
    """

    reads: str
    layers: Sequence[LinearLayer]
    divided: Sequence[str]
    heads: tuple[int, int, int] | None = None

    def gather(self, maxima: Floats) -> Floats:
        """Returns the largest value of the channels that share what is divided."""
        return maxima if self.heads is None else maxima.reshape(self.heads).max(axis=1).ravel()

    def spread(self, factors: Floats) -> Floats:
        """Returns each channel's factor."""
        if self.heads is None:
            return factors
        first, _, last = self.heads
        return np.broadcast_to(factors.reshape(first, 1, last), self.heads).reshape(-1)


class SmoothedModel(PortableModel):
    """A portable graph that computes the same by smoother values: its weights are read as they become thereby.

    Args:
        folder: Of the exported model.
        tokens: int64 [rows, length]: texts on which channels are measured.
        threads: To compute with.

    Attributes:
        smoothed: Names of the values whose channels are evened out.
    """

    def __init__(self, folder: Path, tokens: Tokens, threads: int) -> None:
        super().__init__(folder)
        self._factors: dict[str, Floats] = {}
        self._divisors: dict[str, Floats] = {}
        found = list(find_smoothable(self))
        maxima = measure_maxima(self, [each.reads for each in found], tokens, threads)
        factors = [(each, _find_factors(self, each, maxima[each.reads])) for each in found]
        for each, values in factors:
            for layer in each.layers:
                self._factors[layer.weight] = each.spread(values) if layer.is_turned else each.spread(values)[:, None]
                if layer.weight in self.tables:
                    self._multiply_back(layer.weight, values)
        self._divisors = {name: values for each, values in factors for name in each.divided}
        self.smoothed = tuple(each.reads for each in found)

    def read(self, name: str) -> Floats:
        values = super().read(name)
        if name in self._factors:
            values = values * self._factors[name]
        return values / self._divisors[name] if name in self._divisors else values

    def _multiply_back(self, table: str, factors: Floats) -> None:
        """Makes what is looked up in a table with factors what it was without them."""
        helper = require_import("onnx.helper", "onnx")
        nodes = self.proto.graph.node
        place, lookup = next(
            (i, node) for i, node in enumerate(nodes) if node.op_type == "Gather" and node.input[0] == table
        )
        gives, smooth = lookup.output[0], f"{lookup.output[0]}.smooth"
        divisors = describe_tensor(f"{smooth}.divisors", factors)
        self.proto.graph.initializer.append(divisors)
        lookup.output[0] = smooth
        nodes.insert(place + 1, helper.make_node("Div", [smooth, divisors.name], [gives], f"{lookup.name}.unsmooth"))
        self.index = index_graph(self.proto)


def open_smoothed(request: LanguageBuildRequest) -> tuple[PortableModel, dict[str, Any] | None]:
    """Returns a model with its channels evened out, and how; as it is where no texts tell of channels."""
    if request.calibration is None:
        return PortableModel(request.model), None
    tokens = request.calibration[: max(1, MEASURED_TOKENS // request.calibration.shape[1])]
    request.progress(f"measuring channels on {len(tokens)} texts")
    model = SmoothedModel(request.model, tokens, request.threads)
    return model, {"alpha": ALPHA, "tokens": int(tokens.size), "values": len(model.smoothed)}


def find_smoothable(model: PortableModel) -> Iterator[Smoothable]:
    """Yields the values that can be divided by weights before them, in the order of the graph."""
    groups: dict[str, list[LinearLayer]] = {}
    for layer in model.linear_layers.values():
        groups.setdefault(layer.reads, []).append(layer)
    owners = _count_owners(model)
    for reads, layers in groups.items():
        maker = model.index.producers.get(reads)
        # Whatever else reads the value or the matrix knows of no factor; but what is looked up can be told.
        shared = any(owners[layer.weight] > 1 + (layer.weight in model.tables) for layer in layers)
        if maker is None or shared or len(model.index.consumers[reads]) != len(layers):
            continue
        heads = None
        if maker.op_type in _NORMS and maker.output[0] == reads:
            divided: list[str] | None = list(maker.input[1:])
        elif maker.op_type == "Mul":
            made = [_find_columns(model, name, maker) for name in maker.input]
            divided = next((names for names in made if names), None)
        elif maker.op_type == "Attention" and maker.output[0] == reads:
            divided = _find_columns(model, maker.input[2], maker)
            key_heads, query_heads = (read_attribute(maker, key, 0) for key in ("kv_num_heads", "q_num_heads"))
            heads = (key_heads, query_heads // key_heads, layers[0].rows // query_heads)
        else:
            continue
        channels = layers[0].rows // (1 if heads is None else heads[1])
        if divided and all(owners.get(name) == 1 and _width(model, name) == channels for name in divided):
            yield Smoothable(reads=reads, layers=layers, divided=divided, heads=heads)


def _count_owners(model: PortableModel) -> Mapping[str, int]:
    """Returns how many nodes read each constant of floats."""
    readers = model.index.consumers
    return {name: len(readers.get(name, [])) for name in model.index.constants if model.index.is_float_constant(name)}


def _width(model: PortableModel, name: str) -> int:
    return int(model.index.constants[name].dims[-1])


def _find_columns(model: PortableModel, name: str, reader: Any) -> list[str] | None:
    """Returns the matrix whose columns make a value, and its bias; None where one reader alone does not read these."""
    sole = model.index.sole_consumer(name)
    maker = model.index.producers.get(name)
    if sole is not reader or maker is None:
        return None
    bias: list[str] = []
    if maker.op_type == "Add":
        bias = [each for each in maker.input if model.index.is_float_constant(each)]
        product = [each for each in maker.input if each not in bias]
        if len(bias) != 1 or model.index.sole_consumer(product[0]) is not maker:
            return None
        maker = model.index.producers.get(product[0])
    layer = None if maker is None else model.linear_layers.get(maker.name)
    return None if layer is None or layer.is_turned else [layer.weight, *bias]


def measure_maxima(model: PortableModel, names: Sequence[str], tokens: Tokens, threads: int) -> dict[str, Floats]:
    """Returns for each value [..., channels] the largest absolute value of each channel: float32 [channels]."""
    maxima: dict[str, Floats] = {}
    for values in read_values(model, names, tokens, threads):
        for name, value in zip(names, values, strict=True):
            largest = np.abs(value.reshape(-1, value.shape[-1])).max(axis=0)
            maxima[name] = np.maximum(maxima.get(name, largest), largest)
    return maxima


def _find_factors(model: PortableModel, each: Smoothable, maxima: Floats) -> Floats:
    weights = np.max([np.abs(model.read_matrix(layer)).max(axis=1) for layer in each.layers], axis=0)
    inputs, weights = (np.maximum(each.gather(values), SMOOTHING_FLOOR) for values in (maxima, weights))
    factors = inputs**ALPHA / weights ** (1 - ALPHA)
    return np.asarray(factors / np.exp(np.log(factors).mean()), np.float32)  # only how they differ matters
