"""ONNX Runtime on NVIDIA GPUs: FP32, and FP16 cast by ModelOpt AutoCast."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from modelwright.core.nvidia.cuda import CudaDevice
from modelwright.core.nvidia.probe import probe_driver
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature
from modelwright.core.versions import parse_version
from modelwright.targets.contract import (
    BuildRequest,
    BuildResult,
    RunSettings,
    Session,
    Target,
    TargetOption,
    TargetRecord,
)
from modelwright.targets.graphs.files import copy_model, load_model
from modelwright.targets.ort.cuda_placement import find_lookalikes, find_shape_nodes, name_nodes
from modelwright.targets.ort.cuda_session import INSTALL_HINT, OrtCudaSession, import_ort
from modelwright.targets.quantization.half import PrecisionGraph, make_fp16
from modelwright.targets.readiness import Readiness, package_versions

MODEL_FILE = "model.onnx"
_ALLOW = TargetOption(
    name="allow-cpu-fallback",
    kind="boolean",
    default=False,
    help="Accept nodes that run on the CPU because CUDA has no kernel for them; they are named either way.",
)
_MEMORY_WORDS = ("failed to allocate memory", "alloc_failed")
"""The second is how cuBLAS and cuDNN say it, which ONNX Runtime calls."""
_PROVIDER_LIBRARY = "libonnxruntime_providers_cuda.so"


@dataclass(frozen=True, kw_only=True)
class InstalledOrt:
    """What lies in the folder that `import onnxruntime` would take.

    Attributes:
        distribution: The package that wrote its files last: `onnxruntime`, `onnxruntime-gpu`, ...
        has_cuda: Whether the CUDA provider's library is there.
        cuda_version: That it was built for, such as `13.0`.
    """

    distribution: str
    has_cuda: bool
    cuda_version: str | None


def find_installed() -> InstalledOrt | None:
    """Reads the facts about the installed ONNX Runtime from its files; imports nothing. None when it is absent."""
    try:
        spec = importlib.util.find_spec("onnxruntime")
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "capi"
    try:
        text = (folder / "build_and_package_info.py").read_text()
    except OSError:
        text = ""
    facts = dict(re.findall(r"^(package_name|cuda_version)\s*=\s*['\"]([^'\"]*)['\"]", text, re.MULTILINE))
    return InstalledOrt(
        distribution=facts.get("package_name", "onnxruntime"),
        has_cuda=(folder / _PROVIDER_LIBRARY).is_file(),
        cuda_version=facts.get("cuda_version") or None,
    )


def check_installed() -> Readiness:
    """Says whether ONNX Runtime with its CUDA provider is installed; looks at files only."""
    installed = find_installed()
    if installed is None:
        return Readiness.no("package onnxruntime-gpu is not installed", INSTALL_HINT)
    both = {"onnxruntime", "onnxruntime-gpu"} <= set(package_versions("onnxruntime", "onnxruntime-gpu"))
    if installed.distribution == "onnxruntime" and both:
        return Readiness.no(
            "both onnxruntime and onnxruntime-gpu are installed, and the files of the CPU package lie on top",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]>=1.24'",
        )
    if not installed.has_cuda:
        return Readiness.no(
            f"package onnxruntime-gpu is not installed: the ONNX Runtime here is {installed.distribution}, "
            "which has no CUDA provider",
            INSTALL_HINT,
        )
    return Readiness.yes()


def check_driver() -> Readiness:
    """Says whether there is an NVIDIA driver and a GPU, and whether the driver is new enough for the package."""
    status = probe_driver()
    if not status.ok:
        return Readiness.no(status.reason or "there is no NVIDIA driver", status.hint)
    installed = find_installed()
    built_for = None if installed is None else installed.cuda_version
    if built_for and status.cuda_version:
        supported = parse_version(status.cuda_version).major
        if supported < parse_version(built_for).major:
            return Readiness.no(
                f"onnxruntime-gpu was built for CUDA {built_for}, and the driver supports CUDA {status.cuda_version}",
                f"update the NVIDIA driver, or install an onnxruntime-gpu for CUDA {supported}",
            )
    return Readiness.yes()


class _OrtCudaTarget(Target):
    """What the two have in common."""

    def check_run(self, machine: Machine) -> Readiness:
        for readiness in (super().check_run(machine), check_installed()):
            if not readiness.ok:
                return readiness
        return check_driver()

    @contextlib.contextmanager
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],
        signature: Signature,
        settings: RunSettings,
    ) -> Iterator[Session]:
        """Loads the model on the GPU and refuses one whose nodes fall back to the CPU; see `Target.load`."""
        with CudaDevice(spin=settings.spin) as gpu:
            session = OrtCudaSession(import_ort(), directory / model_file, signature, settings, recipe, gpu)
            try:
                yield session
            finally:
                session.close()

    def _finish(self, request: BuildRequest, file: str, recipe: dict[str, Any], graph: PrecisionGraph) -> BuildResult:
        """Names all nodes of the model in the staging folder and writes down which of them compute shapes only."""
        path = request.directory / file
        model = load_model(path, weights=False)
        if name_nodes(model):
            path.write_bytes(model.SerializeToString())
        shape_nodes = find_shape_nodes(model)
        return BuildResult(
            model_file=file,
            recipe={
                **recipe,
                "tf32": False,
                "allow_cpu_fallback": bool(request.options.get(_ALLOW.name, _ALLOW.default)),
                "shape_nodes": shape_nodes,
                "lookalikes": find_lookalikes(model, shape_nodes),
            },
            requires={"packages": {"onnxruntime-gpu": ">=1.24"}},
            versions={**graph.versions, **package_versions("onnx", "onnxruntime-gpu")},
            notes=graph.notes,
            emulation=graph.emulation,
        )


class OrtCudaFp32(_OrtCudaTarget):
    """The model as it was exported, TF32 off."""

    record: ClassVar[TargetRecord] = TargetRecord(
        name="ort-cuda-fp32",
        runtime="ort-cuda",
        precision="fp32",
        title="ONNX Runtime CUDA FP32",
        is_float=True,
        needs_calibration=False,
        build_packages={"onnx": "onnx>=1.21"},
        run_packages={"onnxruntime": "onnxruntime-gpu>=1.24"},
        build_extra="ort-cuda",
        run_extra="ort-cuda-run",
        devices=("cuda",),
        memory_words=_MEMORY_WORDS,
        options=(_ALLOW,),
    )

    def build(self, request: BuildRequest) -> BuildResult:
        """Copies the model and the files with its weights; see `Target.build`."""
        request.progress("copying the model")
        file = copy_model(request.model_path, request.directory, MODEL_FILE)
        graph = PrecisionGraph(path=request.model_path, emulation=request.model_path, recipe={})
        return self._finish(request, file, {"method": "as exported", "precision": "fp32"}, graph)


class OrtCudaFp16(_OrtCudaTarget):
    """Cast to FP16 where the values allow it, in the graph."""

    record: ClassVar[TargetRecord] = TargetRecord(
        name="ort-cuda-fp16",
        runtime="ort-cuda",
        precision="fp16",
        title="ONNX Runtime CUDA FP16",
        is_float=True,
        needs_calibration=False,
        uses_samples=True,
        build_packages={"onnx": "onnx>=1.21", "onnxruntime": "onnxruntime>=1.22", "modelopt": "nvidia-modelopt>=0.47"},
        run_packages={"onnxruntime": "onnxruntime-gpu>=1.24"},
        build_extra="ort-cuda",
        run_extra="ort-cuda-run",
        devices=("cuda",),
        memory_words=_MEMORY_WORDS,
        options=(_ALLOW,),
    )

    def build(self, request: BuildRequest) -> BuildResult:
        """Casts the model with AutoCast, as for TensorRT; see `Target.build`."""
        graph = make_fp16(request, target_name=self.record.name)
        file = copy_model(graph.path, request.directory, MODEL_FILE)
        return self._finish(request, file, graph.recipe, graph)
