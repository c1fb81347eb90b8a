"""OpenVINO on CPUs: FP32, BF16, and INT8 quantized by NNCF.

The three share one conversion (ONNX to OpenVINO IR) and one session. OpenVINO runs models of fixed shape faster than
dynamic ones (1.1 to 1.35 times on small models), so a dynamic model is compiled anew for the first shapes it meets.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from modelwright.core.errors import BadInputError
from modelwright.core.onnx.quantized import OWN_SCALES
from modelwright.core.records.artifact import Arithmetic
from modelwright.core.records.machine import X86_DOT_PRODUCTS, Machine
from modelwright.core.records.signature import Signature
from modelwright.targets.contract import BuildRequest, BuildResult, Language, RunSettings, Session, Target, TargetRecord
from modelwright.targets.openvino.convert import convert_model
from modelwright.targets.openvino.recipes import BF16_INSTRUCTION_SETS
from modelwright.targets.openvino.session import (
    IN_FLOATS,
    OpenvinoSession,
    import_openvino,
    read_properties,
    silence_vendor,
)
from modelwright.targets.openvino.settings import SETTINGS
from modelwright.targets.openvino.words import find_cause
from modelwright.targets.quantization.own_scales import (
    describe_own,
    explain_float,
    explain_own,
    read_own_scales,
    refuse_second_quantization,
)
from modelwright.targets.readiness import Readiness, package_versions, require_import

MODEL_FILE = "openvino.xml"
_FP16_MAX = 65504.0
_RUN_PACKAGES = {"openvino": "openvino>=2025.0"}


class OpenvinoTarget(Target):
    """What the three have in common: conversion, and the session."""

    precision_hint: ClassVar[str]

    def suits(self, machine: Machine) -> bool:
        """On x86; on Arm only who names it gets it. See `Target.suits`."""
        return super().suits(machine) and machine.architecture == "x86_64"

    def build(self, request: BuildRequest) -> BuildResult:
        request.progress("converting to OpenVINO IR")
        with silence_vendor():
            openvino = import_openvino()
            converted = convert_model(openvino, request)
        for note in converted.notes:
            request.progress(note)
        result = self._finish_build(openvino, converted.model, request)
        return replace(
            result,
            signature=converted.signature,
            requires={**result.requires, "packages": {"openvino": ">=2025.0"}},
            notes=(*converted.notes, *result.notes),
        )

    @abstractmethod
    def _finish_build(self, openvino: Any, model: Any, request: BuildRequest) -> BuildResult:
        """Writes the converted model in this target's precision."""

    @contextlib.contextmanager
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],
        signature: Signature,
        settings: RunSettings,
    ) -> Iterator[Session]:
        openvino = import_openvino()
        core = openvino.Core()
        properties = read_properties(recipe, self.precision_hint)
        hint = properties.pop("INFERENCE_PRECISION_HINT")
        if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            hint = "f32"  # BF16 would at best be emulated; describe_execution tells
        path = directory / model_file
        try:
            session = OpenvinoSession(
                openvino,
                core,
                core.read_model(path),
                signature,
                settings,
                hint,
                properties,
            )
        except RuntimeError as error:
            raise BadInputError(
                f"OpenVINO cannot load {path}: {find_cause(error)}",
                hint="build the artifact again with this version; the ort-* targets may run this model",
                detail=str(error),
            ) from error
        yield session

    def write_snippet(
        self,
        language: Language,
        model_file: str,
        recipe: Mapping[str, Any],
        signature: Signature,
        settings: RunSettings,
    ) -> str:
        from modelwright.targets.openvino.snippet import write_cpp, write_python

        precision = read_properties(recipe, self.precision_hint)
        return (write_python if language == "python" else write_cpp)(model_file, precision, signature, settings)


class OpenvinoFp32(OpenvinoTarget):
    """FP32 weights and FP32 arithmetic: on machines with AMX, OpenVINO has to be told so."""

    precision_hint = "f32"
    record = TargetRecord(
        name="openvino-fp32",
        runtime="openvino",
        precision="fp32",
        title="OpenVINO FP32",
        is_float=True,
        needs_calibration=False,
        recipe_version=3,
        build_packages=_RUN_PACKAGES,
        run_packages=_RUN_PACKAGES,
        build_extra="openvino",
        run_extra="openvino-run",
        settings=SETTINGS,
        has_profiler=True,
        # Another order of summation, nothing else: ResNet-50, an encoder and an LSTM came out at 1.000000.
    )

    def _finish_build(self, openvino: Any, model: Any, request: BuildRequest) -> BuildResult:
        openvino.save_model(model, request.directory / MODEL_FILE, compress_to_fp16=False)
        options, notes = _stay_float(request)
        return BuildResult(
            model_file=MODEL_FILE,
            recipe={"weights": "fp32", "inference_precision": self.precision_hint, "compile_options": options},
            versions=package_versions("openvino"),
            notes=notes,
        )


class OpenvinoBf16(OpenvinoTarget):
    """BF16 arithmetic on CPUs that have it; nothing is calibrated.

    The weights lie in the file as FP16, at half of FP32's size. That costs nothing that BF16 does not cost anyway:
    FP16 keeps 11 significant bits, BF16 8 (ResNet-50 with random weights: cosine 0.9956 from FP32 weights, 0.9954
    from FP16 ones). Weights beyond FP16's range keep the whole file in FP32.
    """

    precision_hint = "bf16"
    record = TargetRecord(
        name="openvino-bf16",
        runtime="openvino",
        precision="bf16",
        title="OpenVINO BF16",
        is_float=True,
        needs_calibration=False,
        recipe_version=3,
        build_packages=_RUN_PACKAGES,
        run_packages=_RUN_PACKAGES,
        build_extra="openvino",
        run_extra="openvino-run",
        settings=SETTINGS,
        has_profiler=True,
        # Trained models came out at 0.9999 and better. 50 layers of random weights amplify rounding (2**-9 an
        # operation) to 0.995, which is no fault of the artifact; a wrong graph falls far below.
    )

    def suits(self, machine: Machine) -> bool:
        return super().suits(machine) and bool(machine.instruction_sets & BF16_INSTRUCTION_SETS)

    def check_build(self, machine: Machine) -> Readiness:
        return _check_bf16(machine) or super().check_build(machine)

    def check_run(self, machine: Machine) -> Readiness:
        return _check_bf16(machine) or super().check_run(machine)

    def _finish_build(self, openvino: Any, model: Any, request: BuildRequest) -> BuildResult:
        compress = _fits_fp16(model)
        options, notes = _stay_float(request)
        openvino.save_model(model, request.directory / MODEL_FILE, compress_to_fp16=compress)
        return BuildResult(
            model_file=MODEL_FILE,
            recipe={
                "weights": "fp16" if compress else "fp32",
                "weights_reason": "half the file; BF16 keeps fewer bits" if compress else "beyond FP16's range",
                "inference_precision": self.precision_hint,
                "compile_options": options,
            },
            requires={"any_instruction_set": sorted(BF16_INSTRUCTION_SETS)},
            versions=package_versions("openvino"),
            notes=notes,
        )


class OpenvinoInt8(OpenvinoTarget):
    """INT8 by NNCF's post-training quantization, chosen among recipes on the tuning samples."""

    precision_hint = "f32"
    record = TargetRecord(
        name="openvino-int8",
        runtime="openvino",
        precision="int8",
        title="OpenVINO INT8",
        is_float=False,
        needs_calibration=True,
        uses_samples=True,
        recipe_version=9,
        build_packages={**_RUN_PACKAGES, "nncf": "nncf>=3.0"},
        run_packages=_RUN_PACKAGES,
        build_extra="openvino",
        run_extra="openvino-run",
        settings=SETTINGS,
        follows_plan=True,
        has_profiler=True,
        # A quantized model's last line: below it, something is broken rather than rounded.
    )

    def compare_arithmetic(self, machine: Machine, host: Machine, recipe: Mapping[str, Any]) -> Arithmetic | None:
        """On x86, where sums could saturate the weights are halved, and 8-bit ones ask for dot products.

        A source's own weights are as they are: their sums may saturate.
        """
        if machine.architecture == host.architecture == "x86_64" and recipe.get("method") != OWN_SCALES:
            return None
        return super().compare_arithmetic(machine, host, recipe)

    def key_facts(self, machine: Machine) -> Mapping[str, Any]:  # noqa: ARG002
        from modelwright.targets.quantization.search import describe_limits

        return {"search": describe_limits()}

    def _finish_build(self, openvino: Any, model: Any, request: BuildRequest) -> BuildResult:
        from modelwright.targets.openvino.planned import make_quantizer
        from modelwright.targets.openvino.quantize import quantize_model

        own = read_own_scales(request)
        with silence_vendor():
            nncf = require_import("nncf", "openvino")
        if own is not None:
            quantized = model
            notes: tuple[str, ...] = (explain_own(own),)
            recipe, plan = describe_own(own), None
        else:
            quantizer = make_quantizer(openvino, nncf, model, request)
            quantized, recipe, notes, plan = quantize_model(quantizer, request)
        openvino.save_model(quantized, request.directory / MODEL_FILE, compress_to_fp16=False)
        machine = request.machine
        return BuildResult(
            model_file=MODEL_FILE,
            recipe=recipe,
            # On an x86 CPU without any of these, 8-bit weights saturate silently.
            requires={"any_instruction_set": sorted(X86_DOT_PRODUCTS)}
            if machine.instruction_sets & X86_DOT_PRODUCTS
            else {},
            versions=package_versions("openvino", "nncf"),
            notes=notes,
            plan=plan,
        )


class _WeightTarget(OpenvinoTarget):
    """What the two with compressed weights have in common."""

    precision_hint = "f32"
    bits: ClassVar[int]

    def key_facts(self, machine: Machine) -> Mapping[str, Any]:  # noqa: ARG002
        from modelwright.targets.quantization.search import describe_limits

        return {"search": describe_limits()}

    def _finish_build(self, openvino: Any, model: Any, request: BuildRequest) -> BuildResult:
        from modelwright.targets.openvino.weights import compress_model

        own = read_own_scales(request)
        if own is not None:
            raise refuse_second_quantization(self.record.name, own, "openvino-int8 runs it with its own scales")
        with silence_vendor():
            nncf = require_import("nncf", "openvino")
        compressed, recipe, notes = compress_model(openvino, nncf, model, request, self.bits)
        openvino.save_model(compressed, request.directory / MODEL_FILE, compress_to_fp16=False)
        return BuildResult(
            model_file=MODEL_FILE, recipe=recipe, versions=package_versions("openvino", "nncf"), notes=notes
        )


def _make_weight_record(bits: int) -> TargetRecord:
    return TargetRecord(
        name=f"openvino-int{bits}-weights",
        runtime="openvino",
        precision=f"int{bits}-weights",
        title=f"OpenVINO INT{bits} weights",
        is_float=False,
        needs_calibration=False,
        uses_samples=True,
        recipe_version=2,
        build_packages={**_RUN_PACKAGES, "nncf": "nncf>=3.0"},
        run_packages=_RUN_PACKAGES,
        build_extra="openvino",
        run_extra="openvino-run",
        settings=SETTINGS,
        named_only=True,
        has_profiler=True,
    )


class OpenvinoInt8Weights(_WeightTarget):
    """Weights of 8 bits."""

    bits = 8
    record = _make_weight_record(8)


class OpenvinoInt4Weights(_WeightTarget):
    """Weights of 4 bits; lookup tables, the last layer and what 4 bits ruin have 8."""

    bits = 4
    record = _make_weight_record(4)


def _stay_float(request: BuildRequest) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Returns what keeps a model in float arithmetic that is quantized already, and a note; nothing for others."""
    own = read_own_scales(request)
    return ({}, ()) if own is None else (IN_FLOATS, (explain_float(own),))


def _check_bf16(machine: Machine) -> Readiness | None:
    """Returns why the machine cannot run BF16; None when it can."""
    if machine.instruction_sets & BF16_INSTRUCTION_SETS:
        return None
    reason = f"{machine.name} has neither avx512_bf16 nor amx_bf16: OpenVINO would run FP32 under the name of BF16"
    return Readiness.no(reason, "use openvino-fp32 or openvino-int8, or the profile of a machine that has it")


def _fits_fp16(model: Any) -> bool:
    """Whether no weight would be clamped in FP16. OpenVINO itself spares lone constants such as mask values."""
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "f32":
            values = node.data
            if values.size > 1 and np.any((np.abs(values) > _FP16_MAX) & np.isfinite(values)):
                return False
    return True
