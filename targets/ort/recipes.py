"""What the INT8 targets of ONNX Runtime do before and while they search: prepare the model, build candidates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.onnx.facts import read_attribute
from modelwright.targets.contract import BuildRequest
from modelwright.targets.graphs.classify import GraphKind
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.graphs.rewrite import rebuild_model, split_gemms
from modelwright.targets.ort import plan as ort_plan
from modelwright.targets.ort import quantize as ort_quantization
from modelwright.targets.quantization import statistics as smoothing
from modelwright.targets.quantization.formats import Scheme
from modelwright.targets.quantization.search import Candidate
from modelwright.targets.quantization.smoothquant import (
    CALIBRATION_SAMPLES,
    measure_maxima,
    smooth_copy,
)

RANGE_METHODS: Mapping[str, Callable[[smoothing.TensorStatistics], tuple[float, float]]] = {
    "minmax": lambda seen: (seen.low, seen.high),
    "percentile-99.999": lambda seen: seen.percentile_range(0.99999),
    "percentile-99.99": lambda seen: seen.percentile_range(0.9999),
    "least-error": lambda seen: seen.least_error_range(),
}


class StaticBuilder:
    """Builds static candidates; statistics and quantized weights are kept between those that share them."""

    def __init__(self, request: BuildRequest, model: Any, kind: GraphKind, scheme: Scheme) -> None:
        assert request.calibration is not None
        self._samples = request.calibration
        self._request = request
        self._model = model
        self._carry = kind != "transformer"
        self._scheme = scheme
        self._alpha: float | None = None
        self._smoothed = model
        self._weights: dict[str, Any] = {}
        self._statistics: dict[str, smoothing.TensorStatistics] = {}
        self._maxima: dict[str, npt.NDArray[np.float32]] | None = None
        self.sample_count = min(self._samples.count, CALIBRATION_SAMPLES)

    def costs(self) -> dict[str, float]:
        """Returns the quantizable layers -> their work in multiplications; call it after the first build."""
        index = index_graph(self._smoothed)
        plan = ort_plan.plan_static(self._smoothed, (), carry=self._carry)
        costs = {}
        for node in self._smoothed.graph.node:
            if node.name not in plan.integer:
                continue
            dims = list(index.constants[node.input[1]].dims)
            output = plan.absorbed[node.name].output[0] if node.name in plan.absorbed else node.output[0]
            source = plan.sources.get(node.input[0], node.input[0])
            if node.op_type == "Conv":
                # Reading and writing a value takes as long as some ten multiplications: it is what a
                # depthwise convolution spends its time on.
                costs[node.name] = self._statistics[output].size * (float(np.prod(dims[1:])) + 10)
            else:
                columns = dims[0] if read_attribute(node, "transB", 0) else dims[1]
                costs[node.name] = float(self._statistics[source].size * columns)
        return costs

    def build(self, candidate: Candidate, kept_float: Collection[str]) -> Any:
        if candidate.alpha != self._alpha:
            self._alpha, self._weights, self._statistics = candidate.alpha, {}, {}
            if candidate.alpha is not None and self._maxima is None:
                self._maxima = measure_maxima(self._request, self._model)
            self._smoothed = smooth_copy(self._model, self._maxima, candidate.alpha)
        plan = ort_plan.plan_static(self._smoothed, kept_float, carry=self._carry)
        missing = [name for name in plan.ranged_tensors() if name not in self._statistics]
        if missing:
            self._request.progress(f"calibrating on {self.sample_count} samples")
            self._statistics |= smoothing.collect_statistics(
                self._smoothed, missing, lambda: self._samples.feeds(CALIBRATION_SAMPLES), self._request.scratch
            )
        method = RANGE_METHODS[candidate.ranges or "minmax"]
        ranges = {name: method(self._statistics[name]) for name in plan.ranged_tensors()}
        return ort_quantization.quantize_static(self._smoothed, plan, ranges, self._scheme, self._weights)


class DynamicBuilder:
    """Builds dynamic candidates."""

    def __init__(self, request: BuildRequest, model: Any, scheme: Scheme) -> None:
        self._request = request
        self._model = model
        self._scheme = scheme
        self._maxima: dict[str, npt.NDArray[np.float32]] | None = None

    def build(self, candidate: Candidate, kept_float: Collection[str]) -> Any:
        if candidate.alpha is not None and self._maxima is None:
            self._maxima = measure_maxima(self._request, self._model)
        model = smooth_copy(self._model, self._maxima, candidate.alpha)
        if candidate.alpha is None:
            model = rebuild_model(model, list(model.graph.node), {})
        split_gemms(model)
        names = ort_plan.find_dynamic(model, index_graph(model))
        return ort_quantization.quantize_dynamic(model, set(names) - set(kept_float), self._scheme)
