"""ONNX Runtime on the CPU: FP32 (the baseline), static INT8 and dynamic INT8.

The INT8 recipes try a few candidates on the tuning samples and keep the fastest that follows FP32 closely enough; if
none does, the layers that cost most are put back to float one after the other.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BuildFailedError, MeasurementInvalidError
from modelwright.core.machine import Machine
from modelwright.core.samples import SampleSet
from modelwright.core.signature import Signature
from modelwright.targets import onnx_graph, ort_quantization, smoothing
from modelwright.targets.base import (
    BuildRequest,
    BuildResult,
    Feeds,
    RunSettings,
    Session,
    Target,
    TargetRecord,
    package_versions,
    require_import,
)

Array = npt.NDArray[Any]

MODEL_FILE = "model.onnx"
GOAL_COSINE = 0.999
"""Mean cosine with FP32 from which a candidate is good enough: about 4.5 % error in norm, 0.2 % in energy."""
GOAL_FLIPS = 0.02
"""Share of labelled tuning samples whose top class may change: one near-tie in 64 is no reason to give up speed."""
CALIBRATION_SAMPLES = 128
RANKING_SAMPLES = 16
"""Tuning samples that rank layers by sensitivity."""
TRIES_SMALL, TRIES_LARGE = 32, 12
"""Models tried in the sensitivity analysis, for networks below and above `LARGE_VALUES` weights."""
LARGE_VALUES = 5_000_000
MOST_FLOAT = 0.2
"""Share of the layers' work that may go back to float: beyond it the speed is gone too."""
POOR_COSINE = 0.98
"""Below it, layers go back to float for half the error even if the goal stays out of reach; above, speed wins."""

_RANGE_METHODS: Mapping[str, Callable[[smoothing.TensorStatistics], tuple[float, float]]] = {
    "minmax": lambda seen: (seen.low, seen.high),
    "percentile-99.999": lambda seen: seen.percentile_range(0.99999),
    "percentile-99.99": lambda seen: seen.percentile_range(0.9999),
    "least-error": lambda seen: seen.least_error_range(),
}
_ALPHAS = (None, 0.7, 0.5, 0.8)
"""In the order of trying: the cheapest first, then what did best on a sentence classifier."""
_FLOAT_COMPUTE = frozenset(
    {"Attention", "Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "GRU", "Gemm", "LSTM", "MatMul"}
    | {"MultiHeadAttention", "NhwcFusedConv", "RNN"}
)
_INTEGER_COMPUTE = frozenset(
    {"ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat"}
    | {"QAttention", "QGemm", "QLinearConv", "QLinearMatMul"}
)
_NAMED_OPERATOR = re.compile(
    r"implementation for (\S+?\(\d+\))|Op \((\w+)\)|(?:: |^)([\w.]+:\w+\(-?\d+\))|running (\w+) node"
)
_NAMED_NODE = re.compile(r"node with name '([^']*)'|[Nn]ode:? ?\(([^)]*)\)|Name:'([^']*)'")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How closely a candidate follows FP32 on the tuning samples.

    Attributes:
        cosine: Mean cosine of the float outputs; of several outputs the worst.
        error: Energy of the difference as a share of the energy of FP32's outputs; of several the worst.
        agreement: Share of samples with FP32's top class; None without labels or for other outputs than [n, classes].
    """

    cosine: float
    error: float
    agreement: float | None

    @property
    def is_good(self) -> bool:
        return self.cosine >= GOAL_COSINE and (self.agreement is None or self.agreement >= 1 - GOAL_FLIPS)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to quantize: SmoothQuant's alpha or None, and how ranges are chosen (None: as it runs)."""

    alpha: float | None
    ranges: str | None


@dataclass(kw_only=True)
class SearchResult:
    """What the search chose.

    Attributes:
        model: The quantized model.
        recipe: For the manifest.
        notes: For the user.
    """

    model: Any
    recipe: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class _OrtTarget(Target):
    """What the three targets share: loading."""

    @contextmanager
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],  # noqa: ARG002 - part of the contract
        signature: Signature,
        settings: RunSettings,
    ) -> Iterator[Session]:
        """Loads the model with all graph optimizations; see `Target.load`."""
        session = OrtSession(directory / model_file, signature, settings)
        try:
            yield session
        finally:
            session.close()


class OrtFp32(_OrtTarget):
    """The baseline: the model as it was exported."""

    record: ClassVar[TargetRecord] = TargetRecord(
        name="ort-fp32",
        runtime="ort",
        precision="fp32",
        title="ONNX Runtime FP32",
        is_float=True,
        needs_calibration=False,
        build_packages={"onnx": "onnx", "onnxruntime": "onnxruntime"},
        run_packages={"onnxruntime": "onnxruntime"},
        build_extra="ort",
        run_extra="ort-run",
        min_cosine=0.99999,
    )

    def build(self, request: BuildRequest) -> BuildResult:
        """Copies the model and the files with its weights; see `Target.build`."""
        request.progress("copying the model")
        names = onnx_graph.find_external_files(request.model_path)
        for name in names:
            (request.directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(request.model_path.parent / name, request.directory / name)
        file = MODEL_FILE if MODEL_FILE not in names else f"graph-{MODEL_FILE}"
        shutil.copyfile(request.model_path, request.directory / file)
        _open_file(request.directory / file, RunSettings(), BuildFailedError)
        return BuildResult(
            model_file=file,
            recipe={"method": "as exported", "precision": "fp32"},
            requires={"packages": {"onnxruntime": ">=1.22"}},
            versions=package_versions("onnx", "onnxruntime"),
        )


class OrtInt8(_OrtTarget):
    """Static INT8: the ranges of activations are fixed by calibration."""

    record: ClassVar[TargetRecord] = TargetRecord(
        name="ort-int8",
        runtime="ort",
        precision="int8",
        title="ONNX Runtime INT8",
        is_float=False,
        needs_calibration=True,
        uses_samples=True,
        build_packages={"onnx": "onnx", "onnxruntime": "onnxruntime"},
        run_packages={"onnxruntime": "onnxruntime"},
        build_extra="ort",
        run_extra="ort-run",
        min_cosine=0.95,
    )

    def build(self, request: BuildRequest) -> BuildResult:
        """Quantizes weights and activations; see `Target.build`."""
        if request.calibration is None or request.calibration.count == 0:
            raise BuildFailedError("ort-int8 needs calibration samples", hint="give --samples FILE.npz")
        model, prepared = _prepare_model(request)
        kind = onnx_graph.classify_graph(model)
        if kind == "cnn":
            onnx_graph.pool_spatial_means(model)
        if not ort_quantization.find_quantizable(model, onnx_graph.index_graph(model)):
            raise BuildFailedError(
                "the model has no Conv, MatMul or Gemm with constant float32 weights: nothing for ort-int8 to quantize",
                hint="use ort-int8-dynamic for LSTM networks, ort-fp32 otherwise",
            )
        if onnx_graph.find_opset(model) < _STATIC_OPSET:
            raise _old_opset(_STATIC_OPSET, model, prepared)
        scheme = choose_scheme(request.machine, static=True)
        builder = _StaticBuilder(request, model, kind, scheme)
        ranges = list(_RANGE_METHODS) if kind != "transformer" else list(_RANGE_METHODS)[:2]
        alphas = _ALPHAS if kind == "transformer" else _ALPHAS[:1]
        candidates = [Candidate(alpha=alpha, ranges=method) for alpha in alphas for method in ranges]
        result = _search(request, candidates, builder.build, builder.costs)
        if not prepared.get("opset_note"):
            result.recipe["opset"] = onnx_graph.find_opset(model)
        result.recipe.update(method="static Q/DQ", calibration_samples=builder.sample_count, **prepared)
        if kind == "rnn":
            result.notes.append("recurrent layers stay in float: ONNX Runtime quantizes LSTM only dynamically")
        return _finish(request, result, kind, scheme)


class OrtInt8Dynamic(_OrtTarget):
    """Dynamic INT8: the ranges of activations are measured at each inference."""

    record: ClassVar[TargetRecord] = TargetRecord(
        name="ort-int8-dynamic",
        runtime="ort",
        precision="int8-dynamic",
        title="ONNX Runtime dynamic INT8",
        is_float=False,
        needs_calibration=False,
        uses_samples=True,
        build_packages={"onnx": "onnx", "onnxruntime": "onnxruntime"},
        run_packages={"onnxruntime": "onnxruntime"},
        build_extra="ort",
        run_extra="ort-run",
        min_cosine=0.95,
    )

    def build(self, request: BuildRequest) -> BuildResult:
        """Quantizes the weights of MatMul, Gemm and LSTM; see `Target.build`."""
        model, prepared = _prepare_model(request)
        kind = onnx_graph.classify_graph(model)
        layers = ort_quantization.find_dynamic(model, onnx_graph.index_graph(model))
        if not layers:
            raise BuildFailedError(
                "the model has no MatMul, Gemm or LSTM with constant float32 weights: nothing for ort-int8-dynamic",
                hint="use ort-int8: dynamically quantized Conv runs slower than FP32 in ONNX Runtime",
            )
        if onnx_graph.find_opset(model) < _DYNAMIC_OPSET:
            raise _old_opset(_DYNAMIC_OPSET, model, prepared)
        scheme = choose_scheme(request.machine, static=False)
        builder = _DynamicBuilder(request, model, scheme)
        alphas = _ALPHAS if kind == "transformer" and request.calibration is not None else _ALPHAS[:1]
        weights = {node.name: node.input[1] for node in model.graph.node if node.name in layers}
        sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
        costs = {name: float(sizes[weights[name]]) for name in layers}
        candidates = [Candidate(alpha=alpha, ranges=None) for alpha in alphas]
        result = _search(request, candidates, builder.build, lambda: costs)
        result.recipe.update(method="dynamic", **prepared)
        if any(node.op_type == "Conv" for node in model.graph.node):
            result.notes.append("convolutions stay in float: their dynamic kernel is slower; ort-int8 quantizes them")
        if any(node.op_type in ("GRU", "RNN") for node in model.graph.node):
            result.notes.append("GRU and RNN layers stay in float: ONNX Runtime has no integer kernel for them")
        return _finish(request, result, kind, scheme)


_STATIC_OPSET, _DYNAMIC_OPSET = 10, 11
"""Where the operators appeared that the two methods cannot do without: QLinearConv and DynamicQuantizeLinear."""


def _old_opset(needed: int, model: Any, prepared: Mapping[str, Any]) -> BuildFailedError:
    return BuildFailedError(
        f"quantization needs opset {needed}; the model has {onnx_graph.find_opset(model)} and does not convert",
        hint=f"export it again at opset {onnx_graph.PER_AXIS_OPSET} or later",
        detail=str(prepared.get("opset_note")),
    )


def choose_scheme(machine: Machine, *, static: bool) -> ort_quantization.Scheme:
    """Chooses the number formats that a machine's kernels are fast and exact with.

    x86: uint8 activations x int8 weights is what VNNI and AMX multiply; int8 x int8 ran 2.4 times slower. Without
    them, VPMADDUBSW adds pairs of products in 16 bits and saturates, so weights get 7 bits: 2 * 255 * 63 < 2**15.
    aarch64: ONNX Runtime's documentation makes int8 x int8 the first choice, and its ARM64 convolution kernels were
    written for symmetric int8 weights (onnxruntime pull request 9772). Pairs of products stay within 16 bits there
    because -128 is never a weight: 2 * 128 * 127 < 2**15. Dynamic activations are uint8 everywhere by definition.
    """
    if machine.architecture == "aarch64":
        return ort_quantization.Scheme(signed_activations=static, weight_limit=127)
    return ort_quantization.Scheme(signed_activations=False, weight_limit=127 if machine.has_int8_dot_product else 63)


class OrtSession(Session):
    """A model loaded in ONNX Runtime."""

    def __init__(self, path: Path, signature: Signature, settings: RunSettings) -> None:
        self._path = path
        self._settings = settings
        self._names = [spec.name for spec in signature.outputs]
        self._session = _open_file(path, settings, MeasurementInvalidError)
        self._feeds: Feeds | None = None

    def run(self, feeds: Feeds) -> dict[str, Array]:
        self._feeds = feeds
        try:
            return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))
        except Exception as error:  # onnxruntime raises a class of its own for every status code
            raise MeasurementInvalidError(
                f"{self._path.name} failed in ONNX Runtime{_blame(error)}", detail=str(error)
            ) from error

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        self._feeds = feeds
        run, prepared = self._session.run, dict(feeds)
        return lambda: run(None, prepared)

    def describe_execution(self) -> dict[str, Any]:
        """Profiles one inference in a child process, so that the timed session's speed and memory stay as they are."""
        if self._feeds is None:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            for number, array in enumerate(self._feeds.values()):
                np.save(Path(folder) / f"{number}.npy", array)
            request = {"model": str(self._path), "names": list(self._feeds), "threads": self._settings.threads}
            (Path(folder) / "request.json").write_text(json.dumps(request))
            command = [sys.executable, "-m", "modelwright.targets.ort", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
            if done.returncode != 0:
                return {"precision": None, "source": "profile failed", "reason": done.stderr[-500:]}
            operators = json.loads(done.stdout.splitlines()[-1])
        integer = {name: n for name, n in operators.items() if name in _INTEGER_COMPUTE or name.startswith("QLinear")}
        computes = any(name in _INTEGER_COMPUTE for name in integer)
        return {
            "precision": "int8" if computes else "fp32",
            "integer_nodes": sum(integer.values()),
            "float_compute_nodes": sum(n for name, n in operators.items() if name in _FLOAT_COMPUTE),
            "operators": operators,
            "threads": self._settings.threads,
            "device": "cpu",
            "source": f"profile of onnxruntime {require_import('onnxruntime', 'ort-run').__version__}",
        }

    def close(self) -> None:
        """Frees the model."""
        self._session = None


def _profile_operators(folder: Path) -> dict[str, int]:
    """Runs one inference under the profiler and counts the nodes that ran, by operator."""
    request = json.loads((folder / "request.json").read_text())
    feeds = {name: np.load(folder / f"{number}.npy") for number, name in enumerate(request["names"])}
    options = _session_options(RunSettings(threads=request["threads"]))
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    ort = require_import("onnxruntime", "ort-run")
    session = ort.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = {
        event["name"]: event["args"]["op_name"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    return dict(Counter(nodes.values()).most_common())


def _session_options(settings: RunSettings) -> Any:
    ort = require_import("onnxruntime", "ort-run")
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # A pool that spins after its inference takes time from whatever is measured next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open_file(path: Path, settings: RunSettings, failure: type[BuildFailedError | MeasurementInvalidError]) -> Any:
    ort = require_import("onnxruntime", "ort-run")
    try:
        return ort.InferenceSession(str(path), _session_options(settings), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for every status code
        raise failure(
            f"ONNX Runtime cannot load {path.name}{_blame(error)}",
            hint="update onnxruntime, or export the model without this operator" if _blame(error) else None,
            detail=str(error),
        ) from error


def _blame(error: Exception) -> str:
    """Returns the operator and node that ONNX Runtime's message names, as `: operator X, node Y`."""
    text = str(error)
    operator, node = _NAMED_OPERATOR.search(text), _NAMED_NODE.search(text)
    parts = [
        f"{label} {next(group for group in match.groups() if group is not None)}"
        for label, match in (("operator", operator), ("node", node))
        if match
    ]
    return f": {', '.join(parts)}" if parts else ""


def _prepare_model(request: BuildRequest) -> tuple[Any, dict[str, Any]]:
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
    options = _session_options(RunSettings(threads=1))
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    if external or path.stat().st_size > _EXTERNAL_BYTES:
        # Without it, weights kept apart are left where they were, under a path that no longer holds from here.
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "folded.data")
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for every status code
        _open_file(path, RunSettings(), BuildFailedError)  # raises when the model itself is what cannot be loaded
        notes["folding_note"] = f"not folded: {error}"
        folded = path
    model = onnx_graph.load_model(folded)
    onnx_graph.normalize_graph(model)
    return model, notes


_EXTERNAL_BYTES = 1_500_000_000


def _verify(request: BuildRequest, converted: Any) -> None:
    """Compares a converted model with the original on real samples where there are any."""
    samples = request.tuning or request.calibration
    if samples is None:
        return
    before = _open_file(request.model_path, RunSettings(), BuildFailedError)
    after = smoothing.open_session(converted, request.scratch)
    for feeds in samples.feeds(2):
        for spec, old, new in zip(
            request.signature.outputs, before.run(None, dict(feeds)), after.run(None, dict(feeds)), strict=True
        ):
            if not np.allclose(old, new, rtol=1e-3, atol=1e-4):
                raise BuildFailedError(f"onnx's version converter changed the numbers of output {spec.name}")


class _StaticBuilder:
    """Builds static candidates; statistics and quantized weights are kept between those that share them."""

    def __init__(
        self, request: BuildRequest, model: Any, kind: onnx_graph.GraphKind, scheme: ort_quantization.Scheme
    ) -> None:
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
        plan = ort_quantization.plan_static(self._smoothed, (), carry=self._carry)
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
                self._maxima = _measure_maxima(self._request, self._model)
            self._smoothed = _smooth_copy(self._model, self._maxima, candidate.alpha)
        plan = ort_quantization.plan_static(self._smoothed, kept_float, carry=self._carry)
        missing = [name for name in plan.ranged_tensors() if name not in self._statistics]
        if missing:
            self._request.progress(f"calibrating on {self.sample_count} samples")
            self._statistics |= smoothing.collect_statistics(
                self._smoothed, missing, lambda: self._samples.feeds(CALIBRATION_SAMPLES), self._request.scratch
            )
        method = _RANGE_METHODS[candidate.ranges or "minmax"]
        ranges = {name: method(self._statistics[name]) for name in plan.ranged_tensors()}
        return ort_quantization.quantize_static(self._smoothed, plan, ranges, self._scheme, self._weights)


class _DynamicBuilder:
    """Builds dynamic candidates."""

    def __init__(self, request: BuildRequest, model: Any, scheme: ort_quantization.Scheme) -> None:
        self._request = request
        self._model = model
        self._scheme = scheme
        self._maxima: dict[str, npt.NDArray[np.float32]] | None = None

    def build(self, candidate: Candidate, kept_float: Collection[str]) -> Any:
        if candidate.alpha is not None and self._maxima is None:
            self._maxima = _measure_maxima(self._request, self._model)
        model = _smooth_copy(self._model, self._maxima, candidate.alpha)
        if candidate.alpha is None:
            model = ort_quantization.rebuild_model(model, list(model.graph.node), {})
        onnx_graph.split_gemms(model)
        names = ort_quantization.find_dynamic(model, onnx_graph.index_graph(model))
        return ort_quantization.quantize_dynamic(model, set(names) - set(kept_float), self._scheme)


def _measure_maxima(request: BuildRequest, model: Any) -> dict[str, npt.NDArray[np.float32]]:
    samples = request.calibration
    assert samples is not None
    request.progress("measuring channels for SmoothQuant")
    names = list(smoothing.find_smoothable(model, onnx_graph.index_graph(model)))
    return smoothing.collect_channel_maxima(model, names, lambda: samples.feeds(CALIBRATION_SAMPLES), request.scratch)


def _smooth_copy(model: Any, maxima: Mapping[str, npt.NDArray[np.float32]] | None, alpha: float | None) -> Any:
    if alpha is None or maxima is None:
        return model
    copy = ort_quantization.rebuild_model(model, list(model.graph.node), {})
    smoothing.smooth_model(copy, maxima, alpha)
    onnx_graph.prune_graph(copy)
    return copy


def _search(
    request: BuildRequest,
    candidates: Sequence[Candidate],
    build: Callable[[Candidate, Collection[str]], Any],
    find_costs: Callable[[], Mapping[str, float]],
) -> SearchResult:
    """Takes the first candidate that is good enough, else the best one, and then puts layers back to float."""
    judge = _Judge.create(request)
    result = SearchResult(model=None)
    if judge is None:
        chosen = next((c for c in candidates if c.alpha == 0.7), candidates[0])
        result.model = build(chosen, ())
        result.recipe = {"chosen": asdict(chosen), "candidates": [], "float_nodes": []}
        result.notes.append("no samples to choose among recipes on: the usual one was taken, unchecked")
        return result
    tried: list[tuple[Candidate, Figures]] = []
    best: tuple[Candidate, Figures, Any] | None = None
    for candidate in candidates:
        model = build(candidate, ())
        figures = judge.judge(model)
        tried.append((candidate, figures))
        request.progress(f"{_describe(candidate)}: cosine {figures.cosine:.5f}, agreement {figures.agreement}")
        if best is None or (figures.is_good, -figures.error) > (best[1].is_good, -best[1].error):
            best = (candidate, figures, model)
        # Smoothing costs a multiplication per layer: it is not tried when the plain candidates suffice.
        following = candidates[len(tried)] if len(tried) < len(candidates) else None
        if best[1].is_good and (following is None or following.alpha != candidate.alpha):
            break
    assert best is not None
    chosen, figures, result.model = best
    kept: list[str] = []
    if not figures.is_good:
        kept, figures, result.model = _restore_layers(request, best, build, find_costs(), judge)
    if not figures.is_good:
        result.notes.append(
            f"the goal on tuning samples (cosine {GOAL_COSINE}) was not reached: cosine {figures.cosine:.4f}"
        )
    result.recipe = {
        "chosen": asdict(chosen),
        "figures": asdict(figures),
        "goal": {"cosine": GOAL_COSINE, "agreement": 1 - GOAL_FLIPS},
        "judged_on": {"part": judge.part, "samples": judge.count},
        "candidates": [{**asdict(candidate), **asdict(seen)} for candidate, seen in tried],
        "float_nodes": [{"node": name, "reason": "sensitivity analysis"} for name in kept],
    }
    return result


def _restore_layers(
    request: BuildRequest,
    best: tuple[Candidate, Figures, Any],
    build: Callable[[Candidate, Collection[str]], Any],
    costs: Mapping[str, float],
    judge: _Judge,
) -> tuple[list[str], Figures, Any]:
    """Ranks groups of layers by what the error loses when they run in float, and restores the worst until it is good.

    Returns:
        The layers left in float, and figures and model without them quantized.
    """
    candidate, whole, _ = best
    tries = TRIES_SMALL if judge.weight_values < LARGE_VALUES else TRIES_LARGE
    layers = np.array(list(costs), object)
    groups = [list(group) for group in np.array_split(layers, min(tries, len(layers)))]
    request.progress(f"sensitivity analysis of {len(groups)} groups of layers")
    before = judge.judge(best[2], RANKING_SAMPLES).error
    gains = [before - judge.judge(build(candidate, group), RANKING_SAMPLES).error for group in groups]
    work = [sum(costs[name] for name in group) / max(sum(costs.values()), 1.0) for group in groups]
    kept: list[str] = []
    spent = 0.0
    outcome: tuple[list[str], Figures, Any] = ([], whole, best[2])
    for position in np.argsort([-gain / (share + 1e-3) for gain, share in zip(gains, work, strict=True)]):
        if gains[position] <= 0 or spent + work[position] > MOST_FLOAT:
            continue
        kept = [*kept, *groups[position]]
        spent += work[position]
        model = build(candidate, kept)
        figures = judge.judge(model)
        if figures.is_good:
            outcome = (kept, figures, model)
            break
        if whole.cosine < POOR_COSINE and figures.error < outcome[1].error / 2:
            outcome = (kept, figures, model)
    request.progress(f"{len(outcome[0])} layers stay in float: cosine {outcome[1].cosine:.5f}")
    return outcome


@dataclass(kw_only=True)
class _Judge:
    """Compares candidates with FP32 on the tuning samples (the calibration samples where there are none)."""

    samples: SampleSet
    part: str
    count: int
    reference: list[list[Array]]
    weight_values: int
    scratch: Path

    @staticmethod
    def create(request: BuildRequest) -> _Judge | None:
        part = "tuning" if request.tuning is not None and request.tuning.count else "calibration"
        samples = request.tuning if part == "tuning" else request.calibration
        if samples is None or samples.count == 0:
            return None
        count = min(samples.count, 64)
        names = [spec.name for spec in request.signature.outputs]
        if part == "tuning" and request.reference is not None and len(request.reference) >= count:
            reference = [[np.asarray(seen[name]) for name in names] for seen in request.reference[:count]]
        else:
            settings = RunSettings(threads=len(os.sched_getaffinity(0)))
            session = _open_file(request.model_path, settings, BuildFailedError)
            reference = [session.run(names, dict(feeds)) for feeds in samples.feeds(count)]
        values = request.model_path.stat().st_size // 4
        return _Judge(
            samples=samples, part=part, count=count, reference=reference, weight_values=values, scratch=request.scratch
        )

    def judge(self, model: Any, limit: int | None = None) -> Figures:
        session = smoothing.open_session(model, self.scratch)
        got = [session.run(None, dict(feeds)) for feeds in self.samples.feeds(min(limit or self.count, self.count))]
        cosines, errors, agreement = [], [], None
        for number, first in enumerate(got[0]):
            if first.dtype.kind != "f":
                continue
            pairs = [(self.reference[s][number].ravel(), got[s][number].ravel()) for s in range(len(got))]
            pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in pairs if a.shape == b.shape]
            cosines.append(float(np.mean([_cosine(a, b) for a, b in pairs])) if pairs else 0.0)
            energy = sum(float(a @ a) for a, _ in pairs)
            errors.append(sum(float((a - b) @ (a - b)) for a, b in pairs) / energy if energy else 0.0)
            if self.samples.labels is not None and agreement is None and first.ndim == 2 and first.shape[1] > 1:
                same = [self.reference[s][number].argmax(-1) == got[s][number].argmax(-1) for s in range(len(got))]
                agreement = float(np.mean(same))
        return Figures(cosine=min(cosines, default=1.0), error=max(errors, default=0.0), agreement=agreement)


def _cosine(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else float(not a.any() and not b.any())


def _describe(candidate: Candidate) -> str:
    smoothed = "no smoothing" if candidate.alpha is None else f"SmoothQuant {candidate.alpha}"
    return f"{smoothed}, ranges {candidate.ranges or 'dynamic'}"


def _finish(
    request: BuildRequest, result: SearchResult, kind: onnx_graph.GraphKind, scheme: ort_quantization.Scheme
) -> BuildResult:
    """Saves the model, loads it once, and writes down what was done."""
    path = request.directory / MODEL_FILE
    onnx_graph.save_model(result.model, path)
    _open_file(path, RunSettings(), BuildFailedError)
    needed: list[str] = []
    if request.machine.architecture == "x86_64" and scheme.weight_limit == 127:
        # On a CPU without any of these, 8-bit weights saturate silently.
        order = ("avx512_vnni", "avx_vnni", "amx_int8", "avx_vnni_int8")
        needed = list(order) if request.machine.instruction_sets & set(order) else []
    return BuildResult(
        model_file=MODEL_FILE,
        recipe={"graph": kind, "formats": scheme.to_dict(), **result.recipe},
        requires={"any_instruction_set": needed, "packages": {"onnxruntime": ">=1.22"}},
        versions=package_versions("onnx", "onnxruntime", "numpy"),
        notes=result.notes,
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_profile_operators(Path(sys.argv[1]))) + "\n")
