"""NVML, the energy meter and the watch on a real GPU: `pytest -m gpu`. Contexts live in child processes."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError, ToolchainMissingError
from modelwright.core.nvidia.nvml import THROTTLING, Nvml, NvmlDevice
from modelwright.core.nvidia.probe import probe_driver
from modelwright.core.process.child import Child, run_in_child
from modelwright.harness.meters.gpu_energy import (
    EnergyWindow,
    NvmlMeter,
    describe_gpu_energy,
    measure_idle,
    meter_energy,
)
from modelwright.harness.meters.gpu_watch import HIDDEN_PIDS, GpuWatch, WindowOnGpu, read_own_bytes, summarize
from modelwright.profiles.gpus import probe_gpus

pytestmark = pytest.mark.gpu

HERE = "nvml_checks"
HELD_BYTES = 256 << 20


@pytest.fixture(autouse=True)
def _children_find_this_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


@pytest.fixture
def uuid() -> str:
    """Of the card that CUDA takes; skips where there is none."""
    status = probe_driver()
    if not status.ok:
        pytest.skip(f"needs an NVIDIA GPU: {status.reason}")
    found = run_in_child(
        "modelwright.harness.meters.gpu_bench:find_uuid_in_child", {}, purpose="asking CUDA", timeout_s=120
    )
    return str(found)


@pytest.fixture
def card(uuid: str) -> Iterator[NvmlDevice]:
    try:
        with Nvml() as nvml:
            yield nvml.device_by_uuid(uuid)
    except ToolchainMissingError as error:
        pytest.skip(f"needs NVML: {error.message}")


@pytest.fixture
def meter(uuid: str) -> Iterator[NvmlMeter]:
    try:
        with NvmlMeter(uuid) as opened:
            yield opened
    except ModelwrightError as error:
        pytest.skip(f"needs a card with a meter: {error.message}")


@pytest.fixture
def child() -> Iterator[Child]:
    with Child("using the GPU", crash_error=MeasurementInvalidError) as started:
        yield started


def test_detection_nvml_and_cuda_speak_of_the_same_card(card: NvmlDevice, uuid: str) -> None:
    probe = probe_gpus()
    assert card.uuid == uuid
    # Of several cards that differ, only CUDA knows which comes first.
    if len({accelerator.name for accelerator in probe.accelerators}) == 1:
        first = probe.accelerators[0]
        assert (first.name, first.compute_capability) == (card.name, card.compute_capability)
        assert first.driver_version
        assert first.cuda_version == probe_driver().cuda_version


def test_every_reading_is_plausible_or_has_a_reason(card: NvmlDevice) -> None:
    readings = {
        "energy_j": (card.energy_j(), 0, 1e12),
        "power_w": (card.power_w(), 1, 3000),
        "temperature_c": (card.temperature_c(), 1, 120),
        "clocks_mhz.sm": (card.clocks_mhz()["sm"], 1, 10_000),
        "clocks_mhz.memory": (card.clocks_mhz()["memory"], 1, 30_000),
        "memory_bytes": (card.memory_bytes, 1 << 30, 1 << 42),
    }
    for name, (value, low, high) in readings.items():
        assert value is not None or card.unavailable[name], name
        assert value is None or low <= value <= high, name
    assert card.throttle_reasons() is not None or card.unavailable["throttle_reasons"]
    assert card.throttled_ns() is not None or card.unavailable["throttled_ns"]


def test_a_process_has_its_memory_on_the_card_or_the_reason_why_not(card: NvmlDevice, child: Child) -> None:
    watch = GpuWatch(card)
    assert child.call(f"{HERE}:hold", {"size_bytes": HELD_BYTES}, timeout_s=120) == card.uuid
    used_bytes, reason = read_own_bytes(watch.observe({child.pid}), child.pid)
    if used_bytes is None:
        assert reason == HIDDEN_PIDS or reason == card.unavailable.get("processes") or "does not tell" in str(reason)
    else:
        # The context itself takes some hundred MB more.
        assert HELD_BYTES <= used_bytes <= HELD_BYTES + (4 << 30)


def test_the_counter_agrees_with_the_power_sensor(meter: NvmlMeter, card: NvmlDevice) -> None:
    """Two independent readings of an idle card."""
    readings: list[float] = []

    def wait(seconds: float) -> None:
        for _ in range(20):
            time.sleep(seconds / 20)
            power_w = card.power_w()
            readings.extend([] if power_w is None else [power_w])

    if not meter.counts or card.power_w() is None:
        pytest.skip(f"needs a card with both: {dict(card.unavailable)}")
    idle_w = measure_idle(meter, wait=wait)
    assert isinstance(idle_w, float), idle_w
    assert idle_w == pytest.approx(sum(readings) / len(readings), rel=0.3, abs=5)


def test_work_draws_more_than_idleness_and_keeps_the_clocks_up(
    meter: NvmlMeter, card: NvmlDevice, child: Child
) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs PyTorch")
    if not child.call(f"{HERE}:is_cuda_seen_by_torch", {}, timeout_s=120):
        pytest.skip("needs a PyTorch that sees the GPU; this one is built for the CPU, or for another driver")
    idle_w = measure_idle(meter)
    assert isinstance(idle_w, float), idle_w
    watch = GpuWatch(card)
    windows: list[WindowOnGpu] = []

    def run_for(seconds: float) -> tuple[int, float]:
        before = watch.observe({child.pid})
        count, elapsed_s = child.call(f"{HERE}:multiply", {"duration_s": seconds}, timeout_s=seconds + 120)
        windows.append(WindowOnGpu(before=before, after=watch.observe({child.pid})))
        return int(count), elapsed_s

    run_for(0.1)  # starts PyTorch's context, which is no work of the matrices
    windows.clear()
    window = meter_energy(meter, run_for)
    assert isinstance(window, EnergyWindow), window
    assert window.metered_s >= 10
    assert window.steps >= 100
    assert window.mean_power_w > idle_w
    record = describe_gpu_energy(window, idle_w)
    assert record["source"] in ("measured:nvml", "measured:nvml-power")
    assert 0 < record["above_idle_per_inference_j"] < record["per_inference_j"]
    summary = summarize(windows)
    assert summary["windows"] == len(windows)
    if summary["sm_clock_mhz"] is None:
        assert summary["unavailable"]["clocks_mhz.sm"]
    else:
        assert summary["sm_clock_mhz"]["max"] > 0
    assert set(summary["throttle_reasons"]) <= set(THROTTLING)
    if summary["throttled_share"] is None:
        assert summary["unavailable"]["throttle_reasons"]
    else:
        assert 0 <= summary["throttled_share"] <= 1
