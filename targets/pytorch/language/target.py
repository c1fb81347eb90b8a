"""Language models in PyTorch on CPUs: FP32, BF16, and matrices in 8 bits by dynamic quantization."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelwright.core.records.language import LanguageModel
from modelwright.core.records.machine import Machine
from modelwright.core.versions import parse_version
from modelwright.targets.language.contract import (
    Generator,
    Language,
    LanguageBuildRequest,
    LanguageBuildResult,
    LanguageTarget,
    LanguageTargetRecord,
    StoredTensor,
)
from modelwright.targets.options import RunSettings
from modelwright.targets.pytorch.language.generator import TorchGenerator
from modelwright.targets.pytorch.language.snippet import write_python, write_python_int8
from modelwright.targets.pytorch.language.weights import (
    WEIGHTS_FILE,
    import_transformers,
    list_tensors,
    read_float,
    read_int8,
    read_source,
    write_float,
    write_int8,
)
from modelwright.targets.pytorch.program import import_torch
from modelwright.targets.pytorch.session import apply_settings
from modelwright.targets.readiness import package_versions

_PACKAGES = {"torch": "torch>=2.10", "transformers": "transformers>=5.0", "safetensors": "safetensors>=0.4"}


def _make_record(precision: str, title: str, *, is_float: bool = True) -> LanguageTargetRecord:
    return LanguageTargetRecord(
        name=f"torch-{precision}",
        runtime="torch",
        precision=precision,
        title=title,
        is_float=is_float,
        needs_calibration=False,
        uses_source=True,
        weight_copies=1.0 if is_float else 1.5,
        build_packages=_PACKAGES,
        run_packages=_PACKAGES,
        build_extra="llm",
        run_extra="llm",
    )


class _TorchLanguageTarget(LanguageTarget):
    """What the three have in common: transformers' model, and its generator."""

    def build(self, request: LanguageBuildRequest) -> LanguageBuildResult:
        torch, transformers = import_torch(), import_transformers()
        request.progress(f"writing the weights in {self.record.precision}")
        recipe = self._write(torch, transformers, request)
        version = parse_version(str(transformers.__version__))
        return LanguageBuildResult(
            model_file=WEIGHTS_FILE,
            recipe={**recipe, "execution": "eager"},
            requires={"packages": {"transformers": f">={version.major}.{version.minor}"}},
            versions=package_versions("torch", "transformers"),
        )

    @abstractmethod
    def _write(self, torch: Any, transformers: Any, request: LanguageBuildRequest) -> dict[str, Any]:
        """Writes config and weights; returns how they were made."""

    @abstractmethod
    def _read(self, torch: Any, transformers: Any, directory: Path) -> Any:
        """Returns the model of an artifact."""

    @contextlib.contextmanager
    def load(
        self,
        directory: Path,
        model_file: str,  # noqa: ARG002 - transformers knows its files by name
        recipe: Mapping[str, Any],  # noqa: ARG002
        record: LanguageModel,  # noqa: ARG002
        settings: RunSettings,
    ) -> Iterator[Generator]:
        torch, transformers = import_torch(), import_transformers()
        apply_settings(torch, settings, compiled=False)
        with torch.inference_mode():
            yield TorchGenerator(torch, transformers, self._read(torch, transformers, directory))

    def list_stored(self, directory: Path, model_file: str) -> Iterator[StoredTensor]:
        return list_tensors(directory / model_file)


class _TorchFloat(_TorchLanguageTarget):
    """Weights and arithmetic in one float precision."""

    dtype: str

    def _write(self, torch: Any, transformers: Any, request: LanguageBuildRequest) -> dict[str, Any]:  # noqa: ARG002
        write_float(read_source(request.source, getattr(torch, self.dtype)), request.directory)
        return {"method": f"transformers' implementation in {self.dtype}", "precision": self.record.precision}

    def _read(self, torch: Any, transformers: Any, directory: Path) -> Any:  # noqa: ARG002
        return read_float(directory, getattr(torch, self.dtype))

    def write_snippet(
        self,
        language: Language,
        model_file: str,  # noqa: ARG002
        recipe: Mapping[str, Any],  # noqa: ARG002
        record: LanguageModel,  # noqa: ARG002
        settings: RunSettings,
    ) -> str | None:
        return write_python(self.dtype, settings) if language == "python" else None


class TorchFp32(_TorchFloat):
    """What a user has before anything is done, and what quality is held against."""

    dtype = "float32"
    record = _make_record("fp32", "PyTorch FP32")


class TorchBf16(_TorchFloat):
    """All weights and activations in BF16, as users load large models."""

    dtype = "bfloat16"
    record = _make_record("bf16", "PyTorch BF16")


class TorchInt8Dynamic(_TorchLanguageTarget):
    """Matrices in 8 bits, a scale a row; activations are rounded as they come, by PyTorch's own quantizer."""

    record = _make_record("int8-dynamic", "PyTorch INT8 dynamic", is_float=False)

    def suits(self, machine: Machine) -> bool:  # noqa: ARG002
        """Nowhere by itself: of small models it multiplies perplexity (SmolLM2-135M: 37 to 93)."""
        return False

    def _write(self, torch: Any, transformers: Any, request: LanguageBuildRequest) -> dict[str, Any]:
        model = read_source(request.source, torch.float32)
        return {
            "method": "torch.ao.quantization.quantize_dynamic, a scale a row",
            "precision": self.record.precision,
            "matrices_in_8_bits": write_int8(torch, transformers, model, request.directory),
        }

    def _read(self, torch: Any, transformers: Any, directory: Path) -> Any:
        return read_int8(torch, transformers, directory)

    def write_snippet(
        self,
        language: Language,
        model_file: str,  # noqa: ARG002
        recipe: Mapping[str, Any],  # noqa: ARG002
        record: LanguageModel,  # noqa: ARG002
        settings: RunSettings,
    ) -> str | None:
        return write_python_int8(settings) if language == "python" else None
