"""ONNX Runtime on the CPU: FP32 (the baseline), static INT8 and dynamic INT8.

How a model is quantized is searched on the tuning samples; see `quantization.search`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.facts import find_opset
from modelwright.core.onnx.quantized import OWN_SCALES, OwnScales
from modelwright.core.records.artifact import Arithmetic
from modelwright.core.records.machine import X86_DOT_PRODUCTS, Machine
from modelwright.core.records.signature import Signature
from modelwright.core.scratch import scratch_directory
from modelwright.targets.contract import BuildRequest, BuildResult, Language, RunSettings, Session, Target, TargetRecord
from modelwright.targets.graphs.classify import classify_graph
from modelwright.targets.graphs.files import copy_model, load_model, save_model
from modelwright.targets.graphs.fold_sizes import fold_sizes
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.graphs.rewrite import PER_AXIS_OPSET, pool_spatial_means
from modelwright.targets.graphs.run import open_file
from modelwright.targets.ort import plan as ort_plan
from modelwright.targets.ort.channel_scales import keep_channel_scales_apart
from modelwright.targets.ort.channels import align_input_channels
from modelwright.targets.ort.exact import AS_WRITTEN, write_exactly
from modelwright.targets.ort.gelus import fuse_gelus
from modelwright.targets.ort.planned import PlannedQuantizer
from modelwright.targets.ort.recipes import DynamicQuantizer, OrtQuantizer, StaticQuantizer, saturates_here
from modelwright.targets.ort.refusal import explain_inner, refuse_unquantizable
from modelwright.targets.ort.residuals import keep_residuals_apart
from modelwright.targets.ort.session import OrtSession
from modelwright.targets.ort.settings import SETTINGS
from modelwright.targets.ort.tied import explain_tied
from modelwright.targets.quantization.formats import FULL_WEIGHT, Scheme, choose_scheme
from modelwright.targets.quantization.judge import Judge
from modelwright.targets.quantization.own_scales import (
    describe_own,
    explain_float,
    explain_own,
    read_own_scales,
    refuse_second_quantization,
)
from modelwright.targets.quantization.planned import PlannedModel
from modelwright.targets.quantization.prepare import prepare_model
from modelwright.targets.quantization.search import describe_limits, search
from modelwright.targets.readiness import package_versions

MODEL_FILE = "model.onnx"
_STATIC_OPSET, _DYNAMIC_OPSET = 10, 11
"""Where the operators appeared that the two methods cannot do without: QLinearConv and DynamicQuantizeLinear."""


class OrtTarget(Target):
    """What the three targets share: loading."""

    @contextmanager
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],
        signature: Signature,
        settings: RunSettings,
    ) -> Iterator[Session]:
        """Loads the model with all graph optimizations; see `Target.load`."""
        with scratch_directory() if settings.profiled else nullcontext() as folder:
            session = OrtSession(
                directory / model_file,
                signature,
                settings,
                is_float=self.record.is_float,
                entries=_read_entries(recipe),
                profiles_in=None if folder is None else Path(folder),
            )
            try:
                yield session
            finally:
                session.close()

    def write_snippet(
        self,
        language: Language,
        model_file: str,
        recipe: Mapping[str, Any],
        signature: Signature,
        settings: RunSettings,
    ) -> str:
        from modelwright.targets.ort.snippet import write_cpp, write_python

        write = write_python if language == "python" else write_cpp
        return write(model_file, signature, settings, _read_entries(recipe))


def _read_entries(recipe: Mapping[str, Any]) -> Mapping[str, str]:
    """Returns the entries of a session's configuration that an artifact needs to compute what it is called."""
    return AS_WRITTEN if recipe.get("as_written") is True else {}


class OrtFp32(OrtTarget):
    """The baseline: the model as it was exported."""

    record: ClassVar[TargetRecord] = TargetRecord(
        name="ort-fp32",
        runtime="ort",
        precision="fp32",
        title="ONNX Runtime FP32",
        is_float=True,
        needs_calibration=False,
        recipe_version=2,
        build_packages={"onnx": "onnx", "onnxruntime": "onnxruntime"},
        run_packages={"onnxruntime": "onnxruntime"},
        build_extra="ort",
        run_extra="ort-run",
        settings=SETTINGS,
        has_profiler=True,
    )

    def build(self, request: BuildRequest) -> BuildResult:
        """Copies the model and the files with its weights; see `Target.build`."""
        request.progress("copying the model")
        file = copy_model(request.model_path, request.directory, MODEL_FILE)
        open_file(request.directory / file, RunSettings(), BuildFailedError)
        own = read_own_scales(request)
        return BuildResult(
            model_file=file,
            # ONNX Runtime would fuse pairs of Q/DQ to integer kernels, under the name of FP32.
            recipe={"method": "as exported", "precision": "fp32", "as_written": own is not None},
            notes=[] if own is None else [explain_float(own)],
            requires={"packages": {"onnxruntime": ">=1.22"}},
            versions=package_versions("onnx", "onnxruntime"),
        )


class _SearchedTarget(OrtTarget):
    """What the two quantized ones share: how they are quantized is searched, unless the source is quantized already.

    Attributes:
        has_fixed_scales: Whether those of activations are part of the file.
    """

    has_fixed_scales: ClassVar[bool]

    def key_facts(self, machine: Machine) -> Mapping[str, Any]:  # noqa: ARG002
        return {"search": describe_limits()}

    def compare_arithmetic(self, machine: Machine, host: Machine, recipe: Mapping[str, Any]) -> Arithmetic | None:
        """Its sums are written to be exact on the machine; so they are here, unless this host saturates them.

        A source's own weights are as they are: the machine may saturate their sums.
        """
        if super().compare_arithmetic(machine, host, recipe) is None:
            return None
        if recipe.get("method") == OWN_SCALES and not machine.sums_exactly:
            why = "that machine saturates sums of 8-bit products, which the model's own weights may reach"
            return Arithmetic(alike=False, why=f"{why}, and this host does not")
        if choose_scheme(machine, static=True).weight_limit < FULL_WEIGHT:
            return Arithmetic(alike=True, why="7-bit weights are summed exactly on every CPU")
        if host.sums_exactly:
            return Arithmetic(alike=True, why="both CPUs sum 8-bit products exactly")
        return Arithmetic(alike=False, why="this host saturates sums of 8-bit products, and that machine does not")

    def _ship_own_scales(self, request: BuildRequest, own: OwnScales) -> BuildResult:
        """Ships a model that is quantized already, which ONNX Runtime fuses to integer kernels as it loads it."""
        if own.are_fixed is not self.has_fixed_scales:
            other = OrtInt8.record.name if own.are_fixed else OrtInt8Dynamic.record.name
            raise refuse_second_quantization(self.record.name, own, f"{other} runs it with its own scales")
        request.progress("taking the model, which is quantized already, as it is")
        model = load_model(request.model_path)
        apart = keep_channel_scales_apart(model)
        path = request.directory / MODEL_FILE
        save_model(model, path)
        open_file(path, RunSettings(), BuildFailedError)
        notes = [explain_own(own)]
        if apart:
            notes.append(
                f"{apart} activations have a scale a channel, for which ONNX Runtime has no integer kernel: what reads "
                "them computes in floats"
            )
        return BuildResult(
            model_file=MODEL_FILE,
            # As it is written, its sums are exact.
            emulation=request.model_path if saturates_here(request) else None,
            recipe=describe_own(own),
            requires={"any_instruction_set": _list_needed(request.machine), "packages": {"onnxruntime": ">=1.22"}},
            versions=package_versions("onnx", "onnxruntime"),
            notes=notes,
        )


class OrtInt8(_SearchedTarget):
    """Static INT8: the ranges of activations are fixed by calibration."""

    has_fixed_scales = True
    record: ClassVar[TargetRecord] = TargetRecord(
        name="ort-int8",
        runtime="ort",
        precision="int8",
        title="ONNX Runtime INT8",
        is_float=False,
        needs_calibration=True,
        uses_samples=True,
        recipe_version=10,
        build_packages={"onnx": "onnx", "onnxruntime": "onnxruntime"},
        run_packages={"onnxruntime": "onnxruntime"},
        build_extra="ort",
        run_extra="ort-run",
        settings=SETTINGS,
        follows_plan=True,
        has_profiler=True,
    )

    def build(self, request: BuildRequest) -> BuildResult:
        """Quantizes weights and activations; see `Target.build`."""
        own = read_own_scales(request)
        if own is not None:
            return self._ship_own_scales(request, own)
        if request.calibration is None or request.calibration.count == 0:
            raise BuildFailedError("ort-int8 needs calibration samples", hint="give --samples FILE.npz")
        model, prepared = prepare_model(request)
        fold_sizes(model)
        kind = classify_graph(model)
        if kind == "cnn":
            pool_spatial_means(model)
            if request.machine.architecture == "x86_64":
                align_input_channels(model)
        keep_residuals_apart(model)
        fuse_gelus(model)
        if not ort_plan.find_quantizable(model, index_graph(model)):
            other = "ort-int8-dynamic" if ort_plan.find_dynamic(model, index_graph(model)) else None
            raise refuse_unquantizable(model, "ort-int8", "Conv, MatMul or Gemm", other)
        if find_opset(model) < _STATIC_OPSET:
            raise _old_opset(_STATIC_OPSET, model, prepared)
        scheme = choose_scheme(request.machine, static=True)
        planned = PlannedModel.of_request(request)
        quantizer = (
            StaticQuantizer(request, model, kind, scheme)
            if planned is None
            else PlannedQuantizer(request, model, kind, scheme, planned)
        )
        notes = [*explain_preparation(prepared), *explain_tied(model), *explain_inner(model)]
        if kind == "rnn":
            notes.append("recurrent layers stay in float: ONNX Runtime quantizes LSTM only dynamically")
        recipe = {"method": "static Q/DQ", "calibration_samples": quantizer.sample_count, **prepared}
        if not prepared.get("opset_note"):
            recipe["opset"] = find_opset(model)
        return _search_and_save(request, quantizer, scheme, {"graph": kind, **recipe}, notes)


class OrtInt8Dynamic(_SearchedTarget):
    """Dynamic INT8: the ranges of activations are measured at each inference."""

    has_fixed_scales = False
    record: ClassVar[TargetRecord] = TargetRecord(
        name="ort-int8-dynamic",
        runtime="ort",
        precision="int8-dynamic",
        title="ONNX Runtime dynamic INT8",
        is_float=False,
        needs_calibration=False,
        uses_samples=True,
        recipe_version=7,
        build_packages={"onnx": "onnx", "onnxruntime": "onnxruntime"},
        run_packages={"onnxruntime": "onnxruntime"},
        build_extra="ort",
        run_extra="ort-run",
        settings=SETTINGS,
        has_profiler=True,
    )

    def build(self, request: BuildRequest) -> BuildResult:
        """Quantizes the weights of MatMul, Gemm and LSTM; see `Target.build`."""
        own = read_own_scales(request)
        if own is not None:
            return self._ship_own_scales(request, own)
        model, prepared = prepare_model(request)
        fold_sizes(model)
        kind = classify_graph(model)
        keep_residuals_apart(model)
        fuse_gelus(model)
        if not ort_plan.find_dynamic(model, index_graph(model)):
            other = "ort-int8" if ort_plan.find_quantizable(model, index_graph(model)) else None
            raise refuse_unquantizable(model, "ort-int8-dynamic", "MatMul, Gemm or LSTM", other)
        if find_opset(model) < _DYNAMIC_OPSET:
            raise _old_opset(_DYNAMIC_OPSET, model, prepared)
        notes = [*explain_preparation(prepared), *explain_tied(model), *explain_inner(model)]
        if any(node.op_type == "Conv" for node in model.graph.node):
            notes.append("convolutions stay in float: their dynamic kernel is slower; ort-int8 quantizes them")
        if any(node.op_type in ("GRU", "RNN") for node in model.graph.node):
            notes.append("GRU and RNN layers stay in float: ONNX Runtime has no integer kernel for them")
        scheme = choose_scheme(request.machine, static=False)
        quantizer = DynamicQuantizer(request, model, kind, scheme)
        return _search_and_save(request, quantizer, scheme, {"graph": kind, "method": "dynamic", **prepared}, notes)


def explain_preparation(prepared: Mapping[str, Any]) -> list[str]:
    """Returns what the user has to know of how the model was prepared."""
    return [str(prepared["float64_note"])] if "float64_note" in prepared else []


def _old_opset(needed: int, model: Any, prepared: Mapping[str, Any]) -> BuildFailedError:
    return BuildFailedError(
        f"quantization needs opset {needed}; the model has {find_opset(model)} and does not convert",
        hint=f"export it again at opset {PER_AXIS_OPSET} or later",
        detail=str(prepared.get("opset_note")),
    )


def _list_needed(machine: Machine) -> list[str]:
    """Returns the instruction sets one of which weights of all 8 bits need: without, their sums saturate silently."""
    has_any = machine.architecture == "x86_64" and machine.instruction_sets & X86_DOT_PRODUCTS
    return sorted(X86_DOT_PRODUCTS) if has_any else []


def _search_and_save(
    request: BuildRequest, quantizer: OrtQuantizer, scheme: Scheme, recipe: Mapping[str, Any], notes: Sequence[str]
) -> BuildResult:
    """Chooses how to quantize, saves the model, loads it once, and writes down what was done."""
    found = search(quantizer, Judge.of_request(request), request.progress)
    path = request.directory / MODEL_FILE
    save_model(quantizer.finish(found.model), path)
    open_file(path, RunSettings(), BuildFailedError)
    needed = _list_needed(request.machine) if scheme.weight_limit == FULL_WEIGHT else []
    exact = write_exactly(found.model) if saturates_here(request) else None
    emulation = None if exact is None else request.scratch / "exact.onnx"
    if emulation is not None:
        save_model(exact, emulation)
    return BuildResult(
        model_file=MODEL_FILE,
        emulation=emulation,
        recipe={**recipe, "formats": scheme.to_dict(), "search": found.describe()},
        requires={"any_instruction_set": needed, "packages": {"onnxruntime": ">=1.22"}},
        versions=package_versions("onnx", "onnxruntime", "numpy"),
        notes=[*found.notes(), *quantizer.notes(), *notes],
        plan=quantizer.describe_plan(found.kept),
    )
