"""The layers of an ONNX graph that bits can be chosen for, and the weights that they multiply with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError
from modelwright.core.onnx.facts import ONNX_DOMAINS, read_attribute
from modelwright.core.onnx.quantized import find_own_scales
from modelwright.core.onnx.walk import find_subgraphs
from modelwright.harness.mixing.grids import Floats
from modelwright.targets.contract import Feeds
from modelwright.targets.graphs.dtypes import infer_tensor_types
from modelwright.targets.graphs.files import load_model
from modelwright.targets.graphs.index import GraphIndex, index_graph
from modelwright.targets.graphs.rewrite import normalize_graph, raise_opset
from modelwright.targets.graphs.run import extra_outputs, open_session

LAYER_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_PRODUCTS = ("Gemm", "MatMul")
"""Operators that may multiply two activations, as attention does."""
_CLIP_OPSET = 11
"""The first opset with Round, and with Clip's limits as inputs."""
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A node that multiplies.

    Attributes:
        output: Its first output, by which plans name it.
        name: The node's name; unique, one that had none got one.
        operator: `Conv`, `MatMul`, ...
        activations: What it reads of what is computed: tensor by the place among its inputs.
        weight: The constant that it multiplies with, as the model names it; None where both operands are computed.
        operand: The tensor that it reads in the weight's stead: the constant itself, or what is made of it alone.
        place: Of the weight among its inputs; -1 without one.
        groups: Of a ConvTranspose.
        channel_axis: Of the weight, along which its output channels lie; None where it has no channels.
    """

    output: str
    name: str
    operator: str
    activations: Mapping[int, str]
    weight: str | None = None
    operand: str = ""
    place: int = -1
    groups: int = 1
    channel_axis: int | None = None

    def to_rows(self, weight: npt.NDArray[Any], *, per_channel: bool) -> Floats:
        """Returns a weight as float32 [channels, weights], or [1, weights]."""
        if not per_channel or self.channel_axis is None:
            return np.ascontiguousarray(weight.reshape(1, -1), np.float32)
        if self.operator == "ConvTranspose":  # [inputs, outputs of a group, ...], the groups along the inputs
            split = weight.reshape(self.groups, -1, *weight.shape[1:]).swapaxes(1, 2)
            return np.ascontiguousarray(split.reshape(self.groups * weight.shape[1], -1), np.float32)
        moved = np.moveaxis(weight, self.channel_axis, 0)
        return np.ascontiguousarray(moved.reshape(moved.shape[0], -1), np.float32)

    def from_rows(self, rows: Floats, shape: tuple[int, ...]) -> Floats:
        """Returns what `to_rows` made in the weight's own shape."""
        if len(rows) == 1 or self.channel_axis is None:
            return rows.reshape(shape)
        if self.operator == "ConvTranspose":
            split = rows.reshape(self.groups, shape[1], -1, *shape[2:])
            return np.ascontiguousarray(split.swapaxes(1, 2).reshape(shape))
        rest = tuple(size for axis, size in enumerate(shape) if axis != self.channel_axis)
        return np.ascontiguousarray(np.moveaxis(rows.reshape(len(rows), *rest), 0, self.channel_axis))


@dataclass(kw_only=True)
class Network:
    """A float model whose layers are known.

    Attributes:
        model: Normalized; its nodes have names.
        layers: In the order of the graph.
        weights: What each layer multiplies with: `Layer.operand` -> float32 array.
    """

    model: Any
    layers: tuple[Layer, ...]
    weights: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


def open_network(path: Path, feeds: Feeds, scratch: Path, name: str | None = None) -> Network:
    """Loads a model and finds its layers.

    Args:
        path: The float model.
        feeds: One inference's inputs, with which weights are evaluated that are made of constants.
        scratch: For the intermediate file of a large model.
        name: Of the model, for people; None for the file's.

    Raises:
        BadInputError: It is quantized already, or has no layer that bits can be chosen for.
    """
    model, name = load_model(path), name or path.name
    own = find_own_scales(model)
    if own is not None:
        raise BadInputError(
            f"{name} is quantized already: {own.describe()}",
            hint="give the float model that it was made of",
        )
    model = raise_opset(model, _CLIP_OPSET)
    normalize_graph(model)
    index = index_graph(model)
    derived = _find_derived(model, index)
    types = infer_tensor_types(model)
    layers = tuple(_find_layers(model, index, derived, types))
    if not layers:
        raise BadInputError(
            f"{name} has no layer to choose bits for: no {', '.join(LAYER_OPERATORS[:-1])} or "
            f"{LAYER_OPERATORS[-1]} in its main graph multiplies 32-bit floats",
            hint="give a float32 model with such layers; recurrent ones and those in If, Loop or Scan stay in float",
        )
    network = Network(model=model, layers=layers)
    _read_weights(network, index, feeds, scratch)
    return network


def _find_derived(model: Any, index: GraphIndex) -> dict[str, str]:
    """Returns tensor -> the float constant that it is made of, by nodes that read nothing that is computed."""
    fixed = dict.fromkeys(index.constants, "")
    fixed |= {name: name for name in index.constants if index.is_float_constant(name)}
    for node in model.graph.node:
        names = [name for name in node.input if name]
        if not names or any(name not in fixed for name in names) or node.op_type in _RANDOM:
            continue
        if not any(find_subgraphs(node)):
            source = next((fixed[name] for name in names if fixed[name]), "")
            fixed |= dict.fromkeys((name for name in node.output if name), source)
    return {name: source for name, source in fixed.items() if source}


def _find_layers(
    model: Any, index: GraphIndex, derived: Mapping[str, str], types: Mapping[str, str]
) -> Iterator[Layer]:
    for node in model.graph.node:
        if node.domain not in ONNX_DOMAINS or node.op_type not in LAYER_OPERATORS or node.output[0] in derived:
            continue
        operands = {place: str(name) for place, name in enumerate(node.input[:2])}
        constant = [place for place, name in operands.items() if name in derived]
        computed = {place: name for place, name in operands.items() if name not in derived}
        if len(operands) < 2 or (constant == [0] and node.op_type != "MatMul"):
            continue
        if not constant and node.op_type not in _PRODUCTS:
            continue
        if any(name in index.constants for name in computed.values()):  # one that is no float: integers multiply too
            continue
        if any(types.get(name, "float32" if constant else "") != "float32" for name in operands.values()):
            continue
        found = Layer(output=str(node.output[0]), name=str(node.name), operator=str(node.op_type), activations=computed)
        yield _with_weight(found, node, derived[operands[constant[0]]], constant[0]) if constant else found


def _with_weight(layer: Layer, node: Any, weight: str, place: int) -> Layer:
    return replace(
        layer,
        weight=weight,
        operand=str(node.input[place]),
        place=place,
        groups=int(read_attribute(node, "group", 1)),
        channel_axis=None if layer.operator == "MatMul" else _find_axis(node),
    )


def _find_axis(node: Any) -> int:
    if node.op_type == "Gemm":
        return 0 if read_attribute(node, "transB", 0) else 1
    return 0 if node.op_type == "Conv" else 1


def _read_weights(network: Network, index: GraphIndex, feeds: Feeds, scratch: Path) -> None:
    """Reads the layers' weights, and evaluates those that nodes make of constants; says where their channels lie."""
    wanted = list(dict.fromkeys(layer.operand for layer in network.layers if layer.operand))
    stored = [name for name in wanted if name in index.constants]
    made = [name for name in wanted if name not in index.constants]
    network.weights = {name: index.array(name) for name in stored}
    if made:
        with extra_outputs(network.model, made):
            session = open_session(network.model, scratch)
        network.weights |= dict(zip(made, session.run(made, dict(feeds)), strict=True))
    network.layers = tuple(_place_channels(layer, network.weights) for layer in network.layers)
    _require_finite(network)


def _place_channels(layer: Layer, weights: Mapping[str, npt.NDArray[Any]]) -> Layer:
    """Says along which axis of a MatMul's weight the output channels lie, which its rank decides."""
    if layer.operator != "MatMul" or not layer.operand:
        return layer
    rank = weights[layer.operand].ndim
    if rank < 2:
        return layer
    return replace(layer, channel_axis=rank - 1 if layer.place == 1 else rank - 2)


def _require_finite(network: Network) -> None:
    for layer in network.layers:
        if layer.operand and not np.isfinite(network.weights[layer.operand]).all():
            raise BadInputError(
                f"{layer.weight}, a weight of {layer.name} ({layer.operator}), holds NaN or infinity",
                hint="train or export the model again: no grid of numbers holds that",
            )
