"""TFLite on CPUs: FP32, FP16 weights, full INT8 and dynamic-range INT8, from ONNX.

The conversion runs in an environment of its own (`converter/`); running needs numpy and a TFLite runtime.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.records.artifact import Arithmetic
from modelwright.core.records.machine import HOST
from modelwright.core.records.operators import OperatorProfile
from modelwright.core.records.signature import Signature
from modelwright.targets.contract import (
    Array,
    BuildRequest,
    BuildResult,
    Feeds,
    Language,
    RunSettings,
    Session,
    Target,
    TargetRecord,
)
from modelwright.targets.readiness import Readiness, package_versions
from modelwright.targets.tflite.profile import list_operators, profile_file
from modelwright.targets.tflite.settings import SETTINGS, list_arguments

if TYPE_CHECKING:
    from modelwright.core.records.machine import Machine
    from modelwright.targets.tflite.session import TfliteRunner

MODEL_FILE = "model.tflite"
_RUNTIMES = {"ai_edge_litert|tflite_runtime": "ai-edge-litert>=2.1"}
_INT8_RUNTIMES = {"ai_edge_litert": "ai-edge-litert>=2.1"}
"""tflite-runtime 2.14 computes per-channel dynamic FULLY_CONNECTED wrongly, which mixed INT8 files contain too."""
_BUILD_PACKAGES = {"onnx": "onnx>=1.21", "onnxruntime": "onnxruntime>=1.22"}


class _Tflite(Target):
    """What the four precisions share."""

    def suits(self, machine: Machine) -> bool:
        """On boards and desktops; beside a GPU only on this very machine, where all that runs is tried.

        The profile of a card leaves the CPU beside it open. See `Target.suits`.
        """
        is_for_cpus = machine.gpu is None or machine.architecture == "aarch64" or machine.name == HOST
        return is_for_cpus and super().suits(machine)

    def check_build(self, machine: Machine) -> Readiness:
        from modelwright.targets.tflite.environment import find_environment

        readiness = super().check_build(machine)
        if readiness.ok and find_environment() is None:
            return Readiness.yes("its converter is installed on first use (a minute, 210 MB, package index)")
        return readiness

    def compare_arithmetic(self, machine: Machine, host: Machine, recipe: Mapping[str, Any]) -> Arithmetic | None:
        """Its integer kernels give the same bits everywhere: the scales of what they sum are part of the file."""
        if super().compare_arithmetic(machine, host, recipe) is None:
            return None
        return Arithmetic(alike=True, why="TFLite's 8-bit kernels give the same numbers on x86-64 and Arm")

    def key_facts(self, machine: Machine) -> Mapping[str, Any]:
        from modelwright.targets.quantization.search import describe_limits
        from modelwright.targets.tflite.conversion import describe_conversion
        from modelwright.targets.tflite.environment import describe_converter
        from modelwright.targets.tflite.quantize import describe_choice

        converted = {"converter": describe_converter(), "conversion": describe_conversion()}
        if self.record.precision == "fp32":
            return converted
        return {**converted, "search": describe_limits(), "choice": describe_choice(self.record.precision, machine)}

    def build(self, request: BuildRequest) -> BuildResult:
        from modelwright.targets.quantization.own_scales import (
            explain_float,
            read_own_scales,
            refuse_second_quantization,
        )
        from modelwright.targets.tflite.conversion import convert, fix_signature

        own = read_own_scales(request)
        if own is not None and not self.record.is_float:
            # The converter writes such rounding as float arithmetic: neither it nor the runtime makes integers of it.
            way_out = "the ort-* and openvino-* targets run its own scales, which TFLite's converter cannot"
            raise refuse_second_quantization(self.record.name, own, way_out)
        converted = convert(request)
        made = converted if self.record.precision == "fp32" else self._quantize(request, converted)
        in_floats = [] if own is None else [explain_float(own)]
        signature, fixed = fix_signature(request.signature, made["binding"])
        shutil.copyfile(Path(converted["folder"], made["file"]), request.directory / MODEL_FILE)
        return BuildResult(
            model_file=MODEL_FILE,
            recipe={**made["recipe"], "binding": made["binding"]},
            requires={"packages": {"ai-edge-litert": ">=2.1"}},
            versions=made["versions"],
            notes=tuple(dict.fromkeys((*fixed, *converted["notes"], *made["notes"], *in_floats))),
            signature=signature,
            plan=made.get("plan"),
        )

    def _quantize(self, request: BuildRequest, converted: Mapping[str, Any]) -> dict[str, Any]:
        from modelwright.targets.quantization.judge import Judge
        from modelwright.targets.quantization.search import search
        from modelwright.targets.tflite.planned import make_quantizer

        quantizer = make_quantizer(request, converted, self.record.precision)
        found = search(quantizer, Judge.of_request(request), request.progress)
        return {
            "file": found.model.path,
            "binding": found.model.binding,
            "recipe": {
                "quantizer": "ai-edge-quantizer",
                "calibration": "min-max over all samples" if self.record.needs_calibration else None,
                "search": found.describe(),
                "chosen_by": quantizer.chosen_by,
                "order": quantizer.order,
                "timed": quantizer.timed,
                **found.model.facts,
            },
            "notes": found.notes(quantizer.explain_kept(found.candidate, found.kept)),
            "versions": quantizer.versions,
            "plan": quantizer.describe_plan(found.model, found.kept),
        }

    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],
        signature: Signature,
        settings: RunSettings,
    ) -> AbstractContextManager[Session]:
        return _open_session(directory / model_file, recipe, signature, settings, self.record.precision)

    def write_snippet(
        self,
        language: Language,
        model_file: str,
        recipe: Mapping[str, Any],
        signature: Signature,  # noqa: ARG002 - the binding holds names and shapes
        settings: RunSettings,
    ) -> str:
        from modelwright.targets.tflite.snippet import write_cpp, write_python

        return (write_python if language == "python" else write_cpp)(model_file, recipe["binding"], settings)


class TfliteFp32(_Tflite):
    """The converted model as it is."""

    record = TargetRecord(
        name="tflite-fp32",
        runtime="tflite",
        precision="fp32",
        title="TFLite FP32",
        is_float=True,
        needs_calibration=False,
        uses_samples=True,
        build_packages=_BUILD_PACKAGES,
        run_packages=_RUNTIMES,
        build_extra="tflite",
        run_extra="tflite-run",
        settings=SETTINGS,
        has_profiler=True,
    )


class TfliteFp16(_Tflite):
    """Weights stored as FP16, half the size; CPUs without FP16 arithmetic compute in FP32."""

    record = TargetRecord(
        name="tflite-fp16",
        runtime="tflite",
        precision="fp16",
        title="TFLite FP16",
        is_float=True,
        needs_calibration=False,
        uses_samples=True,
        recipe_version=3,
        build_packages=_BUILD_PACKAGES,
        run_packages=_RUNTIMES,
        build_extra="tflite",
        run_extra="tflite-run",
        settings=SETTINGS,
        has_profiler=True,
    )


class TfliteInt8(_Tflite):
    """Weights and activations in INT8, calibrated; inputs and outputs stay float."""

    record = TargetRecord(
        name="tflite-int8",
        runtime="tflite",
        precision="int8",
        title="TFLite INT8",
        is_float=False,
        needs_calibration=True,
        uses_samples=True,
        uses_speed=True,
        recipe_version=5,
        build_packages=_BUILD_PACKAGES,
        run_packages=_INT8_RUNTIMES,
        build_extra="tflite",
        run_extra="tflite-run",
        settings=SETTINGS,
        follows_plan=True,
        has_profiler=True,
    )


class TfliteInt8Dynamic(_Tflite):
    """Weights in INT8; activations are quantized as they come."""

    record = TargetRecord(
        name="tflite-int8-dynamic",
        runtime="tflite",
        precision="int8-dynamic",
        title="TFLite INT8 dynamic",
        is_float=False,
        needs_calibration=False,
        uses_samples=True,
        uses_speed=True,
        recipe_version=5,
        build_packages=_BUILD_PACKAGES,
        run_packages=_INT8_RUNTIMES,
        build_extra="tflite",
        run_extra="tflite-run",
        settings=SETTINGS,
        has_profiler=True,
    )


class TfliteInt4Weights(_Tflite):
    """Matrices in INT4, in blocks, whose inputs take 8 bits as they come; convolutions have INT8 weights."""

    record = TargetRecord(
        name="tflite-int4-weights",
        runtime="tflite",
        precision="int4-weights",
        title="TFLite INT4 weights",
        is_float=False,
        needs_calibration=False,
        uses_samples=True,
        uses_speed=True,
        recipe_version=2,
        build_packages=_BUILD_PACKAGES,
        run_packages=_INT8_RUNTIMES,
        build_extra="tflite",
        run_extra="tflite-run",
        settings=SETTINGS,
        named_only=True,
        has_profiler=True,
    )


class _TfliteSession(Session):
    def __init__(
        self, runner: TfliteRunner, path: Path, recipe: Mapping[str, Any], precision: str, settings: RunSettings
    ) -> None:
        self._runner = runner
        self._path = path
        self._recipe = recipe
        self._precision = precision
        self._settings = settings

    def run(self, feeds: Feeds) -> dict[str, Array]:
        return self._runner.run(feeds)

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        return self._runner.bind(feeds)

    def profile_operators(self, feeds: Feeds) -> OperatorProfile:
        return profile_file(
            self._path,
            self._settings.threads,
            self._runner.name_inputs(feeds),
            list_operators(self._runner),
            is_float="int" not in self._precision,
        )

    def describe_execution(self) -> dict[str, Any]:
        """Returns the file's operators by type of arithmetic; the interpreter runs them as they are."""
        name = self._runner.runtime.replace("_", "-")
        version = package_versions(name).get(name, "")
        return {
            "precision": self._precision,
            "threads": self._settings.threads,
            **({"settings": dict(self._settings.options)} if self._settings.options else {}),
            "source": f"operators of the file, run by {name} {version}".strip(),
            **({"chosen": self._recipe["search"]["chosen"]["name"]} if "search" in self._recipe else {}),
            **{key: self._recipe[key] for key in ("operators", "left_in_float") if key in self._recipe},
        }


@contextmanager
def _open_session(
    path: Path, recipe: Mapping[str, Any], signature: Signature, settings: RunSettings, precision: str
) -> Iterator[Session]:
    del signature  # the binding holds names, layouts and dtypes
    from modelwright.targets.tflite.session import TfliteRunner, load_runtime

    try:
        interpreter, _ = load_runtime()
        arguments = list_arguments(settings.options, sys.modules[interpreter.__module__])
        runner = TfliteRunner(path, recipe["binding"], threads=settings.threads, arguments=arguments)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "ai_edge_litert":
            raise ToolchainMissingError(
                "no TFLite runtime is installed", hint="pip install 'ai-edge-litert>=2.1'"
            ) from error
        raise ToolchainMissingError(
            "the TFLite runtime is installed but does not import",
            hint="reinstall it: pip install --force-reinstall ai-edge-litert",
            detail=str(error),
        ) from error
    yield _TfliteSession(runner, path, recipe, precision, settings)
