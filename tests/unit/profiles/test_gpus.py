"""Asking the driver, with a driver made of Python: what it says, and what happens when it fails."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from modelwright.profiles import gpus
from modelwright.profiles.gpus import GpuProbe, probe_gpus

CARDS = [("NVIDIA H200", (9, 0), 143771 * 2**20), ("Tesla T4", (7, 5), 15360 * 2**20)]


class FakeNvml:
    """The calls that the probe makes, over `CARDS`; handles are indices plus one."""

    def __init__(self, *, init: int = 0, power: int = 0, memory: int = 0) -> None:
        self.results = {"init": init, "power": power, "memory": memory}
        self.shutdowns = 0

    def nvmlInit_v2(self) -> int:  # noqa: N802 - the driver's name
        return self.results["init"]

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.shutdowns += 1
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(CARDS)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, device: Any) -> int:  # noqa: N802
        device._obj.value = index.value + 1
        return 0

    def nvmlDeviceGetName(self, device: Any, name: Any, size: Any) -> int:  # noqa: N802
        assert size.value == len(name)
        name.value = CARDS[device.value - 1][0].encode()
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, device: Any, major: Any, minor: Any) -> int:  # noqa: N802
        major._obj.value, minor._obj.value = CARDS[device.value - 1][1]
        return 0

    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:  # noqa: N802
        memory._obj.total = CARDS[device.value - 1][2]
        return self.results["memory"]

    def nvmlDeviceGetPowerUsage(self, device: Any, power: Any) -> int:  # noqa: N802
        power._obj.value = 80_000
        return self.results["power"]


def install(monkeypatch: pytest.MonkeyPatch, nvml: object | None, visible: str | None = None) -> None:
    monkeypatch.setattr(gpus, "_load", lambda names: nvml if "nvml" in names[0] or "nvidia-ml" in names[0] else None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


def test_the_driver_tells_name_capability_memory_and_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    install(monkeypatch, nvml)
    probe = probe_gpus()
    assert [card.name for card in probe.accelerators] == ["NVIDIA H200", "Tesla T4"]
    assert [card.compute_capability for card in probe.accelerators] == ["9.0", "7.5"]
    assert probe.accelerators[0].memory_bytes == 143771 * 2**20
    assert probe.has_power_meter
    assert nvml.shutdowns == 1


def test_hidden_gpus_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml(), visible="1")
    assert [card.name for card in probe_gpus().accelerators] == ["Tesla T4"]
    install(monkeypatch, FakeNvml(), visible="")
    assert probe_gpus() == GpuProbe()
    install(monkeypatch, FakeNvml(), visible="-1")
    assert probe_gpus() == GpuProbe()


def test_what_the_driver_does_not_tell_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml(power=3, memory=3))
    probe = probe_gpus()
    assert probe.accelerators[0].memory_bytes is None
    assert not probe.has_power_meter


@pytest.mark.parametrize("nvml", [None, FakeNvml(init=9), object()], ids=["absent", "not loaded", "too old"])
def test_a_missing_or_broken_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch, nvml: object | None) -> None:
    install(monkeypatch, nvml)
    assert probe_gpus() == GpuProbe()


def test_a_library_that_does_not_load_is_absent() -> None:
    assert gpus._load(("libmodelwright-does-not-exist.so.1",)) is None
