"""ONNX Runtime on the CPU as a target for language models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.language import LanguageModel
from modelwright.targets.graphs.run import open_file
from modelwright.targets.language.contract import (
    Language,
    LanguageBuildRequest,
    LanguageBuildResult,
    LanguageTarget,
    LanguageTargetRecord,
    StoredTensor,
)
from modelwright.targets.language.grids import BlockFormat, NearestGrids
from modelwright.targets.language.portable import PortableModel
from modelwright.targets.language.smoothing import NOT_SMOOTHED, open_smoothed
from modelwright.targets.options import RunSettings
from modelwright.targets.ort.language.four_bits import write_mixture
from modelwright.targets.ort.language.fuse import DecoderFuser
from modelwright.targets.ort.language.generator import OrtGenerator
from modelwright.targets.ort.language.graph_file import GraphFile, list_tensors
from modelwright.targets.ort.language.matrices import BlockMatrices, FloatMatrices, Matrices
from modelwright.targets.ort.language.snippet import write_cpp, write_python
from modelwright.targets.ort.settings import SETTINGS
from modelwright.targets.readiness import Readiness, package_versions

MODEL_FILE = "model.onnx"
_INT8 = BlockFormat(bits=8, size=32, symmetric=True)
_LONG_BLOCK = 64
"""Half the scales, which are in memory twice; with even channels it costs no perplexity that can be seen."""
_PACKAGES = {"onnxruntime": "onnxruntime>=1.22"}
_HEAD_MULTIPLE = 8
"""Channels of a head: GroupQueryAttention of ONNX Runtime 1.31 computes no others."""


class OrtLanguageTarget(LanguageTarget):
    """What all precisions share: the fused graph and how it runs."""

    def check_model(self, record: LanguageModel) -> Readiness:
        """Refuses heads that the fused attention does not compute."""
        if record.head_dim % _HEAD_MULTIPLE == 0:
            return Readiness.yes()
        return Readiness.no(
            f"ONNX Runtime's GroupQueryAttention takes heads of a multiple of {_HEAD_MULTIPLE} channels, and those of "
            f"{record.architecture} have {record.head_dim} here",
            "leave this runtime out: OpenVINO and PyTorch compute such heads",
        )

    @contextmanager
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],  # noqa: ARG002
        record: LanguageModel,
        settings: RunSettings,
    ) -> Iterator[OrtGenerator]:
        generator = OrtGenerator(directory / model_file, record, settings)
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
        recipe: Mapping[str, Any],  # noqa: ARG002
        record: LanguageModel,
        settings: RunSettings,
    ) -> str | None:
        return (write_python if language == "python" else write_cpp)(model_file, record, settings)

    def write_model(
        self, request: LanguageBuildRequest, model: PortableModel, matrices: Matrices, folder: Path | None = None
    ) -> Path:
        """Writes the fused graph, opens it once, and returns its file.

        Args:
            request: What is built.
            model: The portable graph.
            matrices: How its products are.
            folder: Instead of the artifact's; another model there is replaced.
        """
        path = (folder or request.directory) / MODEL_FILE
        path.parent.mkdir(exist_ok=True)
        with GraphFile(path, model.proto) as graph:
            DecoderFuser(model, graph, matrices, request.record).write()
        open_file(path, RunSettings(), BuildFailedError)
        return path


class OrtLanguageFp32(OrtLanguageTarget):
    """All in FP32."""

    record: ClassVar[LanguageTargetRecord] = LanguageTargetRecord(
        name="ort-fp32",
        runtime="ort",
        precision="fp32",
        title="ONNX Runtime FP32",
        is_float=True,
        needs_calibration=False,
        build_packages={"onnx": "onnx", **_PACKAGES},
        run_packages=_PACKAGES,
        build_extra="ort",
        run_extra="ort-run",
        settings=SETTINGS,
    )

    def build(self, request: LanguageBuildRequest) -> LanguageBuildResult:
        """Rewrites the graph; see `LanguageTarget.build`."""
        model = PortableModel(request.model)
        self.write_model(request, model, FloatMatrices(model))
        return LanguageBuildResult(
            model_file=MODEL_FILE,
            recipe={"method": "fused operators"},
            requires={"packages": {"onnxruntime": ">=1.22"}},
            versions=package_versions("onnx", "onnxruntime", "numpy"),
        )


class OrtLanguageInt8Weights(OrtLanguageTarget):
    """Matrices and tables in 8 bits; what they are multiplied with is rounded to 8 bits as it comes.

    That is what costs perplexity, not the weights: so the channels of activations are evened out first.
    """

    record: ClassVar[LanguageTargetRecord] = LanguageTargetRecord(
        name="ort-int8-weights",
        runtime="ort",
        precision="int8-weights",
        title="ONNX Runtime INT8 weights",
        is_float=False,
        needs_calibration=False,
        uses_tokens=True,
        recipe_version=2,
        build_packages={"onnx": "onnx", **_PACKAGES},
        run_packages=_PACKAGES,
        build_extra="ort",
        run_extra="ort-run",
        settings=SETTINGS,
    )

    def build(self, request: LanguageBuildRequest) -> LanguageBuildResult:
        """Evens out channels, rewrites the graph and rounds its matrices; see `LanguageTarget.build`."""
        model, smoothing = open_smoothed(request)
        formats = {
            layer.name: _INT8 if layer.rows % _LONG_BLOCK else replace(_INT8, size=_LONG_BLOCK)
            for layer in model.linear_layers.values()
        }
        grids = NearestGrids(model, formats)
        self.write_model(request, model, BlockMatrices(grids, _INT8))
        return LanguageBuildResult(
            model_file=MODEL_FILE,
            recipe={"method": "weights in blocks, to nearest", "matrices": grids.describe(), "smoothing": smoothing},
            requires={"packages": {"onnxruntime": ">=1.22"}},
            versions=package_versions("onnx", "onnxruntime", "numpy"),
            notes=() if smoothing else (NOT_SMOOTHED,),
        )


class OrtLanguageInt4Weights(OrtLanguageTarget):
    """Matrices in 4 bits, the head's too, rounded for what they make of texts; tables and the most sensitive in 8."""

    record: ClassVar[LanguageTargetRecord] = LanguageTargetRecord(
        name="ort-int4-weights",
        runtime="ort",
        precision="int4-weights",
        title="ONNX Runtime INT4 weights",
        is_float=False,
        needs_calibration=True,
        uses_tokens=True,
        uses_limit=True,
        recipe_version=3,
        weight_copies=1.5,
        build_packages={"onnx": "onnx", **_PACKAGES},
        run_packages=_PACKAGES,
        build_extra="ort",
        run_extra="ort-run",
        settings=SETTINGS,
    )

    def build(self, request: LanguageBuildRequest) -> LanguageBuildResult:
        """Rounds the matrices and chooses those that need more bits; see `LanguageTarget.build`."""
        model = PortableModel(request.model)
        chosen = write_mixture(
            request, model, lambda folder, matrices: self.write_model(request, model, matrices, folder)
        )
        for path in chosen.path.parent.iterdir():
            shutil.move(path, request.directory / path.name)
        return LanguageBuildResult(
            model_file=MODEL_FILE,
            recipe=chosen.recipe,
            requires={"packages": {"onnxruntime": ">=1.22"}},
            versions=package_versions("onnx", "onnxruntime", "numpy"),
            notes=chosen.notes,
        )
