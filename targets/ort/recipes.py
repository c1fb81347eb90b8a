"""What the INT8 targets of ONNX Runtime do before and while they search: prepare the model, build candidates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BuildFailedError
from modelwright.targets.contract import (
    BuildRequest,
    RunSettings,
    require_import,
)
from modelwright.targets.graphs import graph as onnx_graph
from modelwright.targets.ort import plan as ort_plan
from modelwright.targets.ort import quantize as ort_quantization
from modelwright.targets.ort.session import open_file, session_options
from modelwright.targets.quantization import statistics as smoothing
from modelwright.targets.quantization.formats import Scheme
from modelwright.targets.quantization.search import Candidate

CALIBRATION_SAMPLES = 128
EXTERNAL_BYTES = 1_500_000_000

RANGE_METHODS: Mapping[str, Callable[[smoothing.TensorStatistics], tuple[float, float]]] = {
    "minmax": lambda seen: (seen.low, seen.high),
    "percentile-99.999": lambda seen: seen.percentile_range(0.99999),
    "percentile-99.99": lambda seen: seen.percentile_range(0.9999),
    "least-error": lambda seen: seen.least_error_range(),
}


def prepare_model(request: BuildRequest) -> tuple[Any, dict[str, Any]]:
    """Loads the model at a fit opset, with constants and batch norms folded and its graph normalized."""
    request.progress("folding constants and batch norms")
    path, notes = request.model_path, {}
    external = onnx_graph.find_external_files(path)
    if onnx_graph.find_opset(onnx_graph.load_model(path, weights=False)) < onnx_graph.PER_AXIS_OPSET:
        source = onnx_graph.load_model(path)
        try:
            converted = onnx_graph.raise_opset(source, onnx_graph.PER_AXIS_OPSET, lambda m: _verify(request, m))
            path = request.scratch / "raised.onnx"
            onnx_graph.save_model(converted, path)
            external = []
        except BuildFailedError as error:
            # ONNX Runtime's own Q/DQ operators work at any opset, so static quantization can go on.
            notes["opset_note"] = f"kept at its opset: {error.message}"
            request.progress(str(notes["opset_note"]))
    folded = request.scratch / "folded.onnx"
    ort = require_import("onnxruntime", "ort")
    options = session_options(RunSettings(threads=1))
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    if external or path.stat().st_size > EXTERNAL_BYTES:
        # Without it, weights kept apart are left where they were, under a path that no longer holds from here.
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "folded.data")
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for every status code
        open_file(path, RunSettings(), BuildFailedError)  # raises when the model itself is what cannot be loaded
        notes["folding_note"] = f"not folded: {error}"
        folded = path
    model = onnx_graph.load_model(folded)
    onnx_graph.normalize_graph(model)
    return model, notes


def _verify(request: BuildRequest, converted: Any) -> None:
    """Compares a converted model with the original on real samples where there are any."""
    samples = request.tuning or request.calibration
    if samples is None:
        return
    before = open_file(request.model_path, RunSettings(), BuildFailedError)
    after = smoothing.open_session(converted, request.scratch)
    for feeds in samples.feeds(2):
        for spec, old, new in zip(
            request.signature.outputs, before.run(None, dict(feeds)), after.run(None, dict(feeds)), strict=True
        ):
            if not np.allclose(old, new, rtol=1e-3, atol=1e-4):
                raise BuildFailedError(f"onnx's version converter changed the numbers of output {spec.name}")


class StaticBuilder:
    """Builds static candidates; statistics and quantized weights are kept between those that share them."""

    def __init__(self, request: BuildRequest, model: Any, kind: onnx_graph.GraphKind, scheme: Scheme) -> None:
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
        index = onnx_graph.index_graph(self._smoothed)
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
                columns = dims[0] if onnx_graph.read_attribute(node, "transB", 0) else dims[1]
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
            model = ort_quantization.rebuild_model(model, list(model.graph.node), {})
        onnx_graph.split_gemms(model)
        names = ort_plan.find_dynamic(model, onnx_graph.index_graph(model))
        return ort_quantization.quantize_dynamic(model, set(names) - set(kept_float), self._scheme)


def measure_maxima(request: BuildRequest, model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Measures the channels of the activations that SmoothQuant divides, on the calibration samples."""
    samples = request.calibration
    assert samples is not None
    request.progress("measuring channels for SmoothQuant")
    names = list(smoothing.find_smoothable(model, onnx_graph.index_graph(model)))
    return smoothing.collect_channel_maxima(model, names, lambda: samples.feeds(CALIBRATION_SAMPLES), request.scratch)


def smooth_copy(model: Any, maxima: Mapping[str, npt.NDArray[np.float32]] | None, alpha: float | None) -> Any:
    """Returns a smoothed copy of a model: the model itself when `alpha` is None."""
    if alpha is None or maxima is None:
        return model
    copy = ort_quantization.rebuild_model(model, list(model.graph.node), {})
    smoothing.smooth_model(copy, maxima, alpha)
    onnx_graph.prune_graph(copy)
    return copy
