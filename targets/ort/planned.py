"""A plan of precisions in ONNX Runtime: INT8 layers by Q/DQ, matrices of 4 bits as MatMulNBits, all else in float."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.records.plan import ExecutedPlan, PlannedLayer
from modelwright.targets.contract import BuildRequest
from modelwright.targets.graphs.classify import GraphKind
from modelwright.targets.graphs.index import find_weight_matmuls, index_graph
from modelwright.targets.graphs.rewrite import rebuild_model, split_gemms
from modelwright.targets.ort import plan as ort_plan
from modelwright.targets.ort.quantize import find_weight_axis
from modelwright.targets.ort.recipes import RANGE_METHODS, VENDORS, StaticQuantizer
from modelwright.targets.ort.weights import BlockWriter
from modelwright.targets.quantization.blocks import Blocks, share_scales
from modelwright.targets.quantization.formats import LEAST_SCALE, Scheme, round_weight
from modelwright.targets.quantization.onnx_quantizer import OnnxCandidate
from modelwright.targets.quantization.planned import (
    BYTE_WEIGHT,
    FLOAT,
    INTEGER,
    NARROW,
    NARROW_WEIGHT,
    PlannedModel,
    Way,
    choose_way,
)
from modelwright.targets.quantization.savings import LayerWork
from modelwright.targets.quantization.smoothquant import measure_maxima

LACKING = "ONNX Runtime has no narrower kernel on the CPU"
_MATRIX_WAYS = (NARROW, NARROW_WEIGHT, INTEGER, BYTE_WEIGHT)
_BLOCK_SIZES = (256, 128, 64, 32, 16)
"""That the kernel multiplies without widening the whole matrix first."""
_USUAL_BLOCK = 32


class PlannedQuantizer(StaticQuantizer):
    """Builds candidates that compute each layer as planned; what is searched is how the ranges are chosen.

    Args:
        request: Whose samples calibrate, and whose plan is executed.
        model: The normalized float model.
        kind: Of its graph.
        scheme: Number formats.
        planned: The plan.

    Attributes:
        ways: Node -> how it is computed, of all that multiply by a constant weight.
    """

    def __init__(
        self, request: BuildRequest, model: Any, kind: GraphKind, scheme: Scheme, planned: PlannedModel
    ) -> None:
        super().__init__(request, model, kind, scheme)
        assert request.plan is not None, "the plan was read from it"
        self._planned, self._repairs = planned, request.plan.repairs
        self._layers: dict[str, PlannedLayer] = planned.match(model)
        index = index_graph(model)
        static = set(ort_plan.find_quantizable(model, index))
        matrices = {node.name for node in find_weight_matmuls(model, index)} & static
        self.ways: dict[str, Way] = {name: self._choose(name, name in matrices) for name in static}
        self.describe_plan(())  # raises where nothing of the plan can be executed

    def _choose(self, name: str, is_matrix: bool) -> Way:
        layer = self._layers.get(name)
        return FLOAT if layer is None else choose_way(layer, _MATRIX_WAYS if is_matrix else (INTEGER,))

    def candidates(self) -> Sequence[Sequence[OnnxCandidate]]:
        if INTEGER not in self.ways.values():
            return [[OnnxCandidate(alpha=None, ranges=next(iter(RANGE_METHODS)))]]
        # The vendor's plain call follows no plan, and weights that share one scale are not rounded for samples.
        shares = any(layer.granularity == "tensor" for layer in self._layers.values())
        groups = [
            [each for each in group if each.ranges != VENDORS and not (each.rounded and shares)]
            for group in super().candidates()
        ]
        return [group for group in groups if group]

    def build(self, candidate: OnnxCandidate, kept: Collection[str]) -> Any:
        if candidate.alpha is not None and self._maxima is None:
            self._maxima = self._measure_maxima()
        if self.smooth(candidate.alpha):
            self._weights, self._rounded = {}, {}
        self._share_scales()
        in_float = [name for name, way in self.ways.items() if way != INTEGER]
        quantized = super().build(candidate, [*in_float, *self.tables, *kept])
        return self._narrow(quantized, {name for name in in_float if self.ways[name] != FLOAT and name not in kept})

    def works(self, model: Any) -> Mapping[str, LayerWork]:
        if not self._repairs:
            return {}  # what the plan says is not for the search to change
        return {name: work for name, work in super().works(model).items() if self.ways.get(name, FLOAT) != FLOAT}

    def describe_plan(self, kept: Collection[str]) -> ExecutedPlan:
        """Returns what became of the plan in a candidate with some layers put back to float."""
        layers = {name: layer for name, layer in self._layers.items() if name in self.ways}
        ways = dict.fromkeys((layer.output for layer in self._layers.values()), FLOAT)
        return self._planned.describe(
            ways | {layer.output: self.ways[name] for name, layer in layers.items()},
            tensorwise={layer.output for layer in layers.values() if layer.granularity == "tensor"},
            repaired={layers[name].output for name in kept if name in layers},
            lacking=LACKING,
        )

    def _measure_maxima(self) -> dict[str, npt.NDArray[np.float32]]:
        """Returns the maxima of what INT8 layers read: smoothing makes weights harder to hold in 4 bits."""
        read = {node.input[0] for node in self._model.graph.node if self.ways.get(node.name) == INTEGER}
        measured = measure_maxima(self._request, self._model)
        return {name: maxima for name, maxima in measured.items() if name in read}

    def _share_scales(self) -> None:
        """Rounds weights for which one scale is planned: the writer takes what it is given."""
        index = index_graph(self.smoothed)
        for node in self.smoothed.graph.node:
            layer = self._layers.get(node.name)
            if layer is None or layer.granularity != "tensor" or self.ways.get(node.name) != INTEGER:
                continue
            axis = find_weight_axis(node)
            key, values = f"{node.input[1]}/{axis}", index.array(node.input[1])
            if key not in self._weights:
                scale = max(float(np.abs(values).max(initial=0.0)) / self._scheme.weight_limit, LEAST_SCALE)
                scales = np.full(values.shape[axis], scale, np.float32)
                self._weights[key] = (round_weight(values, scales, axis, self._scheme.weight_limit), scales)

    def _narrow(self, model: Any, names: Collection[str]) -> Any:
        """Returns the model with the matrices of the named nodes in blocks of few bits."""
        if not names:
            return model
        copy = rebuild_model(model, list(model.graph.node), {})
        split_gemms(copy, names)
        writer = BlockWriter(copy)
        for node in copy.graph.node:
            if node.name not in names:
                writer.nodes.append(node)
                continue
            layer, way = self._layers[node.name], self.ways[node.name]
            scales = f"{layer.granularity}_{layer.group_size or 'row'}"
            writer.write_rounded(
                node,
                partial(_round_planned, layer=layer, way=way),
                stem=f"{node.input[1]}_b{way.weight_bits}_{scales}",
                in_integers=way.activation_bits is not None,
            )
        return rebuild_model(copy, writer.nodes, writer.constants)


def _round_planned(matrix: Any, layer: PlannedLayer, way: Way) -> Blocks:
    """Rounds a matrix with scales for what is planned: the whole of it, each column, or rows of them in groups."""
    bits = way.weight_bits or 8
    if layer.granularity == "tensor":
        return share_scales(matrix, bits=bits, size=_USUAL_BLOCK, rows=None)
    if layer.group_size is None or layer.group_size >= len(matrix):
        return share_scales(matrix, bits=bits, size=_USUAL_BLOCK, rows=len(matrix))
    # Groups that no block divides get the smallest blocks: finer scales than planned, never coarser ones.
    fitting = [size for size in _BLOCK_SIZES if layer.group_size % size == 0]
    size = fitting[0] if fitting else _BLOCK_SIZES[-1]
    return share_scales(matrix, bits=bits, size=size, rows=layer.group_size if fitting else size)
