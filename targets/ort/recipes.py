"""What the INT8 targets of ONNX Runtime give to the search: candidates as graphs, and what their layers cost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from modelwright.core.onnx.facts import read_attribute
from modelwright.core.records.plan import ExecutedPlan
from modelwright.targets.contract import BuildRequest, Feeds
from modelwright.targets.graphs.classify import GraphKind
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.graphs.rewrite import rebuild_model, split_gemms
from modelwright.targets.graphs.work import measure_work
from modelwright.targets.ort import plan as ort_plan
from modelwright.targets.ort import quantize as ort_quantization
from modelwright.targets.ort.exact import AS_WRITTEN, write_exactly
from modelwright.targets.ort.layer_times import time_layers
from modelwright.targets.ort.pairs import pair_pixels
from modelwright.targets.ort.tables import find_tables, quantize_tables
from modelwright.targets.ort.vendor import quantize_as_vendor
from modelwright.targets.quantization.formats import FULL_WEIGHT, Scheme, quantize_weight
from modelwright.targets.quantization.judge import Outputs
from modelwright.targets.quantization.kept import LayerTimes
from modelwright.targets.quantization.onnx_quantizer import OnnxCandidate, OnnxQuantizer
from modelwright.targets.quantization.rounded import SAMPLES, count_rounding, round_model
from modelwright.targets.quantization.savings import LayerWork
from modelwright.targets.quantization.smoothquant import CALIBRATION_SAMPLES
from modelwright.targets.quantization.statistics import TensorStatistics

RANGE_METHODS: Mapping[str, Callable[[TensorStatistics], tuple[float, float]]] = {
    "minmax": lambda seen: (seen.low, seen.high),
    "percentile-99.999": lambda seen: seen.percentile_range(0.99999),
    "percentile-99.99": lambda seen: seen.percentile_range(0.9999),
    "least-error": lambda seen: seen.least_error_range(),
}
VENDORS = "ONNX Runtime's own"
"""Stands in the place of a way to choose ranges for the vendor's plain call, which chooses everything."""


class OrtQuantizer(OnnxQuantizer):
    """What both ways have in common: tables, and candidates judged by the arithmetic of the machine that they are for.

    Attributes:
        tables: Names of the nodes that look up rows of a large table.
    """

    def __init__(self, request: BuildRequest, model: Any, kind: GraphKind, ranges: Sequence[str] = ()) -> None:
        super().__init__(request, model, kind, ranges)
        self.tables = frozenset(find_tables(model))

    def candidates(self) -> Sequence[Sequence[OnnxCandidate]]:
        return [*super().candidates(), [OnnxCandidate(alpha=None, ranges=VENDORS)]]

    def add_tables(self, works: Mapping[str, LayerWork]) -> dict[str, LayerWork]:
        """Returns what layers do, the tables first: what they cost in float is size, not time."""
        return {**dict.fromkeys(self.tables, LayerWork(products=0.0)), **works}

    def run(self, model: Any, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
        exact = write_exactly(model) if saturates_here(self._request) else None
        if exact is None:
            return super().run(model, feeds)
        return self.run_session(exact, feeds, AS_WRITTEN)

    def finish(self, model: Any) -> Any:
        """Returns a chosen candidate as it is shipped: the same numbers, written for speed."""
        return model

    def describe_plan(self, kept: Collection[str]) -> ExecutedPlan | None:  # noqa: ARG002
        """Returns what became of the plan of precisions, with some layers put back; None where there is none."""
        return None

    def time_layers(self, model: Any) -> LayerTimes | None:
        samples = self._request.calibration or self._request.tuning
        if samples is None or not self._request.fits_host:
            return None
        return time_layers(model, next(samples.feeds(1)), self._request.scratch)


def saturates_here(request: BuildRequest) -> bool:
    """Whether this host would saturate sums that the machine does not: of all 8 bits of the weights."""
    machine, host = request.machine, request.host or request.machine
    return machine.sums_exactly and not host.sums_exactly


class StaticQuantizer(OrtQuantizer):
    """Builds static candidates; statistics and quantized weights are kept between those that share them."""

    def __init__(self, request: BuildRequest, model: Any, kind: GraphKind, scheme: Scheme) -> None:
        super().__init__(request, model, kind, list(RANGE_METHODS))
        self._carry = kind != "transformer"
        self._scheme = scheme
        self._weights: dict[str, Any] = {}
        self._rounded: dict[str, Any] = {}

    def candidates(self) -> Sequence[Sequence[OnnxCandidate]]:
        *groups, vendors = super().candidates()
        if self._scheme.weight_limit < FULL_WEIGHT:  # the grids of rounded weights have 8 bits
            return [*groups, vendors]
        first, *others = groups
        rounded = [replace(each, rounded=True) for each in first]
        if self._smooths:
            # What a transformer loses it loses with its activations: rounding helps few, and costs as much as all else.
            return [first, rounded, *others, vendors]
        return [[first[0], *rounded], *others, vendors]

    def effort(self, candidate: OnnxCandidate) -> float:
        if not candidate.rounded or (self._rounded and candidate.alpha == self._alpha):
            return 1.0
        return 1.0 + self._rounding_effort

    @cached_property
    def _rounding_effort(self) -> float:
        """What rounding the weights costs beside a candidate: a pass over samples, and what the method multiplies."""
        samples = self._request.calibration
        assert samples is not None, "static quantization needs samples"
        inference = sum(measure_work(self._model, next(samples.feeds(1)), self._request.scratch).values())
        return 1.0 + count_rounding(self._model) / (max(inference, 1.0) * SAMPLES)

    def build(self, candidate: OnnxCandidate, kept: Collection[str]) -> Any:
        if self.smooth(candidate.alpha):
            self._weights, self._rounded = {}, {}
        samples = self._request.calibration
        if candidate.ranges == VENDORS and samples is not None:
            feeds = samples.feeds(CALIBRATION_SAMPLES)
            return quantize_as_vendor(self.smoothed, feeds, kept, self._request.scratch)
        if candidate.rounded and not self._rounded:
            self._rounded = self._round_weights()
        weights = self._rounded if candidate.rounded else self._weights
        plan = ort_plan.plan_static(self.smoothed, kept, carry=self._carry)
        statistics = self.measure(plan.ranged_tensors())
        method = RANGE_METHODS[candidate.ranges or "minmax"]
        ranges = {name: method(statistics[name]) for name in plan.ranged_tensors()}
        quantized = ort_quantization.quantize_static(self.smoothed, plan, ranges, self._scheme, weights)
        return quantize_tables(quantized, self.tables - set(kept))

    def finish(self, model: Any) -> Any:
        machine = self._request.machine
        pays = machine.architecture == "x86_64" and machine.has_int8_dot_product
        return pair_pixels(model) if pays else model

    def _round_weights(self) -> dict[str, Any]:
        """Returns integers and scales of the weights, rounded for what they make of the calibration samples."""
        samples = self._request.calibration
        assert samples is not None, "static quantization needs samples"
        self._request.progress("rounding weights for what they make of the calibration samples")
        copy = rebuild_model(self.smoothed, list(self.smoothed.graph.node), {})
        names = set(round_model(copy, samples, self._request.scratch))
        index = index_graph(copy)
        found = {}
        for node in copy.graph.node:
            if node.name in names:
                axis = ort_quantization.find_weight_axis(node)
                values = index.array(node.input[1])
                found[f"{node.input[1]}/{axis}"] = quantize_weight(values, axis, self._scheme.weight_limit)
        return found

    def works(self, model: Any) -> Mapping[str, LayerWork]:  # noqa: ARG002 - the float model says it
        index = index_graph(self.smoothed)
        plan = ort_plan.plan_static(self.smoothed, (), carry=self._carry)
        statistics = self.measure(plan.ranged_tensors())
        works = {}
        for node in self.smoothed.graph.node:
            if node.name in plan.carried and plan.sources.get(node.output[0]) == node.output[0]:
                values = float(statistics[node.output[0]].size)
                works[node.name] = LayerWork(products=0.0, values=values, passes_integers=True)
            if node.name not in plan.integer:
                continue
            dims = list(index.constants[node.input[1]].dims)
            output = plan.absorbed[node.name].output[0] if node.name in plan.absorbed else node.output[0]
            source = plan.sources.get(node.input[0], node.input[0])
            weights = float(np.prod(dims))
            if node.op_type == "Conv":
                values = float(statistics[output].size)
                products = values * float(np.prod(dims[1:]))
                works[node.name] = LayerWork(products=products, weights=weights, values=values, passes_integers=True)
            else:
                columns = dims[0] if read_attribute(node, "transB", 0) else dims[1]
                works[node.name] = LayerWork(products=float(statistics[source].size * columns), weights=weights)
        return self.add_tables(works)


class DynamicQuantizer(OrtQuantizer):
    """Builds dynamic candidates."""

    def __init__(self, request: BuildRequest, model: Any, kind: GraphKind, scheme: Scheme) -> None:
        super().__init__(request, model, kind)
        self._scheme = scheme

    def build(self, candidate: OnnxCandidate, kept: Collection[str]) -> Any:
        self.smooth(candidate.alpha)
        model = rebuild_model(self.smoothed, list(self.smoothed.graph.node), {})
        split_gemms(model)
        if candidate.ranges == VENDORS:
            return quantize_as_vendor(model, None, kept, self._request.scratch)
        names = ort_plan.find_dynamic(model, index_graph(model))
        quantized = ort_quantization.quantize_dynamic(model, set(names) - set(kept), self._scheme)
        return quantize_tables(quantized, self.tables - set(kept))

    def works(self, model: Any) -> Mapping[str, LayerWork]:  # noqa: ARG002 - the float model says it
        layers = set(ort_plan.find_dynamic(self._model, index_graph(self._model)))
        sizes = {tensor.name: float(np.prod(tensor.dims)) for tensor in self._model.graph.initializer}
        read = {node.name: sizes[node.input[1]] for node in self._model.graph.node if node.name in layers}
        # Of how many rows they multiply nothing is known here: of one.
        return self.add_tables({name: LayerWork(products=size, weights=size) for name, size in read.items()})
