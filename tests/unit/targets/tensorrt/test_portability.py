"""What an engine needs, compared with a machine before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modelwright.core.records.machine import Gpu, Machine
from modelwright.targets.tensorrt.flavours import CLASSIC, RTX, Flavour
from modelwright.targets.tensorrt.portability import check_driver, check_needs, describe_needs

RTX_4090 = Gpu(
    name="NVIDIA GeForce RTX 4090",
    compute_capability="8.9",
    memory_bytes=24 * 10**9,
    driver_version="580.65.06",
    cuda_version="13.0",
)
L4 = Gpu(name="NVIDIA L4", compute_capability="8.9", memory_bytes=24 * 10**9, cuda_version="12.4")
H200 = Gpu(name="NVIDIA H200", compute_capability="9.0", memory_bytes=141 * 10**9, cuda_version="13.0")
SMALL = Gpu(name="NVIDIA Small", compute_capability="8.9", memory_bytes=2 * 10**9, cuda_version="13.0")


def machine_with(gpu: Gpu | None) -> Machine:
    return Machine(name="host", architecture="x86_64", instruction_sets=frozenset({"avx2"}), cores=8, gpu=gpu)


def needs(flavour: Flavour = CLASSIC, **changes: Any) -> dict[str, Any]:
    settings = {"hardware_compatible": "none", "version_compatible": False, "memory_bytes": 3 * 10**9} | changes
    return describe_needs(flavour, "10.13.0.35" if flavour is CLASSIC else "1.7.1.116", RTX_4090, **settings)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, version: str) -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    return make


def test_manifest_says_what_is_needed() -> None:
    assert needs() == {
        "packages": {"tensorrt": "==10.13.0.35"},
        "gpu": {
            "flavour": "tensorrt",
            "name": "NVIDIA GeForce RTX 4090",
            "compute_capability": "8.9",
            "runs_on": ["8.9"],
            "hardware_compatible": "none",
            "driver_version": "580.65.06",
            "cuda_version": "13.0",
            "memory_bytes": 3 * 10**9,
        },
    }
    assert needs(hardware_compatible="ampere-plus")["gpu"]["runs_on"] == ">=8.0"
    assert needs(version_compatible=True)["packages"] == {"tensorrt": ">=10.13.0.35,<12"}
    assert needs(RTX, hardware_compatible="ampere-plus")["gpu"]["runs_on"] == ["8.0", "8.6", "8.9", "12.0", "12.1"]


def test_the_machine_it_was_built_for(install: Any) -> None:
    install("tensorrt", "10.13.0.35")
    readiness = check_needs(CLASSIC, "tensorrt-fp16", needs(), machine_with(RTX_4090))
    assert readiness.ok
    assert readiness.reason is None


def test_another_gpu_of_the_same_capability_runs_with_a_note(install: Any) -> None:
    install("tensorrt", "10.13.0.35")
    readiness = check_needs(CLASSIC, "tensorrt-fp16", needs(), machine_with(L4))
    assert readiness.ok
    assert readiness.reason == (
        "it was built for NVIDIA GeForce RTX 4090; on this NVIDIA L4 NVIDIA warns of lost speed and of errors: build "
        "one for it, or one for all of this compute capability with --option "
        "hardware-compatible=same-compute-capability; "
        "it was built with a driver for CUDA 13.0; this one's is for 12.4"
    )
    shared = needs(hardware_compatible="same-compute-capability")
    told = check_needs(CLASSIC, "tensorrt-fp16", shared, machine_with(L4)).reason
    assert told is not None
    assert "; on this NVIDIA L4 it runs, maybe slower than one of its own; " in told


def test_another_gpu_for_which_kernels_are_compiled_at_load(install: Any) -> None:
    install("tensorrt-rtx", "1.7.1.116")
    readiness = check_needs(RTX, "tensorrt-rtx-fp16", needs(RTX), machine_with(L4))
    assert readiness.reason is not None
    assert "its kernels are compiled for this NVIDIA L4 when it is loaded" in readiness.reason


def test_all_that_does_not_fit_is_told_at_once(install: Any) -> None:
    install("tensorrt", "10.14.1.48")
    requires = needs(memory_bytes=200 * 10**9)
    readiness = check_needs(CLASSIC, "tensorrt-fp16", requires, machine_with(H200))
    assert not readiness.ok
    assert readiness.reason == (
        "it needs TensorRT 10.13.0.35, and 10.14.1.48 is installed; "
        "it was built for NVIDIA GeForce RTX 4090 and runs on compute capability 8.9; this NVIDIA H200 has 9.0; "
        "it takes 200,000 MB of GPU memory; this NVIDIA H200 has 141,000 MB"
    )
    assert readiness.hint == (
        "build it again for this machine: modelwright build ... --target tensorrt-fp16 --profile host"
    )


def test_too_little_memory_alone(install: Any) -> None:
    install("tensorrt", "10.13.0.35")
    readiness = check_needs(CLASSIC, "tensorrt-fp16", needs(), machine_with(SMALL))
    assert readiness.reason == "it takes 3,000 MB of GPU memory; this NVIDIA Small has 2,000 MB"
    assert check_needs(CLASSIC, "tensorrt-fp16", needs(memory_bytes=None), machine_with(SMALL)).ok


def test_machine_without_a_gpu() -> None:
    readiness = check_needs(RTX, "tensorrt-rtx-int8", needs(RTX), machine_with(None))
    assert "it was built for NVIDIA GeForce RTX 4090, and this machine has no NVIDIA GPU" in str(readiness.reason)
    assert readiness.hint == "run it on a machine with a GPU of compute capability 8.9"


@pytest.mark.parametrize(
    "requires",
    [
        {},
        {"gpu": [], "packages": {"tensorrt": "==10.13.0.35"}},
        {"gpu": {"runs_on": "everything"}, "packages": {"tensorrt": "==10.13.0.35"}},
        {"gpu": {"runs_on": [8.9]}, "packages": {"tensorrt": "==10.13.0.35"}},
        {"gpu": {"runs_on": ["8.9"]}, "packages": ["tensorrt"]},
    ],
)
def test_a_manifest_that_was_edited_is_not_believed(requires: Mapping[str, Any]) -> None:
    readiness = check_needs(CLASSIC, "tensorrt-fp16", requires, machine_with(RTX_4090))
    assert readiness.reason == "its manifest does not say which GPU and version it needs"


def test_driver_older_than_the_packages_cuda(install: Any) -> None:
    install("tensorrt-cu13", "10.13.0.35")
    install("tensorrt", "10.13.0.35")
    assert check_driver(CLASSIC, "13.0").ok
    assert check_driver(CLASSIC, None).ok
    readiness = check_driver(CLASSIC, "12.4")
    assert readiness.reason == ("the NVIDIA driver supports CUDA 12.4, and the installed TensorRT is made for CUDA 13")
    assert "-cu12" in str(readiness.hint)


def test_driver_newer_than_the_packages_cuda(install: Any) -> None:
    install("tensorrt-cu12-bindings", "10.13.0.35")
    assert check_driver(CLASSIC, "13.0").ok
