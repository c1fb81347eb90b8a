"""Language models in OpenVINO on CPUs: FP32, BF16, and weights in 8 and 4 bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from modelwright.core.errors import BadInputError
from modelwright.core.records.language import LanguageModel
from modelwright.core.records.machine import Machine
from modelwright.targets.language.contract import (
    Generator,
    Language,
    LanguageBuildRequest,
    LanguageBuildResult,
    LanguageTarget,
    LanguageTargetRecord,
    StoredTensor,
)
from modelwright.targets.openvino.language.compress import LIMITS, LanguageCompressor, Tried
from modelwright.targets.openvino.language.constants import list_constants
from modelwright.targets.openvino.language.convert import convert_language
from modelwright.targets.openvino.language.generator import OpenvinoGenerator
from modelwright.targets.openvino.language.snippet import write_cpp, write_python
from modelwright.targets.openvino.recipes import BF16_INSTRUCTION_SETS
from modelwright.targets.openvino.session import import_openvino, read_properties, silence_vendor
from modelwright.targets.openvino.settings import SETTINGS, list_properties
from modelwright.targets.openvino.words import find_cause
from modelwright.targets.options import RunSettings
from modelwright.targets.readiness import Readiness, package_versions, require_import

MODEL_FILE = "openvino_model.xml"
"""As openvino-genai looks for it."""
_RUN_PACKAGES = {"openvino": "openvino>=2026.0"}
_REQUIRES = {"packages": {"openvino": ">=2026.0"}}
"""Earlier ones read no ONNX attention, and were not tried."""


class OpenvinoLanguageTarget(LanguageTarget):
    """What all have in common: the stateful model, and its generator."""

    hint: ClassVar[str] = "f32"
    """What float operations run in where the recipe does not say."""

    def build(self, request: LanguageBuildRequest) -> LanguageBuildResult:
        request.progress("converting to OpenVINO IR, with the cache inside")
        with silence_vendor():
            openvino = import_openvino()
            model = convert_language(openvino, request.model)
        return self._finish_build(openvino, model, request)

    def _finish_build(self, openvino: Any, model: Any, request: LanguageBuildRequest) -> LanguageBuildResult:
        """Writes the converted model as it is; targets of weights in few bits compress it first."""
        openvino.save_model(model, request.directory / MODEL_FILE, compress_to_fp16=False)
        recipe = {
            "method": "conversion to OpenVINO IR, FP32 weights, stateful",
            "inference_precision": self.hint,
            # Without it the plugin keeps the cache in 8 bits by itself.
            "compile_options": {"KV_CACHE_PRECISION": self.hint},
        }
        return LanguageBuildResult(
            model_file=MODEL_FILE, recipe=recipe, requires=_REQUIRES, versions=package_versions("openvino")
        )

    @contextlib.contextmanager
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],
        record: LanguageModel,
        settings: RunSettings,
    ) -> Iterator[Generator]:
        openvino = import_openvino()
        core = openvino.Core()
        properties = {**list_properties(settings), **read_properties(recipe, self.hint)}
        with _explaining(directory / model_file):
            model = core.read_model(directory / model_file)
            operators = {node.get_friendly_name(): node.get_type_name() for node in model.get_ops()}
            compiled = core.compile_model(model, "CPU", properties)
        yield OpenvinoGenerator(compiled, operators, record)

    def list_stored(self, directory: Path, model_file: str) -> Iterator[StoredTensor]:
        with _explaining(directory / model_file):
            model = import_openvino().Core().read_model(directory / model_file)
        return list_constants(model)

    def write_snippet(
        self,
        language: Language,
        model_file: str,
        recipe: Mapping[str, Any],
        record: LanguageModel,
        settings: RunSettings,
    ) -> str | None:
        write = write_python if language == "python" else write_cpp
        return write(model_file, read_properties(recipe, self.hint), record, settings)


@contextlib.contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Turns what OpenVINO raises on a file into one error."""
    try:
        yield
    except RuntimeError as error:
        raise BadInputError(
            f"OpenVINO cannot load {path}: {find_cause(error)}",
            hint="build the artifact again with this version; the ort-* targets may run this model",
            detail=str(error),
        ) from error


class OpenvinoFp32(OpenvinoLanguageTarget):
    """FP32 weights, arithmetic and cache."""

    record = LanguageTargetRecord(
        name="openvino-fp32",
        runtime="openvino",
        precision="fp32",
        title="OpenVINO FP32",
        is_float=True,
        needs_calibration=False,
        build_packages=_RUN_PACKAGES,
        run_packages=_RUN_PACKAGES,
        build_extra="openvino",
        run_extra="openvino-run",
        settings=SETTINGS,
    )


class OpenvinoBf16(OpenvinoLanguageTarget):
    """The FP32 model, which OpenVINO runs in BF16 where the CPU can; its cache too."""

    hint = "bf16"
    record = LanguageTargetRecord(
        name="openvino-bf16",
        runtime="openvino",
        precision="bf16",
        title="OpenVINO BF16",
        is_float=True,
        needs_calibration=False,
        build_packages=_RUN_PACKAGES,
        run_packages=_RUN_PACKAGES,
        build_extra="openvino",
        run_extra="openvino-run",
        settings=SETTINGS,
    )

    def suits(self, machine: Machine) -> bool:
        """Where the CPU computes in BF16: it loses nothing that can be seen."""
        return _check_bf16(machine) is None

    def check_build(self, machine: Machine) -> Readiness:
        return _check_bf16(machine) or super().check_build(machine)

    def check_run(self, machine: Machine) -> Readiness:
        return _check_bf16(machine) or super().check_run(machine)


class _WeightTarget(OpenvinoLanguageTarget):
    """What both have in common: the candidate that keeps perplexity ships, set as it was when it was chosen."""

    bits: ClassVar[int]

    def _finish_build(self, openvino: Any, model: Any, request: LanguageBuildRequest) -> LanguageBuildResult:
        with silence_vendor():
            nncf = require_import("nncf", "openvino")
        options = {"KV_CACHE_PRECISION": "u8"}  # the plugin's own choice, told so that another version keeps it
        compressor = LanguageCompressor(
            openvino, nncf, model, request, self.bits, {"INFERENCE_PRECISION_HINT": self.hint, **options}
        )
        chosen, tried = compressor.choose()
        openvino.save_model(chosen.model, request.directory / MODEL_FILE, compress_to_fp16=False)
        recipe = {
            "method": "weights in few bits, chosen by the perplexity of tuning texts",
            "chosen": chosen.name,
            "search": [one.describe() for one in tried],
            "matrices": chosen.matrices,
            "inference_precision": self.hint,
            "compile_options": {**options, **chosen.compile_options},
        }
        return LanguageBuildResult(
            model_file=MODEL_FILE,
            recipe=recipe,
            requires=_REQUIRES,
            versions=package_versions("openvino", "nncf"),
            notes=[*_note_loss(chosen, self.bits, request.max_perplexity_increase), *compressor.note_widths(chosen)],
        )


def _note_loss(chosen: Tried, bits: int, limit: float | None) -> list[str]:
    """Returns what the user has to know of a choice that loses more than such weights may, usually or as they say."""
    if chosen.increase is None:
        return ["no tokens were left to choose on: the recipe was not compared with others"]
    if chosen.increase <= (LIMITS[bits] if limit is None else limit):
        return []
    return [f"perplexity grows by {chosen.increase:.1%} on the tuning tokens; no candidate of {bits} bits loses less"]


def _make_weight_record(bits: int) -> LanguageTargetRecord:
    return LanguageTargetRecord(
        name=f"openvino-int{bits}-weights",
        runtime="openvino",
        precision=f"int{bits}-weights",
        title=f"OpenVINO INT{bits} weights",
        is_float=False,
        needs_calibration=False,
        uses_tokens=True,
        uses_limit=True,
        weight_copies=2.1,
        # It runs the exported model on texts, to round for them and to choose on them.
        build_packages={**_RUN_PACKAGES, "nncf": "nncf>=3.0", "onnxruntime": "onnxruntime>=1.22"},
        run_packages=_RUN_PACKAGES,
        build_extra="openvino",
        run_extra="openvino-run",
        recipe_version={8: 3, 4: 4}[bits],
        settings=SETTINGS,
    )


class OpenvinoInt8Weights(_WeightTarget):
    """Weights of 8 bits."""

    bits = 8
    record = _make_weight_record(8)


class OpenvinoInt4Weights(_WeightTarget):
    """Weights of 4 bits; tables, the head and what 4 bits ruin have 8."""

    bits = 4
    record = _make_weight_record(4)


def _check_bf16(machine: Machine) -> Readiness | None:
    """Returns why the machine cannot run BF16; None when it can."""
    if machine.instruction_sets & BF16_INSTRUCTION_SETS:
        return None
    reason = f"{machine.name} has neither avx512_bf16 nor amx_bf16: OpenVINO would run FP32 under the name of BF16"
    return Readiness.no(reason, "use openvino-fp32 or openvino-int8-weights, or the profile of a machine that has it")
