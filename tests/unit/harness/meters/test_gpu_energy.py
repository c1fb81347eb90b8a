"""A GPU's energy, by a scripted board: a clock that only moves when told, a counter that steps every 0.1 s."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_driver.build import build_fake_driver, use_fake_nvml

from modelwright.core.errors import MeasurementInvalidError, ToolchainMissingError
from modelwright.harness.meters.gpu_bench import GpuBench
from modelwright.harness.meters.gpu_energy import (
    POWER_INTERVAL_S,
    SAMPLING_S,
    EnergyWindow,
    MeterFailedError,
    NvmlMeter,
    describe_gpu_energy,
    find_steps,
    measure_idle,
    meter_energy,
    sample_while,
)
from modelwright.harness.meters.power_model import estimate_energy
from modelwright.harness.meters.power_samples import Sample
from modelwright.profiles import load_profile


class Board:
    """A card of known power: `busy_w` while something runs, `idle_w` else. Its counter moves in steps."""

    scope = "GPU board"

    def __init__(self, *, busy_w: float = 200.0, idle_w: float = 50.0, step_s: float = 0.1, counts: bool = True):
        self.name = "nvml" if counts else "nvml-power"
        self.counts = counts
        self.now_s = 1000.0371
        self.busy_w, self.idle_w, self.step_s = busy_w, idle_w, step_s
        self.used: list[tuple[float, float]] = []
        self.asked_s: list[float] = []
        self.tail_s = 0.0

    def read(self) -> float:
        if not self.counts:
            return self._power_at(self.now_s)
        steps = math.floor(self.now_s / self.step_s) if self.step_s else 0
        return self._energy_at(steps * self.step_s)

    def run_for(self, seconds: float) -> tuple[int, float]:
        """An artifact of 4 ms an inference."""
        self.asked_s.append(seconds)
        self.used.append((self.now_s, self.now_s + seconds))
        self.now_s += seconds + self.tail_s
        return round(seconds / 0.004), seconds

    def sample(
        self, read: Callable[[], float], run: Callable[[], tuple[int, float]]
    ) -> tuple[tuple[int, float], list[Sample]]:
        start_s = self.now_s
        result = run()
        end_s = self.now_s
        samples = []
        for index in range(int((end_s - start_s) / SAMPLING_S) + 1):
            self.now_s = start_s + index * SAMPLING_S
            samples.append(Sample(self.now_s, read()))
        self.now_s = end_s
        return result, samples

    def _power_at(self, at_s: float) -> float:
        return self.busy_w if any(start <= at_s <= end for start, end in self.used) else self.idle_w

    def _energy_at(self, at_s: float) -> float:
        busy_s = sum(min(at_s, end) - start for start, end in self.used if at_s > start)
        return self.idle_w * at_s + (self.busy_w - self.idle_w) * busy_s


def metered(found: EnergyWindow | str) -> EnergyWindow:
    assert isinstance(found, EnergyWindow), found
    return found


def test_the_power_is_right_within_the_resolution_that_is_promised() -> None:
    board = Board()
    window = metered(meter_energy(board, board.run_for, sample=board.sample))
    assert window.mean_power_w == pytest.approx(200, rel=0.002)
    assert window.per_inference_j == pytest.approx(200 * 0.004, rel=0.002)
    assert window.metered_s >= 10
    assert window.steps >= 100
    assert (window.source, window.scope) == ("measured:nvml", "GPU board")
    assert len(board.asked_s) == 1
    power = describe_gpu_energy(window, None).power
    assert power is not None
    assert power.count == pytest.approx(window.metered_s / POWER_INTERVAL_S, abs=1)
    assert power.min_w == pytest.approx(200, rel=0.025), "a step is seen up to 0.01 s late"
    assert power.max_w == pytest.approx(200, rel=0.025)


def test_a_slow_counter_gets_a_longer_window() -> None:
    board = Board(step_s=0.4)
    window = metered(meter_energy(board, board.run_for, sample=board.sample))
    assert len(board.asked_s) == 2
    assert sum(board.asked_s) <= 60
    assert window.steps >= 100
    assert window.mean_power_w == pytest.approx(200, rel=0.005)
    assert window.inferences == sum(round(seconds / 0.004) for seconds in board.asked_s)


def test_a_counter_that_would_take_minutes_is_given_up() -> None:
    board = Board(step_s=2.0)
    found = meter_energy(board, board.run_for, sample=board.sample)
    assert isinstance(found, str)
    assert "moved 4 times in 8 s" in found
    assert len(board.asked_s) == 1


def test_a_counter_that_stands_still_is_a_reason() -> None:
    board = Board(step_s=0)
    assert meter_energy(board, board.run_for, sample=board.sample) == ("the GPU's energy counter did not move in 11 s")


def test_what_comes_after_the_last_inference_does_not_count() -> None:
    """Results travel back to the parent while the card idles; that is not the artifact's power."""
    board = Board(busy_w=300, idle_w=0)
    board.tail_s = 3.0
    window = metered(meter_energy(board, board.run_for, sample=board.sample))
    assert window.mean_power_w == pytest.approx(300, rel=0.002)


def test_without_a_counter_power_is_integrated_and_the_source_says_so() -> None:
    board = Board(counts=False)
    window = metered(meter_energy(board, board.run_for, sample=board.sample))
    assert window.source == "measured:nvml-power"
    assert window.mean_power_w == pytest.approx(200)
    assert window.metered_s >= 10
    assert [power.watts for power in window.power] == pytest.approx([200.0] * len(window.power))
    assert len(window.power) >= 19


def test_idle_is_metered_in_a_window_of_the_same_kind() -> None:
    board = Board(idle_w=43.5)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        board.now_s += seconds

    assert measure_idle(board, wait=wait, sample=board.sample) == pytest.approx(43.5, rel=0.002)
    assert waited[0] >= 10
    assert "did not move" in str(measure_idle(Board(step_s=0), wait=wait, sample=board.sample))


def test_an_artifact_that_ends_no_inference_has_no_energy() -> None:
    board = Board()

    def run_for(seconds: float) -> tuple[int, float]:
        board.now_s += seconds
        return 0, seconds

    assert meter_energy(board, run_for, sample=board.sample) == "no inference ended in 11 s"


def test_the_record_tells_the_idle_share_apart() -> None:
    window = EnergyWindow(
        mean_power_w=200.0, metered_s=10.2, steps=102, inferences=2750, elapsed_s=11.0, source="measured:nvml",
        scope="GPU board",
    )  # fmt: skip
    record = describe_gpu_energy(window, 50.0, 80.0)
    assert record.per_inference_j == pytest.approx(0.8)
    assert record.above_idle_per_inference_j == pytest.approx(0.6)
    assert (record.idle_power_w, record.loaded_idle_power_w) == (50.0, 80.0)
    assert (record.counter_steps, record.source, record.scope) == (102, "measured:nvml", "GPU board")
    assert describe_gpu_energy(window, None).above_idle_per_inference_j is None
    nothing = describe_gpu_energy("the counter stood still", 50.0)
    assert nothing.per_inference_j is None
    assert nothing.reason == "the counter stood still"


def test_steps_are_seen_when_the_counter_moves() -> None:
    looks = [Sample(0.0, 5.0), Sample(0.1, 5.0), Sample(0.2, 7.0), Sample(0.3, 7.0), Sample(0.4, 8.0)]
    assert find_steps(looks) == [Sample(0.2, 7.0), Sample(0.4, 8.0)]


def test_the_meter_is_looked_at_while_the_work_runs() -> None:
    seen = threading.Event()
    values = iter(range(10**6))

    def read() -> float:
        value = next(values)
        if value == 3:
            seen.set()
        return float(value)

    def run() -> tuple[int, float]:
        assert seen.wait(timeout=60), "looked at four times while this runs"
        return 7, 1.0

    result, samples = sample_while(read, run)
    assert result == (7, 1.0)
    assert [sample.value for sample in samples[:4]] == [0, 1, 2, 3]
    assert [sample.at_s for sample in samples] == sorted(sample.at_s for sample in samples)


def test_a_meter_that_fails_in_the_middle_is_an_error() -> None:
    failed = threading.Event()
    values = iter([1.0])

    def read() -> float:
        value = next(values, None)
        if value is None:
            failed.set()
            raise MeasurementInvalidError("the GPU is gone")
        return value

    with pytest.raises(MeasurementInvalidError, match="the GPU is gone"):
        sample_while(read, lambda: (int(failed.wait(timeout=60)), 1.0))


def test_the_meter_takes_what_the_card_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_nvml(monkeypatch, build_fake_driver(tmp_path) / "libnvidia-ml.so.1")
    for name in [name for name in os.environ if name.startswith("FAKE_")]:
        monkeypatch.delenv(name)
    uuid = "GPU-00112233-4455-6677-8899-aabbccddeeff"
    with NvmlMeter(uuid) as meter:
        assert (meter.name, meter.scope, meter.counts) == ("nvml", "GPU board", True)
        assert meter.read() > 0
        monkeypatch.setenv("FAKE_NVML_NOT_SUPPORTED", "energy")
        with pytest.raises(MeasurementInvalidError, match="stopped"):
            meter.read()
    with NvmlMeter(uuid) as meter:
        assert (meter.name, meter.read()) == ("nvml-power", 80.0)
    monkeypatch.setenv("FAKE_NVML_NOT_SUPPORTED", "energy,power")
    with pytest.raises(ToolchainMissingError, match="neither energy nor power"), NvmlMeter(uuid):
        pass
    with pytest.raises(MeasurementInvalidError, match="does not find"), NvmlMeter("GPU-77"):
        pass


def test_a_meter_that_fails_is_a_reason_and_loses_nothing() -> None:
    board = Board()

    def fail() -> float:
        raise MeterFailedError("the GPU cannot be read any more (GPU is lost)")

    board.read = fail  # type: ignore[method-assign]
    ran = []
    found = meter_energy(board, lambda seconds: (ran.append(seconds) or 1, seconds))
    assert found == "the GPU cannot be read any more (GPU is lost)"
    assert measure_idle(board, wait=ran.append) == found


def test_a_card_that_is_lost_between_windows_is_looked_at_no_longer() -> None:
    class Lost:
        def observe(self, own_pids: object) -> None:
            raise MeasurementInvalidError("the GPU cannot be read any more (GPU is lost)")

    bench = GpuBench("GPU-1", metered=False)
    bench._watch = Lost()  # type: ignore[assignment]
    assert bench.observe() is None
    assert bench.observe() is None
    seen = bench.describe(1, [], lambda seconds: (1, seconds))
    assert seen.observed.unavailable["card"] == "the GPU cannot be read any more (GPU is lost)"
    assert seen.memory_reason == seen.observed.unavailable["card"]


def test_estimates_need_figures_of_the_device_that_ran() -> None:
    card, desktop = load_profile("nvidia-t4"), load_profile("desktop-i5-10400")
    record = estimate_energy(card.power, 10.0, card, device="cuda")
    assert record.per_inference_j == pytest.approx(70 * 0.4 * 0.010)
    assert record.scope == "GPU board"
    refused = estimate_energy(desktop.power, 10.0, desktop, device="cuda")
    assert refused.per_inference_j is None
    assert refused.reason.endswith("are of the CPU package, and this ran on the GPU")
    assert estimate_energy(card.power, 10.0, card).reason.endswith("are of the GPU board, and this ran on the CPU")
