"""Layers of a quantized ONNX graph put into the float graph that it was made of: all to look at, or a few to run.

Nothing here knows how a graph was quantized. A layer's *twin* is what the quantized graph computes a tensor of the
float graph with, back to the next tensors that both graphs have: the pairs around the layer, its integers, and itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.onnx.facts import find_opset
from modelwright.core.onnx.walk import find_subgraphs
from modelwright.targets.contract import Feeds
from modelwright.targets.graphs.index import GraphIndex, index_graph
from modelwright.targets.graphs.rewrite import drop_unread, rebuild_model
from modelwright.targets.graphs.run import open_session
from modelwright.targets.readiness import require_import

Array = npt.NDArray[Any]

NOISE_SAMPLES = 8
"""Calibration samples that a layer's noise is measured on: it is nearly the same on all."""
EXACT_ARITHMETIC: Mapping[str, str] = {"session.disable_quant_qdq": "1"}
"""Session entries with which pairs round and nothing is fused around them."""
_FLATTEN_OPSET, _AXES_INPUT_OPSET = 11, 18
"""The first opset whose Flatten counts axes from the end, and the one whose ReduceSumSquare takes them as an input."""
_LAST_AXIS = frozenset({"MatMul", "Gemm", "Gather", "LSTM"})
"""Operators whose channels are the last axis of what they make; of all others they are the second."""
_LEAST_SIGNAL = 1e-9
"""Share of the strongest channel's energy that every channel counts as having: a dead one has nothing to lose."""


@dataclass(frozen=True, kw_only=True)
class Twin:
    """How a quantized graph computes one tensor of the float graph.

    Attributes:
        layer: Name of the float graph's node.
        operator: Its type.
        tensor: What it makes: behind the activation, where that is one with it.
        nodes: Copies of the quantized graph's nodes, in order, their own tensors renamed.
        result: The tensor among theirs that stands for `tensor`.
        constants: Their constants, renamed.
    """

    layer: str
    operator: str
    tensor: str
    nodes: tuple[Any, ...]
    result: str
    constants: Mapping[str, Any]


def find_twins(model: Any, quantized: Any, layers: Collection[str]) -> dict[str, Twin]:
    """Returns layer -> its twin; those that the quantized graph does not compute in one piece are left out.

    Args:
        model: The float graph.
        quantized: Made of it: tensors that are the same have the same name in both.
        layers: Names of the float graph's nodes.
    """
    finder = _TwinFinder(model, quantized)
    found = (finder.find(node) for node in model.graph.node if node.name in layers)
    return {twin.layer: twin for twin in found if twin is not None}


def quantize_only(model: Any, twins: Iterable[Twin]) -> Any:
    """Returns the float graph with some layers replaced by their twins."""
    replaced = {twin.tensor: twin for twin in twins}
    nodes: list[Any] = []
    constants: dict[str, Any] = {}
    for node in model.graph.node:
        twin = next((replaced[name] for name in node.output if name in replaced), None)
        if twin is None:
            nodes.append(node)
            continue
        nodes.extend(rename_tensors(inner, {twin.result: twin.tensor}, inner.name) for inner in twin.nodes)
        constants |= twin.constants
        if len(node.output) > 1:  # what else the node makes stays float
            nodes.append(rename_tensors(node, {twin.tensor: f"{twin.tensor}/float"}, node.name))
    return rebuild_model(model, drop_unread(nodes, [value.name for value in model.graph.output]), constants)


def measure_noise(model: Any, twins: Iterable[Twin], feeds: Iterable[Feeds], scratch: Path) -> dict[str, float]:
    """Runs the float graph with all twins beside their layers: each sees what FP32 makes, and nothing reads it.

    Returns:
        Layer -> energy of its twin's error as a share of what it makes. The mean over channels, of which none counts as
        losing more than everything: the strongest channel would hide the others.
    """
    onnx = require_import("onnx", "onnx")
    known = list(twins)
    nodes, constants = list(model.graph.node), dict[str, Any]()
    outputs: list[str] = []
    for twin in known:
        nodes += [*twin.nodes, *_sum_squares(twin, find_opset(model), constants)]
        constants |= twin.constants
        outputs += [f"{twin.layer}/noise", f"{twin.layer}/signal"]
    if not known or find_opset(model) < _FLATTEN_OPSET:
        return {}
    measured = rebuild_model(model, nodes, constants)
    del measured.graph.output[:]
    measured.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs
    )
    session = open_session(measured, scratch, entries=EXACT_ARITHMETIC)
    sums: dict[str, Array] = {}
    for sample in feeds:
        for name, value in zip(outputs, session.run(outputs, dict(sample)), strict=True):
            sums[name] = sums.get(name, 0.0) + np.asarray(value, np.float64)
    return {twin.layer: _relate(sums[f"{twin.layer}/noise"], sums[f"{twin.layer}/signal"]) for twin in known}


def _sum_squares(twin: Twin, opset: int, constants: dict[str, Any]) -> list[Any]:
    """Returns nodes that make `LAYER/noise` and `LAYER/signal`: energies of error and signal, one a channel."""
    onnx = require_import("onnx", "onnx")
    make = onnx.helper.make_node
    last = twin.operator in _LAST_AXIS
    axes = [0] if last else [0, 2]
    constants["twins/shape"] = onnx.numpy_helper.from_array(np.array([0, 0, -1]), "twins/shape")
    nodes = [make("Sub", [twin.result, twin.tensor], [f"{twin.layer}/error"])]
    for source, kind in ((f"{twin.layer}/error", "noise"), (twin.tensor, "signal")):
        rows, result = f"{twin.layer}/{kind}_rows", f"{twin.layer}/{kind}"
        if last:
            nodes.append(make("Flatten", [source], [rows], axis=-1))
        else:
            nodes.append(make("Reshape", [source, "twins/shape"], [rows]))
        if opset < _AXES_INPUT_OPSET:
            nodes.append(make("ReduceSumSquare", [rows], [result], axes=axes, keepdims=0))
        else:
            key = f"twins/axes_{len(axes)}"
            constants[key] = onnx.numpy_helper.from_array(np.array(axes), key)
            nodes.append(make("ReduceSumSquare", [rows, key], [result], keepdims=0))
    return nodes


def _relate(noise: Array, signal: Array) -> float:
    """Returns the mean over channels of noise to signal, each at most 1."""
    noise, signal = np.atleast_1d(noise), np.atleast_1d(signal)
    strongest = float(signal.max(initial=0.0))
    if strongest <= 0.0:
        return 0.0
    shares = noise / np.maximum(signal, strongest * _LEAST_SIGNAL)
    return float(np.mean(np.clip(np.nan_to_num(shares, nan=1.0, posinf=1.0), 0.0, 1.0)))


class _TwinFinder:
    """Follows the quantized graph back from what a layer makes to what the float graph has too."""

    def __init__(self, model: Any, quantized: Any) -> None:
        self._float, self._quantized = index_graph(model), index_graph(quantized)
        self._shared = {*self._float.producers, *(value.name for value in model.graph.input)}
        self._order = {name: number for number, node in enumerate(quantized.graph.node) for name in node.output}

    def find(self, node: Any) -> Twin | None:
        tensor = self._find_result(next((name for name in node.output if name), ""))
        if tensor is None:
            return None
        end = self._find_rounded(tensor)
        found: dict[int, Any] = {}
        leaves: set[str] = set()
        waiting = [end]
        while waiting:
            name = waiting.pop()
            maker = self._quantized.producers.get(name)
            if name != end and name != tensor and (name in self._shared or maker is None):
                leaves.add(name)
            elif maker is None or any(find_subgraphs(maker)):
                return None
            elif self._order[name] not in found:
                found[self._order[name]] = maker
                waiting += [name for name in maker.input if name]
        nodes = [found[number] for number in sorted(found)]
        constants = {name for name in leaves if name in self._quantized.constants}
        own = {name for maker in nodes for name in maker.output if name}
        names = {name: f"{node.name}/{name}" for name in (*own, *constants)}
        return Twin(
            layer=node.name,
            operator=node.op_type,
            tensor=tensor,
            nodes=tuple(rename_tensors(maker, names, f"{node.name}/{maker.name}") for maker in nodes),
            result=names[end],
            constants={names[name]: _copy_constant(self._quantized, name, names[name]) for name in constants},
        )

    def _find_result(self, tensor: str) -> str | None:
        """Returns the first tensor from a layer on that the quantized graph makes: behind an activation it absorbs."""
        while tensor and tensor not in self._quantized.producers:
            reader = self._float.sole_consumer(tensor)
            tensor = "" if reader is None else str(reader.output[0])
        return tensor or None

    def _find_rounded(self, tensor: str) -> str:
        """Returns what stands for a tensor in the quantized graph: behind its pair, where all read it rounded."""
        readers = self._quantized.consumers.get(tensor, [])
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear" or tensor in self._quantized.outputs:
            return tensor
        pair = self._quantized.consumers.get(readers[0].output[0], [])
        rounded = [reader for reader in pair if reader.op_type == "DequantizeLinear"]
        return str(rounded[0].output[0]) if rounded else tensor


def rename_tensors(node: Any, names: Mapping[str, str], name: str) -> Any:
    """Returns a copy of a node, under another name, that reads and makes tensors of other names."""
    copy = require_import("onnx", "onnx").NodeProto()
    copy.CopyFrom(node)
    copy.name = name
    for field in (copy.input, copy.output):
        for position, tensor in enumerate(field):
            field[position] = names.get(tensor, tensor)
    return copy


def _copy_constant(index: GraphIndex, name: str, copied: str) -> Any:
    tensor = require_import("onnx", "onnx").TensorProto()
    tensor.CopyFrom(index.constants[name])
    tensor.name = copied
    return tensor
