"""What the PyTorch targets say of a machine and of an artifact, without importing torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.machine import Gpu, Machine
from modelwright.core.records.signature import Signature
from modelwright.targets.contract import BuildRequest
from modelwright.targets.pytorch import target as pytorch

TARGETS = (
    pytorch.TorchFp32,
    pytorch.TorchFp16,
    pytorch.TorchBf16,
    pytorch.TorchCompileFp32,
    pytorch.TorchCompileFp16,
    pytorch.TorchCompileBf16,
)
PLAIN = Machine(name="box", architecture="x86_64", instruction_sets=frozenset({"avx2"}), cores=2)
WITH_GPU = replace(PLAIN, gpu=Gpu(name="NVIDIA H200", compute_capability="9.0"))


def pretend_torch(monkeypatch: pytest.MonkeyPatch, folder: Path, *, version: str, cuda: str | None) -> None:
    """Makes the checks find an installed torch with these facts; nothing of it can be imported."""
    package = folder / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    (package / "version.py").write_text(
        f"from typing import Optional\n__version__ = {version!r}\ncuda: Optional[str] = {cuda!r}\nhip = None\n"
    )
    meta = folder / f"torch-{version}.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def test_records() -> None:
    names = [target.record.name for target in TARGETS]
    assert names == [f"{kind}-{bits}" for kind in ("torch", "torch-compile") for bits in ("fp32", "fp16", "bf16")]
    for target in TARGETS:
        assert target.record.devices == ("cuda", "cpu")
        assert target.record.uses_program
        assert target.record.is_float
        assert target.compiled == target.record.runtime.endswith("compile")


def test_importing_the_targets_loads_no_torch() -> None:
    code = "import sys, modelwright.targets.pytorch.target as p; p.find_cuda_build(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("cuda", "machine", "wanted", "device"),
    [
        ("13.0", WITH_GPU, None, "cuda"),
        ("13.0", WITH_GPU, "cpu", "cpu"),
        ("13.0", PLAIN, None, "cpu"),
        (None, WITH_GPU, None, "cpu"),  # a CPU build of torch on a machine with a GPU
        (None, WITH_GPU, "cuda", "cuda"),  # asked for by name: loading says what is missing
    ],
)
def test_device_is_the_gpu_where_torch_was_built_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: str | None, machine: Machine, wanted: str | None, device: str
) -> None:
    pretend_torch(monkeypatch, tmp_path, version="2.13.0+cu130", cuda=cuda)
    assert pytorch.find_cuda_build() == cuda
    assert pytorch.TorchFp16().choose_device(machine, wanted) == device


@pytest.mark.parametrize(("version", "safe"), [("2.9.1", False), ("2.10.0+cu128", True), ("3.0.0", True)])
def test_a_torch_that_reads_programs_unsafely_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, safe: bool
) -> None:
    pretend_torch(monkeypatch, tmp_path, version=version, cuda=None)
    here = replace(PLAIN, architecture=os.uname().machine)
    for readiness in (pytorch.TorchFp32().check_build(here), pytorch.TorchFp32().check_run(here)):
        assert readiness.ok == safe
        assert safe or "unsafely" in readiness.reason


@pytest.mark.parametrize(("made", "fits"), [("2.9", True), ("2.10", True), ("2.13", True), ("2.14", False)])
def test_a_program_of_a_newer_torch_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: str, fits: bool
) -> None:
    pretend_torch(monkeypatch, tmp_path, version="2.13.1+cpu", cuda=None)
    readiness = pytorch.TorchFp32().check_artifact({"packages": {"torch": f">={made}"}}, PLAIN)
    assert readiness.ok == fits
    assert fits or readiness.reason == "it needs torch >=2.14, and 2.13.1+cpu is installed"


def test_compiling_needs_a_compiler_and_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    readiness = pytorch.check_compiler()
    assert not readiness.ok
    assert "needs a C++ compiler, and g++ is not there" in readiness.reason
    compiler = tmp_path / "my-compiler"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", "my-compiler")
    monkeypatch.setattr(pytorch, "sysconfig", SimpleNamespace(get_path=lambda _: str(tmp_path)))
    assert "needs Python's headers" in pytorch.check_compiler().reason
    (tmp_path / "Python.h").touch()
    assert pytorch.check_compiler().ok


def test_an_onnx_source_has_no_program(tmp_path: Path) -> None:
    request = BuildRequest(
        model_path=tmp_path / "m.onnx", signature=Signature(inputs=(), outputs=()), directory=tmp_path, machine=PLAIN,
        calibration=None, tuning=None, reference=None, scratch=tmp_path, shared=tmp_path, progress=print,
    )  # fmt: skip
    with pytest.raises(BuildFailedError, match="torch-fp16 needs the PyTorch source, and this source is ONNX"):
        pytorch.TorchFp16().build(request)


@pytest.mark.parametrize(
    ("cuda", "machine", "words"),
    [
        ("13.0", WITH_GPU, []),
        (None, WITH_GPU, ["built without CUDA and runs this program on the CPU", "box has no FP16 arithmetic"]),
        (None, PLAIN, ["box has no FP16 arithmetic"]),
        (None, replace(PLAIN, instruction_sets=frozenset({"avx512_fp16"})), []),
    ],
)
def test_what_makes_it_slow_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: str | None, machine: Machine, words: list[str]
) -> None:
    pretend_torch(monkeypatch, tmp_path, version="2.13.0", cuda=cuda)
    notes = pytorch._note_speed("fp16", machine)
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True)), notes
