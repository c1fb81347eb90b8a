"""Writes explicit INT8 for TensorRT: symmetric Q/DQ pairs where they were planned, everything else in float."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from modelwright.core.onnx.facts import read_attribute
from modelwright.targets.contract import BuildRequest
from modelwright.targets.graphs.classify import GraphKind
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.graphs.rewrite import drop_unread, rebuild_model
from modelwright.targets.quantization.formats import round_weight
from modelwright.targets.quantization.half import FLOAT_ARITHMETIC
from modelwright.targets.quantization.onnx_quantizer import OnnxCandidate, OnnxQuantizer
from modelwright.targets.quantization.savings import LayerWork
from modelwright.targets.quantization.statistics import TensorStatistics
from modelwright.targets.readiness import require_import
from modelwright.targets.tensorrt.pair_plan import PairPlan, channel_axis, find_vectors, plan_pairs

Array = npt.NDArray[Any]

LEVELS = 127
"""int8 without -128: TensorRT's scale is the largest absolute value divided by 127."""
_CLIP_STEPS = 80
_LARGEST_CLIP = 0.8
_HALF_LIMIT = float(np.finfo(np.float16).max)

SYMMETRIC_RANGES: Mapping[str, Callable[[TensorStatistics], float]] = {
    "minmax": lambda seen: max(-seen.low, seen.high),
    "percentile-99.999": lambda seen: _largest_end(seen.percentile_range(0.99999)),
    "percentile-99.99": lambda seen: _largest_end(seen.percentile_range(0.9999)),
    "least-error": lambda seen: find_least_error(seen),
}
"""Name -> the absolute value from which an activation is cut off."""


def _largest_end(ends: tuple[float, float]) -> float:
    return max(-ends[0], ends[1])


def find_least_error(seen: TensorStatistics) -> float:
    """Returns the cut-off with the least squared error of rounding and clipping together, for a symmetric scale."""
    largest = max(-seen.low, seen.high)
    total = int(seen.counts.sum())
    if total == 0 or largest <= 0:
        return largest
    edges = np.linspace(seen.low, seen.high, len(seen.counts) + 1)
    sizes = np.abs((edges[:-1] + edges[1:]) / 2)
    tries = [largest * (1 - _LARGEST_CLIP * step / _CLIP_STEPS) for step in range(_CLIP_STEPS)]
    errors = [
        # The variance of a uniform error of one step, and what clipping takes away.
        float((seen.counts * np.maximum(sizes - limit, 0.0) ** 2).sum()) / total + (limit / LEVELS) ** 2 / 12
        for limit in tries
    ]
    return tries[int(np.argmin(errors))]


def write_pairs(
    model: Any,
    plan: PairPlan,
    source: Any,
    limits: Mapping[str, float],
    types: Mapping[str, str] | None = None,
    weights: dict[str, Any] | None = None,
) -> Any:
    """Returns a new model with the planned pairs.

    Args:
        model: `source` itself, or the same graph after casts were added: nodes keep their names, tensors may be others.
        plan: From `plan_pairs` on `source`.
        source: The float32 model that was planned; its weights are the ones that are rounded.
        limits: Tensor of `source` -> absolute value from which it is cut off, for all `plan.entries`.
        types: Tensor of `model` -> type, `float16` or `float32`; None where all are float32. A layer computes in the
            type of its activation: both DequantizeLinear nodes give it.
        weights: Keeps rounded weights between calls on one source.
    """
    return _PairWriter(model, plan, source, limits, types or {}, {} if weights is None else weights).write()


class _PairWriter:
    def __init__(
        self,
        model: Any,
        plan: PairPlan,
        source: Any,
        limits: Mapping[str, float],
        types: Mapping[str, str],
        weights: dict[str, Any],
    ) -> None:
        self._onnx = require_import("onnx", "onnx")
        self._model = model
        self._plan = plan
        self._types = types
        self._limits = limits
        self._weights = weights
        self._source_index = index_graph(source)
        self._source_nodes = {node.name: node for node in source.graph.node}
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._paired: set[str] = set()

    def write(self) -> Any:
        layers = set(self._plan.layers)
        for node in self._model.graph.node:
            copy = self._onnx.NodeProto()
            copy.CopyFrom(node)
            if node.name in layers:
                dtype = self._quantize_entry(copy, 0)
                copy.input[1] = self._add_weight(node, dtype)
            elif node.name in self._plan.residuals:
                self._quantize_entry(copy, self._plan.residuals[node.name])
            self._nodes.append(copy)
        outputs = [value.name for value in self._model.graph.output]
        # The Cast of a weight that was replaced has no reader any more.
        return rebuild_model(self._model, drop_unread(self._nodes, outputs), self._constants)

    def _quantize_entry(self, copy: Any, position: int) -> np.dtype[Any]:
        """Puts a pair before an operand; layers that read one tensor share it."""
        name = copy.input[position]
        dtype = np.dtype(self._types.get(name, "float32"))
        if name not in self._paired:
            self._paired.add(name)
            scale = find_scales(self._limits[self._source_nodes[copy.name].input[position]])
            parameters = [f"{name}_int8_scale", "int8_zero_point"]
            self._constants[parameters[0]] = self._constant(parameters[0], scale.astype(dtype))
            self._constants[parameters[1]] = self._constant(parameters[1], np.zeros((), np.int8))
            make = self._onnx.helper.make_node
            self._nodes += [
                make("QuantizeLinear", [name, *parameters], [f"{name}_int8"], f"{name}_q"),
                make("DequantizeLinear", [f"{name}_int8", *parameters], [f"{name}_dequantized"], f"{name}_dq"),
            ]
        copy.input[position] = f"{name}_dequantized"
        return dtype

    def _add_weight(self, node: Any, dtype: np.dtype[Any]) -> str:
        """Rounds a layer's weight with one scale a channel, stored as int8."""
        layer = self._source_nodes[node.name]
        axis = channel_axis(layer)
        key = f"{layer.input[1]}/{axis}"
        if key not in self._weights:
            values = self._source_index.array(layer.input[1])
            others = tuple(position for position in range(values.ndim) if position != axis)
            scales = find_scales(np.abs(values).max(axis=others))
            self._weights[key] = round_weight(values, scales, axis, LEVELS), scales
        rounded, scales = self._weights[key]
        names = [f"{node.name}_weight_{part}" for part in ("int8", "scale", "zero")]
        arrays = (rounded, scales.astype(dtype), np.zeros(len(scales), np.int8))
        self._constants |= {name: self._constant(name, array) for name, array in zip(names, arrays, strict=True)}
        output = f"{node.name}_weight_dequantized"
        make = self._onnx.helper.make_node
        self._nodes.append(make("DequantizeLinear", names, [output], f"{node.name}_weight_dq", axis=axis))
        return output

    def _constant(self, name: str, values: Array) -> Any:
        return self._onnx.numpy_helper.from_array(np.asarray(values), name)


def find_scales(limits: Any) -> npt.NDArray[np.float32]:
    """Returns limit / 127, rounded up to a number that float16 holds, so that a cast changes nothing.

    Args:
        limits: Largest absolute values, of any shape.
    """
    wanted = np.asarray(limits, np.float32) / LEVELS
    half = np.minimum(wanted, _HALF_LIMIT).astype(np.float16)
    half = np.where(
        half.astype(np.float32) < np.minimum(wanted, _HALF_LIMIT), np.nextafter(half, np.float16(np.inf)), half
    )
    # TensorRT takes no scale of 0: a dead channel gets the smallest one.
    return np.maximum(half, np.finfo(np.float16).smallest_subnormal).astype(np.float32)


class PairQuantizer(OnnxQuantizer):
    """Builds INT8 candidates in float32 for the search; statistics are kept between those that share them."""

    session_entries: ClassVar[Mapping[str, str]] = FLOAT_ARITHMETIC
    starting: ClassVar[float] = 0.0
    """How small a layer gains nothing on a GPU is not known on the host that builds: each counts."""

    def __init__(self, request: BuildRequest, model: Any, kind: GraphKind, float_operators: Collection[str]) -> None:
        super().__init__(request, model, kind, list(SYMMETRIC_RANGES))
        self._residuals = kind == "cnn"
        self._float_operators = float_operators
        self._vectors = find_vectors(model, request.shapes)
        if not plan_pairs(model, residuals=False, float_operators=float_operators, vectors=self._vectors).layers:
            self._vectors = set()  # a small gain is what there is to gain
        self._weights: dict[str, Any] = {}

    def build(self, candidate: OnnxCandidate, kept: Collection[str]) -> Any:
        plan, limits = self.prepare(candidate, kept)
        return write_pairs(self.smoothed, plan, self.smoothed, limits, weights=self._weights)

    def prepare(self, candidate: OnnxCandidate, kept: Collection[str]) -> tuple[PairPlan, dict[str, float]]:
        """Returns plan and cut-offs of a candidate; `smoothed` is the model that they are for."""
        if self.smooth(candidate.alpha):
            self._weights = {}
        plan = self.plan(kept)
        statistics = self.measure(plan.entries)
        find = SYMMETRIC_RANGES[candidate.ranges or "minmax"]
        return plan, {name: find(statistics[name]) for name in plan.entries}

    def plan(self, kept_float: Collection[str] = ()) -> PairPlan:
        return plan_pairs(
            self.smoothed,
            kept_float,
            residuals=self._residuals,
            float_operators=self._float_operators,
            vectors=self._vectors,
        )

    def works(self, model: Any) -> Mapping[str, LayerWork]:  # noqa: ARG002 - the float model says it
        index = index_graph(self.smoothed)
        plan = self.plan()
        layers, statistics = set(plan.layers), self.measure(plan.entries)
        work = {}
        for node in self.smoothed.graph.node:
            if node.name in layers:
                dims = list(index.constants[node.input[1]].dims)
                seen = statistics[node.input[0]].size
                if node.op_type == "Conv":
                    strides = int(np.prod(read_attribute(node, "strides", [1])))
                    # Values read, times what each contributes to; reading counts as some ten multiplications.
                    per_value = dims[0] * float(np.prod(dims[2:])) / read_attribute(node, "group", 1) / strides
                    work[node.name] = seen * (per_value + 10)
                elif node.op_type == "ConvTranspose":
                    work[node.name] = seen * float(np.prod(dims[1:]))
                else:
                    work[node.name] = float(seen * dims[channel_axis(node)])
        return {name: LayerWork(products=products) for name, products in work.items()}
