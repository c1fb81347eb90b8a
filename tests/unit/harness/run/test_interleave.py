from __future__ import annotations

import numpy as np

from modelwright.core.errors import MeasurementInvalidError
from modelwright.harness.results.statistics import estimate_ratio, round_log_ratios
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.interleave import Window, interleave

EFFORT = Effort(name="test", rounds=25, window_s=0.0)


class Machine:
    """A machine that gets slower and faster by itself, shared by all fake runners."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.slowness = 1.0
        self.turns: list[str] = []

    def drift(self, name: str) -> float:
        self.turns.append(name)
        self.slowness = max(0.3, self.slowness + 0.1 * self._rng.standard_normal())
        return self.slowness


class FakeRunner:
    def __init__(self, name: str, latency_ms: float, machine: Machine, crash_at: int | None = None) -> None:
        self.name = name
        self._latency_ms = latency_ms
        self._machine = machine
        self._crash_at = crash_at
        self._turns = 0

    def run_window(self, window_s: float) -> Window:
        del window_s
        if self._turns == self._crash_at:
            raise MeasurementInvalidError(f"{self.name} crashed")
        self._turns += 1
        latency_ms = self._latency_ms * self._machine.drift(self.name)
        return Window(latencies_ms=[latency_ms] * 3, inferences=3, elapsed_s=latency_ms * 3e-3)


def by_round(series):
    return {index: window.latencies_ms for index, window in series.windows.items()}


def test_everyone_has_one_turn_a_round_in_changing_order() -> None:
    machine = Machine(0)
    runners = [FakeRunner(name, 1.0, machine) for name in "abc"]
    interleave(runners, EFFORT, seed=1)
    rounds = [machine.turns[start : start + 3] for start in range(0, 75, 3)]
    assert all(sorted(turns) == ["a", "b", "c"] for turns in rounds)
    assert len({tuple(turns) for turns in rounds}) == 6


def test_the_seed_decides_the_order() -> None:
    orders = []
    for seed in (1, 1, 2):
        machine = Machine(0)
        interleave([FakeRunner(name, 1.0, machine) for name in "abc"], EFFORT, seed=seed)
        orders.append(machine.turns)
    assert orders[0] == orders[1] != orders[2]


def test_ratio_survives_a_drifting_machine() -> None:
    machine = Machine(3)
    series = interleave([FakeRunner("slow", 3.0, machine), FakeRunner("fast", 2.0, machine)], EFFORT, seed=0)
    ratio = estimate_ratio(round_log_ratios(by_round(series["slow"]), by_round(series["fast"])), {})
    assert ratio is not None
    assert ratio.ci95[0] < 1.5 < ratio.ci95[1]


def test_a_crash_ends_one_runner_only() -> None:
    machine = Machine(0)
    runners = [FakeRunner("good", 1.0, machine), FakeRunner("bad", 1.0, machine, crash_at=4)]
    series = interleave(runners, EFFORT, seed=0)
    assert len(series["good"].windows) == 25
    assert series["good"].failure is None
    assert len(series["bad"].windows) == 4
    assert "bad crashed" in str(series["bad"].failure)


def test_rounds_are_told() -> None:
    told: list[tuple[int, int]] = []
    interleave([FakeRunner("a", 1.0, Machine(0))], EFFORT, seed=0, on_round=lambda *x: told.append(x))
    assert told == [(index, 25) for index in range(1, 26)]


def test_rounds_run_on_from_launch_to_launch() -> None:
    effort = Effort(name="test", launches=3, rounds=4, window_s=0.0)
    told: list[tuple[int, int]] = []
    windows = {}
    for launch in range(3):
        runner = FakeRunner("a", 1.0, Machine(0))
        windows |= interleave([runner], effort, seed=0, launch=launch, on_round=lambda *x: told.append(x))["a"].windows
    assert {index: window.launch for index, window in windows.items()} == {index: index // 4 for index in range(12)}
    assert told == [(index, 12) for index in range(1, 13)]
