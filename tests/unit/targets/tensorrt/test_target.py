"""The six targets: their records, and what they say of machines, without the vendor's packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.core.records.machine import Gpu, Machine, normalize_architecture
from modelwright.targets.tensorrt import target as tensorrt

CLASSES = (
    tensorrt.TensorrtFp32,
    tensorrt.TensorrtFp16,
    tensorrt.TensorrtInt8,
    tensorrt.TensorrtRtxFp32,
    tensorrt.TensorrtRtxFp16,
    tensorrt.TensorrtRtxInt8,
)


def machine_with(capability: str | None) -> Machine:
    import platform

    gpu = None if capability is None else Gpu(name=f"GPU of {capability}", compute_capability=capability)
    here = normalize_architecture(platform.machine())
    return Machine(name="made-up", architecture=here, instruction_sets=frozenset({"avx2"}), cores=4, gpu=gpu)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes all packages look installed, whether they are or not; nothing of them is imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for distribution, version, module in (
        ("tensorrt", "10.13.0.35", "tensorrt"),
        ("tensorrt-rtx", "1.7.1.116", "tensorrt_rtx"),
        ("nvidia-modelopt", "0.47.0", "modelopt"),
    ):
        folder = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (tmp_path / f"{module}.py").write_text("raise SystemExit('a check imported a vendor package')")


@pytest.mark.parametrize("target", CLASSES)
def test_records(target: type) -> None:
    record = target.record
    assert record.name == f"{target.flavour.runtime}-{record.precision}"
    assert record.devices == ("cuda",)
    assert record.uses_shapes
    assert record.uses_gpu
    assert not record.build_anywhere
    assert record.needs_calibration == (record.precision == "int8")
    assert record.uses_samples == (record.precision != "fp32")
    assert ("modelopt" in record.build_packages) == (record.precision != "fp32")
    assert "modelopt" not in record.run_packages
    assert {option.name: option.default for option in record.options}["tf32"] is False


@pytest.mark.parametrize("target", CLASSES[3:])
def test_rtx_builds_ahead_of_time_for_a_profile_with_a_gpu(target: type, packages: None) -> None:
    assert target().check_build(machine_with("8.9")).ok
    without = target().check_build(machine_with(None))
    assert without.reason == ("TensorRT for RTX builds ahead of time for a GPU, and the profile made-up names none")
    assert without.hint == "add a profile with one: --profile rtx-4090"
    hopper = target().check_build(machine_with("9.0"))
    assert "does not build for compute capability 9.0 (GPU of 9.0)" in str(hopper.reason)
    assert "7.5, 8.0, 8.6, 8.9, 12.0, 12.1" in str(hopper.hint)


@pytest.mark.parametrize("target", CLASSES[:3])
def test_classic_builds_on_the_gpu_that_it_is_for(target: type, packages: None) -> None:
    readiness = target().check_build(machine_with(None))
    assert "the profile made-up names none" in str(readiness.reason)
    assert "--profile host" in str(readiness.hint)


@pytest.mark.parametrize("target", CLASSES)
def test_engines_run_on_the_architecture_they_are_for(target: type, packages: None) -> None:
    other = Machine(name="other", architecture="riscv64", instruction_sets=frozenset(), cores=1)
    assert "another machine" in str(target().check_run(other).reason)
    assert "only on the architecture" in str(target().check_build(other).reason)


def test_missing_packages_are_told_first() -> None:
    from importlib.util import find_spec

    if find_spec("tensorrt") is not None:
        pytest.skip("NVIDIA TensorRT is installed here")
    readiness = tensorrt.TensorrtFp16().check_run(machine_with("8.9"))
    assert readiness.reason == "package tensorrt>=10.12 is not installed"
    assert "[tensorrt-run]" in str(readiness.hint)
