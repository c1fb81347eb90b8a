"""LiteRT on the CPU as a target for language models.

The vendor's generative converter (litert-torch 0.10.0) is not used. It asks for 80 packages, another PyTorch with CUDA
and JAX among them, imports a `tensorflow` that it does not ask for, and took 4.5 minutes and 3.5 GB for SmolLM2-135M.
The file is written here, from the exported graph, in seconds, one matrix in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from modelwright.core.records.language import LanguageModel
from modelwright.targets.language.contract import (
    Language,
    LanguageBuildRequest,
    LanguageBuildResult,
    LanguageTarget,
    LanguageTargetRecord,
    StoredTensor,
)
from modelwright.targets.language.grids import NearestGrids
from modelwright.targets.language.portable import PortableModel
from modelwright.targets.language.smoothing import NOT_SMOOTHED, open_smoothed
from modelwright.targets.options import RunSettings
from modelwright.targets.readiness import package_versions
from modelwright.targets.tflite.language.file_facts import list_tensors
from modelwright.targets.tflite.language.four_bits import choose_grids
from modelwright.targets.tflite.language.generator import TfliteGenerator
from modelwright.targets.tflite.language.matrices import FloatMatrices, RoundedMatrices, choose_format
from modelwright.targets.tflite.language.snippet import write_python
from modelwright.targets.tflite.language.writing import MODEL_FILE, write_model

_RUN_PACKAGES = {"ai_edge_litert": "ai-edge-litert>=2.3"}
_BUILD_PACKAGES = {"onnx": "onnx>=1.21", **_RUN_PACKAGES}
_REQUIRES = {"packages": {"ai-edge-litert": ">=2.3"}}


class TfliteLanguageTarget(LanguageTarget):
    """What all precisions share: the two graphs, and how they run."""

    @contextmanager
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],  # noqa: ARG002
        record: LanguageModel,
        settings: RunSettings,
    ) -> Iterator[TfliteGenerator]:
        generator = TfliteGenerator(directory / model_file, record, settings)
        try:
            yield generator
        finally:
            generator.close()

    def list_stored(self, directory: Path, model_file: str) -> Iterator[StoredTensor]:
        return list_tensors(directory / model_file)

    def write_snippet(
        self,
        language: Language,
        model_file: str,
        recipe: Mapping[str, Any],
        record: LanguageModel,
        settings: RunSettings,
    ) -> str | None:
        return write_python(model_file, record, recipe["windows"], settings) if language == "python" else None

    def finish_build(
        self, model: PortableModel, recipe: Mapping[str, Any], notes: tuple[str, ...] = ()
    ) -> LanguageBuildResult:
        """Returns what a build made.

        Args:
            model: That it was made of.
            recipe: How its weights are stored.
            notes: For the user.
        """
        return LanguageBuildResult(
            model_file=MODEL_FILE,
            recipe={**recipe, "windows": model.list_windows()},
            requires=_REQUIRES,
            versions=package_versions("onnx", "ai-edge-litert", "flatbuffers", "numpy"),
            notes=notes,
        )


class TfliteLanguageFp32(TfliteLanguageTarget):
    """All in FP32."""

    record: ClassVar[LanguageTargetRecord] = LanguageTargetRecord(
        name="tflite-fp32",
        runtime="tflite",
        precision="fp32",
        title="LiteRT FP32",
        is_float=True,
        needs_calibration=False,
        build_packages=_BUILD_PACKAGES,
        run_packages=_RUN_PACKAGES,
        build_extra="tflite",
        run_extra="tflite-run",
    )

    def build(self, request: LanguageBuildRequest) -> LanguageBuildResult:
        """Writes the file; see `LanguageTarget.build`."""
        model = PortableModel(request.model)
        write_model(request.record, FloatMatrices(model), request.directory)
        return self.finish_build(model, {"method": "written from the exported graph"})


class TfliteLanguageInt8Dynamic(TfliteLanguageTarget):
    """Matrices and tables in 8 bits, a scale a column; what they are multiplied with is rounded as it comes.

    All channels of a token share a scale there: they are evened out first.
    """

    record: ClassVar[LanguageTargetRecord] = LanguageTargetRecord(
        name="tflite-int8-dynamic",
        runtime="tflite",
        precision="int8-dynamic",
        title="LiteRT INT8 dynamic",
        is_float=False,
        needs_calibration=False,
        uses_tokens=True,
        recipe_version=2,
        build_packages={**_BUILD_PACKAGES, "onnxruntime": "onnxruntime>=1.22"},
        run_packages=_RUN_PACKAGES,
        build_extra="tflite",
        run_extra="tflite-run",
    )

    def build(self, request: LanguageBuildRequest) -> LanguageBuildResult:
        """Writes the file and rounds its matrices; see `LanguageTarget.build`."""
        model, smoothing = open_smoothed(request)
        grids = NearestGrids(model, {name: choose_format(8, each.rows) for name, each in model.linear_layers.items()})
        request.progress(f"rounding {len(grids.formats)} matrices to 8 bits")
        write_model(request.record, RoundedMatrices(grids), request.directory)
        recipe = {"method": "weights by the column, to nearest", "matrices": grids.describe(), "smoothing": smoothing}
        return self.finish_build(model, recipe, () if smoothing else (NOT_SMOOTHED,))


class TfliteLanguageInt4Weights(TfliteLanguageTarget):
    """Matrices in blocks of 4 bits, rounded for what they make of texts; the head, tables and sensitive ones in 8."""

    record: ClassVar[LanguageTargetRecord] = LanguageTargetRecord(
        name="tflite-int4-weights",
        runtime="tflite",
        precision="int4-weights",
        title="LiteRT INT4 weights",
        is_float=False,
        needs_calibration=True,
        uses_tokens=True,
        uses_limit=True,
        recipe_version=2,
        weight_copies=1.5,
        build_packages={**_BUILD_PACKAGES, "onnxruntime": "onnxruntime>=1.22"},
        run_packages=_RUN_PACKAGES,
        build_extra="tflite",
        run_extra="tflite-run",
    )

    def build(self, request: LanguageBuildRequest) -> LanguageBuildResult:
        """Rounds the matrices and chooses those that need more bits; see `LanguageTarget.build`."""
        model = PortableModel(request.model)
        chosen = choose_grids(request, model)
        write_model(request.record, RoundedMatrices(chosen.grids), request.directory)
        recipe = {
            "method": "weights in blocks, errors made up for on calibration texts (GPTQ)",
            "matrices": chosen.grids.describe(),
            "search": dict(chosen.search),
        }
        return self.finish_build(model, recipe, chosen.notes)
