"""TensorRT and TensorRT for RTX: FP32, FP16 and INT8 engines for NVIDIA GPUs.

One code path; what the two do differently is in `flavours.py`. Precision lies in the ONNX graph alone
(`recipes.py`): networks are strongly typed, and what the engine's layers compute in is read back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from msgspec.structs import replace

from modelwright.core.cache import get_cache_folder
from modelwright.core.errors import ToolchainMissingError, UsageError
from modelwright.core.nvidia.cuda import CudaDevice
from modelwright.core.nvidia.probe import probe_driver
from modelwright.core.records.machine import Gpu, Machine
from modelwright.core.records.signature import Signature
from modelwright.targets.contract import BuildRequest, BuildResult, RunSettings, Session, Target, TargetRecord
from modelwright.targets.quantization.half import PrecisionGraph, make_fp16
from modelwright.targets.readiness import Readiness, package_versions
from modelwright.targets.tensorrt.engine import BuiltEngine, EngineSettings, build_engine
from modelwright.targets.tensorrt.flavours import (
    CLASSIC,
    RTX,
    Flavour,
    check_flavour,
    describe_capabilities,
    find_runnable_capabilities,
    fits_capability,
    import_flavour,
)
from modelwright.targets.tensorrt.portability import check_driver, check_needs, describe_needs
from modelwright.targets.tensorrt.proof import note_shares, prove_precision
from modelwright.targets.tensorrt.recipes import make_fp32, make_int8
from modelwright.targets.tensorrt.timing_cache import TimingCache, find_cache_file

MODEL_FILE = "model.engine"
_ONNX = {"onnx": "onnx>=1.21", "onnx_ir": "onnx-ir>=1.0", "onnxruntime": "onnxruntime>=1.22"}
_MODELOPT = {"modelopt": "nvidia-modelopt>=0.47"}


def _make_record(flavour: Flavour, precision: str) -> TargetRecord:
    return TargetRecord(
        name=f"{flavour.runtime}-{precision}",
        runtime=flavour.runtime,
        precision=precision,
        title=f"{flavour.title} {precision.upper()}",
        is_float=precision != "int8",
        needs_calibration=precision == "int8",
        uses_samples=precision != "fp32",
        recipe_version=3 if precision == "int8" else 1,
        build_packages={**flavour.packages, **_ONNX, **({} if precision == "fp32" else _MODELOPT)},
        run_packages=flavour.packages,
        build_extra=flavour.build_extra,
        run_extra=flavour.run_extra,
        build_anywhere=False,
        devices=("cuda",),
        options=flavour.options,
        uses_shapes=True,
        uses_gpu=True,
        memory_words=("outofmemory",),
        has_profiler=True,
    )


class _Tensorrt(Target):
    """What the six have in common: all but the record and the flavour."""

    flavour: ClassVar[Flavour]

    def suits(self, machine: Machine) -> bool:
        """On GPUs that the flavour can build for; see `Target.suits`."""
        known = self.flavour.compute_capabilities
        return machine.gpu is not None and (not known or machine.gpu.compute_capability in known)

    def check_build(self, machine: Machine) -> Readiness:
        """Says whether this host can build an engine for `machine`; see `Target.check_build`."""
        flavour = self.flavour
        for readiness in (super().check_build(machine), check_flavour(flavour, running=False)):
            if not readiness.ok:
                return readiness
        return _check_ahead(flavour, machine) if flavour.builds_without_gpu else _check_on_gpu(flavour, machine)

    def check_run(self, machine: Machine) -> Readiness:
        """Says whether this host can run engines: the package, then the driver; see `Target.check_run`."""
        for readiness in (super().check_run(machine), check_flavour(self.flavour, running=True)):
            if not readiness.ok:
                return readiness
        return _check_driver(self.flavour)

    def check_artifact(self, requires: Mapping[str, Any], machine: Machine) -> Readiness:
        """Compares an engine's version, GPU and memory with the machine; see `Target.check_artifact`."""
        # TensorRT has rules of its own about versions, which `check_needs` knows.
        readiness = super().check_artifact({**requires, "packages": {}}, machine)
        return check_needs(self.flavour, self.record.name, requires, machine) if readiness.ok else readiness

    def key_facts(self, machine: Machine) -> Mapping[str, Any]:
        """Returns the driver's CUDA, under which kernels are timed where they are, and the limits of the search."""
        from modelwright.targets.quantization.search import describe_limits

        gpu = None if self.flavour.builds_without_gpu else machine.gpu
        return {
            "cuda": None if gpu is None else gpu.cuda_version,
            "search": describe_limits() if self.record.precision == "int8" else None,
        }

    def build(self, request: BuildRequest) -> BuildResult:
        """Makes the graph, builds the engine and proves what it computes in; see `Target.build`."""
        flavour, options = self.flavour, request.options
        trt = import_flavour(flavour)
        with contextlib.ExitStack() as stack:
            gpu = request.machine.gpu
            if not flavour.builds_without_gpu:
                gpu = _require_same_gpu(flavour, stack.enter_context(CudaDevice()), request.machine, options)
            if gpu is None:
                raise ToolchainMissingError("the profile names no NVIDIA GPU to build for")
            rule = _require_covered(flavour, gpu, options)
            graph = _make_graph(self.record.precision, flavour, request)
            settings = _read_settings(flavour, request, gpu)
            cache = _find_cache(trt, gpu) if flavour.has_timing_cache else None
            request.progress(
                f"compiling for compute capability {' and '.join(settings.compute_capabilities)}"
                if flavour.builds_without_gpu
                else f"timing kernels on {gpu.name}"
            )
            built = build_engine(trt, flavour, graph.path, request.signature, settings, cache)
            (request.directory / MODEL_FILE).write_bytes(memoryview(built.plan))
        proof = prove_precision(self.record.precision, self.record.name, built, graph.path, graph.work)
        recipe = {
            **graph.recipe,
            "engine": {
                "flavour": flavour.runtime,
                "version": str(trt.__version__),
                "strongly_typed": True,
                "optimization_profile": built.dynamic,
                "timing_cache": None if cache is None else cache.describe(),
                "memory_bytes": built.memory_bytes,
                "runs_on": rule if isinstance(rule, str) else list(rule),
                **settings.to_dict(),
            },
            "precision_proof": proof,
        }
        return _finish(flavour, graph, built, recipe, gpu, cache)

    @contextlib.contextmanager
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],
        signature: Signature,
        settings: RunSettings,
    ) -> Iterator[Session]:
        """Loads the engine on the first visible GPU; see `Target.load`."""
        from modelwright.targets.tensorrt.session import open_session

        with open_session(self.flavour, directory / model_file, recipe, signature, settings) as session:
            yield session


class TensorrtFp32(_Tensorrt):
    """TensorRT, FP32 without TF32 unless the option asks for it."""

    flavour = CLASSIC
    record = _make_record(CLASSIC, "fp32")


class TensorrtFp16(_Tensorrt):
    """TensorRT, FP16 by AutoCast."""

    flavour = CLASSIC
    record = _make_record(CLASSIC, "fp16")


class TensorrtInt8(_Tensorrt):
    """TensorRT, INT8 by symmetric Q/DQ, the rest in FP16."""

    flavour = CLASSIC
    record = _make_record(CLASSIC, "int8")


class TensorrtRtxFp32(_Tensorrt):
    """TensorRT for RTX, FP32 without TF32 unless the option asks for it."""

    flavour = RTX
    record = _make_record(RTX, "fp32")


class TensorrtRtxFp16(_Tensorrt):
    """TensorRT for RTX, FP16 by AutoCast."""

    flavour = RTX
    record = _make_record(RTX, "fp16")


class TensorrtRtxInt8(_Tensorrt):
    """TensorRT for RTX, INT8 by symmetric Q/DQ, the rest in FP16."""

    flavour = RTX
    record = _make_record(RTX, "int8")


def _make_graph(precision: str, flavour: Flavour, request: BuildRequest) -> PrecisionGraph:
    if precision == "int8":
        return make_int8(request, float_operators=flavour.float_operators)
    return make_fp16(request) if precision == "fp16" else make_fp32(request)


def _check_ahead(flavour: Flavour, machine: Machine) -> Readiness:
    """Says whether the flavour builds ahead of time for the machine's GPU."""
    if machine.gpu is None:
        return Readiness.no(
            f"{flavour.title} builds ahead of time for a GPU, and the profile {machine.name} names none",
            "add a profile with one: --profile rtx-4090",
        )
    if machine.gpu.compute_capability not in flavour.compute_capabilities:
        return Readiness.no(
            f"{flavour.title} does not build for compute capability {machine.gpu.compute_capability} "
            f"({machine.gpu.name})",
            f"it builds for {', '.join(flavour.compute_capabilities)}; for this GPU use the targets of TensorRT",
        )
    return Readiness.yes()


def _check_on_gpu(flavour: Flavour, machine: Machine) -> Readiness:
    """Says whether there is a GPU here to time kernels on, for a machine that has one."""
    if machine.gpu is None:
        return Readiness.no(
            f"{flavour.title} builds on the GPU that it builds for, and the profile {machine.name} names none",
            "run it on that machine with --profile host; tensorrt-rtx-* builds ahead of time without a GPU",
        )
    return _check_driver(flavour)


def _check_driver(flavour: Flavour) -> Readiness:
    status = probe_driver()
    if not status.ok:
        return Readiness.no(status.reason or "CUDA cannot be used", status.hint)
    return check_driver(flavour, status.cuda_version)


def _require_same_gpu(flavour: Flavour, device: CudaDevice, machine: Machine, options: Mapping[str, Any]) -> Gpu:
    """Returns the GPU here, which must be of the kind that the engine is for.

    Raises:
        ToolchainMissingError: It has another compute capability than the profile's.
    """
    wanted = machine.gpu
    rule = find_runnable_capabilities(flavour, str(options.get("hardware-compatible")), device.compute_capability)
    if wanted is not None and not fits_capability(rule, wanted.compute_capability):
        raise ToolchainMissingError(
            f"{flavour.title} builds for the GPU that it runs on: {device.name} here has compute capability "
            f"{device.compute_capability}, and the profile {machine.name} asks for {wanted.compute_capability}",
            hint="build on that machine with --profile host; CUDA_VISIBLE_DEVICES chooses among several GPUs; from 8.0 "
            "on, --option hardware-compatible=ampere-plus makes engines for others",
        )
    here = Gpu(name=device.name, compute_capability=device.compute_capability, memory_bytes=device.memory_info()[1])
    if wanted is None:
        return here
    return replace(here, driver_version=wanted.driver_version, cuda_version=wanted.cuda_version)


def _require_covered(flavour: Flavour, gpu: Gpu, options: Mapping[str, Any]) -> tuple[str, ...] | str:
    """Returns the compute capabilities that the engine will run on, which must be the GPU's too.

    Raises:
        UsageError: The option leaves out the GPU that the engine is for.
    """
    compatible = str(options["hardware-compatible"])
    rule = find_runnable_capabilities(flavour, compatible, gpu.compute_capability)
    if not fits_capability(rule, gpu.compute_capability):
        raise UsageError(
            f"--option hardware-compatible={compatible} makes engines for compute capability "
            f"{describe_capabilities(rule)}, and {gpu.name} has {gpu.compute_capability}",
            hint="leave the option out",
        )
    return rule


def _read_settings(flavour: Flavour, request: BuildRequest, gpu: Gpu) -> EngineSettings:
    options = request.options
    compatible = str(options["hardware-compatible"])
    rule = find_runnable_capabilities(flavour, compatible, gpu.compute_capability)
    return EngineSettings(
        compute_capabilities=tuple(rule) if flavour.builds_without_gpu else (),
        shapes=request.shapes,
        workspace_mb=options["workspace-mb"],
        optimization_level=options["optimization-level"],
        tf32=options["tf32"],
        version_compatible=bool(options.get("version-compatible", False)),
        hardware_compatible=compatible,
    )


def _find_cache(trt: Any, gpu: Gpu) -> TimingCache:
    cuda_version = gpu.cuda_version or probe_driver().cuda_version or "unknown"
    folder = get_cache_folder() / "tensorrt"
    return TimingCache(find_cache_file(folder, str(trt.__version__), gpu.name, gpu.compute_capability, cuda_version))


def _finish(
    flavour: Flavour,
    graph: PrecisionGraph,
    built: BuiltEngine,
    recipe: Mapping[str, Any],
    gpu: Gpu,
    cache: TimingCache | None,
) -> BuildResult:
    engine = recipe["engine"]
    notes = [*graph.notes, *note_shares(recipe["precision"], recipe["precision_proof"])]
    if cache is not None:
        notes += cache.notes
    if engine["tf32"]:
        notes.append("FP32 layers may compute in TF32, as asked for")
    return BuildResult(
        model_file=MODEL_FILE,
        recipe=recipe,
        requires=describe_needs(
            flavour,
            engine["version"],
            gpu,
            hardware_compatible=engine["hardware_compatible"],
            version_compatible=engine["version_compatible"],
            memory_bytes=built.memory_bytes,
        ),
        versions={**graph.versions, **package_versions("onnx", *flavour.distributions)},
        notes=notes,
        emulation=graph.emulation,
    )
