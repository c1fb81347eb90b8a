"""A machine whose configurations take scripted times, and a search on it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from modelwright.core.errors import MeasurementInvalidError
from modelwright.harness.run.interleave import Window
from modelwright.harness.tuning.budget import parse_budget
from modelwright.harness.tuning.race import Plan, Race
from modelwright.harness.tuning.record import Configuration
from modelwright.harness.tuning.search import Search
from modelwright.harness.tuning.space import Space
from modelwright.harness.tuning.study import Study
from modelwright.targets.options import RunOption

SPIN = RunOption(name="spin", kind="boolean", default=True, vendor_name="spin", help="Spins.", needs_threads=True)
LEVEL = RunOption(
    name="level", kind="choice", choices=("low", "middle", "high"), default="high", vendor_name="l", help="Level."
)
MODE = RunOption(name="mode", kind="choice", choices=("one", "both"), default="one", vendor_name="m", help="Mode.")
INTER = RunOption(
    name="inter", kind="integer", minimum=1, maximum=8, default=1, tried=(2,), vendor_name="i", help="Inter.",
    needs=("mode", "both"),
)  # fmt: skip
SETTINGS = (SPIN, LEVEL, MODE, INTER)


def make_space(*artifacts: str) -> Space:
    names = artifacts or ("a", "b")
    return Space(settings=dict.fromkeys(names, SETTINGS), runtimes=dict.fromkeys(names, "rt"), loads=((1, 1), (2, 1)))


class Machine:
    """Configurations take what `time_of` says, times noise: of the round's moment, and of each process for its life.

    Attributes:
        noise: Of a turn, as a share.
        process_noise: Of a process, as a share.
        fails: Says why a configuration does not run; None where it does.
    """

    def __init__(
        self, time_of: Callable[[Configuration], float], *, seed: int = 0, noise: float = 0.01,
        process_noise: float = 0.003,
    ) -> None:  # fmt: skip
        self.time_of, self.noise, self.process_noise = time_of, noise, process_noise
        self.fails: Callable[[Configuration], str | None] = lambda _configuration: None
        self.rng = np.random.default_rng(seed)
        self.opened: list[tuple[str, Configuration]] = []
        self.windows = 0
        self.alive = 0

    @contextlib.contextmanager
    def open(self, configuration: Configuration, name: str) -> Iterator[_Runner]:
        self.opened.append((name, configuration))
        reason = self.fails(configuration)
        if reason is not None:
            raise MeasurementInvalidError(reason)
        self.alive += 1
        try:
            yield _Runner(self, name, self.time_of(configuration) * math.exp(self.rng.normal(0, self.process_noise)))
        finally:
            self.alive -= 1


class _Runner:
    def __init__(self, machine: Machine, name: str, time_ms: float) -> None:
        self._machine, self.name, self._time_ms = machine, name, time_ms

    def run_window(self, window_s: float) -> Window:
        self._machine.windows += 1
        took = self._time_ms * math.exp(self._machine.rng.normal(0, self._machine.noise))
        return Window(latencies_ms=[took] * 3, inferences=3, elapsed_s=3e-3 * took)


def cost_of(window: Window, _configuration: Configuration) -> float:
    return float(np.median(window.latencies_ms))


def make_race(machine: Machine, *, seed: int = 0) -> Race:
    return Race(open=machine.open, cost_of=cost_of, plan=Plan(window_s=0.0), seed=seed)


def make_search(
    folder: Path,
    machine: Machine,
    *,
    space: Space | None = None,
    budget: str = "500",
    key: str = "k" * 64,
    check: Callable[[Configuration], str | None] = lambda _configuration: None,
) -> Search:
    chosen = space or make_space()
    study = Study(folder, key, chosen, 0)
    ticks = iter(range(10**9))
    return Search(
        space=chosen,
        study=study,
        race=make_race(machine, seed=len(study.trials)),
        check=check,
        budget=parse_budget(budget),
        clock=lambda: float(next(ticks)),
    )
