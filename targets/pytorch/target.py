"""PyTorch itself: the program that the user has today, so that a speed-up is one over that.

Six targets share one artifact, a saved `torch.export` program: eager or compiled, in FP32, FP16 or BF16. They run on
the CPU and on NVIDIA GPUs; the device is chosen at load, as the harness asks.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature
from modelwright.core.versions import is_at_least, parse_version
from modelwright.targets.contract import (
    BuildRequest,
    BuildResult,
    Device,
    Language,
    RunSettings,
    Session,
    Target,
    TargetRecord,
)
from modelwright.targets.pytorch.eager import make_examples, restore_eager_speed
from modelwright.targets.pytorch.precision import count_bytes, count_compute, name_operator
from modelwright.targets.pytorch.program import (
    LEAST_TORCH,
    import_torch,
    list_example_shapes,
    load_module,
    lower_program,
    save_program,
)
from modelwright.targets.pytorch.session import TorchCudaSession, TorchSession, apply_settings
from modelwright.targets.pytorch.settings import COMPILED_SETTINGS, SETTINGS, place_weights
from modelwright.targets.pytorch.snippet import write_python
from modelwright.targets.readiness import Readiness, package_versions

MODEL_FILE = "program.pt2"
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_FAST_INSTRUCTION_SETS = {
    "fp16": frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
    "bf16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
}
"""Without one of them, a CPU converts each value to FP32 and back."""
_BF16_CAPABILITY = "8.0"
"""Of Ampere; older GPUs emulate BF16."""
_PACKAGES = {"torch": f"torch>={LEAST_TORCH}"}


class _TorchTarget(Target):
    """What the six have in common."""

    compiled: ClassVar[bool] = False

    def suits(self, machine: Machine) -> bool:
        """On GPUs, BF16 where it is not emulated; eager FP32 on PCs too: what the user has before any other target."""
        if machine.gpu is None:
            return machine.architecture == "x86_64" and self.record.precision == "fp32" and not self.compiled
        return self.record.precision != "bf16" or is_at_least(machine.gpu.compute_capability, _BF16_CAPABILITY)

    def check_build(self, machine: Machine) -> Readiness:
        readiness = check_version()  # says more than that it is too old
        return super().check_build(machine) if readiness.ok else readiness

    def check_run(self, machine: Machine) -> Readiness:
        for readiness in (check_version(), super().check_run(machine)):
            if not readiness.ok:
                return readiness
        return check_compiler() if self.compiled else Readiness.yes()

    def choose_device(self, machine: Machine, wanted: Device | None = None) -> Device:
        """Prefers the GPU only where the installed torch was built for it."""
        if wanted is None and find_cuda_build() is None:
            return "cpu"
        return super().choose_device(machine, wanted)

    def build(self, request: BuildRequest) -> BuildResult:
        """Captures the program again in this precision; see `Target.build`."""
        record = self.record
        if request.program_path is None:
            raise BuildFailedError(
                f"{record.name} needs the PyTorch source, and this source is ONNX",
                hint="give file.py:factory or model.pt2 as the source",
            )
        torch = import_torch()
        request.progress(f"capturing the program in {record.precision}")
        dtype = None if record.precision == "fp32" else getattr(torch, _DTYPES[record.precision])
        program = lower_program(torch, request.program_path, request.signature, dtype)
        computed = count_compute(torch, program.graph_module)
        if dtype is not None and not computed.get(_DTYPES[record.precision]):
            raise BuildFailedError(
                f"{record.name} was asked for, but the model has no operator that computes in {record.precision}: "
                f"no convolution, matrix product or recurrent layer",
                hint=f"use {record.runtime}-fp32",
            )
        save_program(torch, program, request.directory / MODEL_FILE)
        version = parse_version(str(torch.__version__))
        return BuildResult(
            model_file=MODEL_FILE,
            recipe={
                "method": "as captured" if dtype is None else "casts in the graph, around operators that multiply",
                "precision": record.precision,
                "execution": "torch.compile, default mode" if self.compiled else "eager",
                "tf32": False,
                "compute_operators": computed,
                "weight_bytes": count_bytes(list(program.state_dict.values())),
                "float32_operators": _list_float32(torch, program) if dtype is not None else None,
                "example_shapes": list_example_shapes(torch, program, request.signature),
            },
            requires={"packages": {"torch": f">={version.major}.{version.minor}"}},
            versions=package_versions("torch", "triton"),
            notes=_note_speed(record.precision, request.machine),
        )

    @contextlib.contextmanager
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],
        signature: Signature,
        settings: RunSettings,
    ) -> Iterator[Session]:
        """Loads the program on the device and compiles it there where that is asked for; see `Target.load`."""
        torch = import_torch()
        apply_settings(torch, settings, compiled=self.compiled)
        module = place_weights(torch, load_module(torch, directory / model_file, settings.device), settings.options)
        kind = TorchCudaSession if settings.device == "cuda" else TorchSession
        # Entered once and for all calls: entering it costs some microseconds.
        with torch.inference_mode():
            calls = None
            if not self.compiled:
                examples = make_examples(torch, signature, recipe.get("example_shapes", {}), settings.device)
                module, calls = restore_eager_speed(torch, module, examples)
            session = kind(torch, module, signature, settings, compiled=self.compiled, calls=calls)
            try:
                session.compile_for(recipe.get("example_shapes", {}))
                yield session
            finally:
                session.close()

    def write_snippet(
        self,
        language: Language,
        model_file: str,
        recipe: Mapping[str, Any],  # noqa: ARG002
        signature: Signature,
        settings: RunSettings,
    ) -> str | None:
        """Returns a program in Python: what PyTorch saves needs Python to run."""
        return write_python(model_file, signature, settings, compiled=self.compiled) if language == "python" else None


def check_version() -> Readiness:
    """Says whether the installed torch reads saved programs safely."""
    found = package_versions("torch").get("torch")
    if found is not None and not is_at_least(found, LEAST_TORCH):
        return Readiness.no(f"torch {found} reads saved programs unsafely", f"pip install 'torch>={LEAST_TORCH}'")
    return Readiness.yes()


def check_compiler() -> Readiness:
    """Says whether `torch.compile` finds what it compiles with: it generates C++, on a GPU beside Triton's kernels."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return Readiness.no(
            f"torch.compile needs a C++ compiler, and {compiler} is not there",
            "install one (apt-get install g++), or name it in CXX",
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        return Readiness.no(
            f"torch.compile needs Python's headers, and {header} is not there", "apt-get install python3-dev"
        )
    return Readiness.yes()


def find_cuda_build() -> str | None:
    """Returns the CUDA version that the installed torch was built for, without importing it; None for a CPU build."""
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("version.py")
    try:
        found = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1] if found else None


def _list_float32(torch: Any, program: Any) -> list[str]:
    """Returns the operators, views and casts aside, that a lowered program runs in float32."""
    names = set()
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            names.add(name_operator(node.target))
    return sorted(names - {"getitem", "to", "view", "reshape", "unsqueeze", "slice", "expand", "permute", "transpose"})


def _note_speed(precision: str, machine: Machine) -> list[str]:
    """Returns what makes it slower than it might be: a torch without CUDA, a CPU without the precision."""
    notes = []
    if machine.gpu is not None:
        if find_cuda_build() is not None:
            return []
        notes.append(
            "the torch that is installed here is built without CUDA and runs this program on the CPU; one that is "
            f"built with it runs it on {machine.gpu.name}"
        )
    fast = _FAST_INSTRUCTION_SETS.get(precision)
    if fast is not None and not machine.instruction_sets & fast:
        notes.append(f"{machine.name} has no {precision.upper()} arithmetic: PyTorch runs it slower than FP32 there")
    return notes


def _describe(precision: str, *, compiled: bool) -> TargetRecord:
    runtime = "torch-compile" if compiled else "torch"
    return TargetRecord(
        name=f"{runtime}-{precision}",
        runtime=runtime,
        precision=precision,
        title=f"PyTorch{' compiled' if compiled else ''} {precision.upper()}",
        is_float=True,
        needs_calibration=False,
        build_packages=_PACKAGES,
        run_packages=_PACKAGES,
        build_extra="torch",
        run_extra="torch-run",
        devices=("cuda", "cpu"),
        uses_program=True,
        # The second is how cuBLAS and cuDNN say it, which PyTorch calls.
        memory_words=("outofmemory", "alloc_failed"),
        settings=COMPILED_SETTINGS if compiled else SETTINGS,
        has_profiler=not compiled,  # what the compiler made of operators, its profiler does not name
    )


class TorchFp32(_TorchTarget):
    """As captured, eager."""

    record = _describe("fp32", compiled=False)


class TorchFp16(_TorchTarget):
    """Matrix products and convolutions in FP16, eager."""

    record = _describe("fp16", compiled=False)


class TorchBf16(_TorchTarget):
    """Matrix products and convolutions in BF16, eager."""

    record = _describe("bf16", compiled=False)


class TorchCompileFp32(_TorchTarget):
    """As captured, compiled."""

    record = _describe("fp32", compiled=True)
    compiled = True


class TorchCompileFp16(_TorchTarget):
    """Matrix products and convolutions in FP16, compiled."""

    record = _describe("fp16", compiled=True)
    compiled = True


class TorchCompileBf16(_TorchTarget):
    """Matrix products and convolutions in BF16, compiled."""

    record = _describe("bf16", compiled=True)
    compiled = True
