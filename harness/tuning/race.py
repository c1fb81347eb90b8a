"""A trial as a paired ratio: incumbent and challenger take turns, until it is plain which one is better or nothing is.

Both are alive and get short windows in random order, so that what disturbs the machine disturbs both. What looks better
is loaded anew with the incumbent, the other one first, before it is believed: a process is faster or slower for as long
as it lives.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError
from modelwright.harness.results.statistics import SAME_SPEED, SpeedRatio, estimate_ratio
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.interleave import Runner, Window, interleave
from modelwright.harness.tuning.record import Configuration, Outcome

Open = Callable[[Configuration, str], AbstractContextManager[Runner]]
"""Loads a configuration under a name, for as long as the context lasts."""
CostOf = Callable[[Window, Configuration], float]


class IncumbentEndedError(MeasurementInvalidError):
    """What everything is held against does not run, or not any more: no trial can be made."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a trial may take.

    Attributes:
        look: Rounds between two looks at the ratio; 5 at least, for an interval.
        most: Rounds after which a trial stays undecided.
        confirm: Rounds of the second launch of what looks better.
        window_s: Of a turn.
    """

    look: int = 6
    most: int = 24
    confirm: int = 12
    window_s: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Raced:
    """What came of a race.

    Attributes:
        outcome: Of the trial.
        gain: How many times as good the challenger is.
        cost: Of one of its inferences.
        rounds: That both had.
        failure: Why the challenger could not run to the end.
    """

    outcome: Outcome
    gain: SpeedRatio | None = None
    cost: float | None = None
    rounds: int = 0
    failure: ModelwrightError | None = None


@dataclass(kw_only=True)
class _Pair:
    """What two configurations took so far: their costs by round, and the launch of each round."""

    incumbent: Configuration
    challenger: Configuration
    costs: dict[tuple[object, ...], dict[int, float]] = field(default_factory=dict)
    launches: dict[int, int] = field(default_factory=dict)
    gain: SpeedRatio | None = None

    def __post_init__(self) -> None:
        self.costs |= {self.incumbent.key: {}, self.challenger.key: {}}

    def add(self, rounds: Mapping[int, int]) -> None:
        """Takes rounds that both had."""
        self.launches |= rounds
        ratios = _log_ratios(self.costs[self.incumbent.key], self.costs[self.challenger.key])
        self.gain = estimate_ratio(ratios, self.launches)

    @property
    def is_ahead(self) -> bool:
        """Whether the challenger is better beyond doubt, for now."""
        return self.gain is not None and self.gain.is_faster

    def conclude(self) -> Raced:
        outcome: Outcome = "undecided"
        if self.is_ahead:
            outcome = "better"
        elif self.gain is not None and is_lost(self.gain):
            outcome = "not better"
        taken = self.costs[self.challenger.key].values()
        cost = statistics.median(taken) if taken else None
        return Raced(outcome=outcome, gain=self.gain, cost=cost, rounds=len(self.launches))


@dataclass
class Race:
    """An incumbent that stays loaded from trial to trial, and challengers.

    Args:
        open: Loads a configuration.
        cost_of: The cost of an inference in a window.
        plan: How long a trial may take.
        seed: Of the order of turns.
    """

    open: Open
    cost_of: CostOf
    plan: Plan
    seed: int = 0
    _alive: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _loaded: tuple[Configuration, Runner] | None = None
    _chunks: int = 0

    def measure_first(self, configuration: Configuration) -> Raced:
        """Runs the first incumbent alone, to know that it runs."""
        costs: dict[int, float] = {}
        try:
            loaded = [(configuration, self._hold(configuration))]
            self._run_rounds({configuration.key: costs}, loaded, self.plan.look, launch=0)
        except IncumbentEndedError as error:
            return Raced(outcome="failed", failure=error)
        return Raced(outcome="start", cost=statistics.median(costs.values()), rounds=len(costs))

    def run(self, incumbent: Configuration, challenger: Configuration, *, longer: int = 1) -> Raced:
        """Returns which one is better, as soon as that is plain.

        Args:
            incumbent: The best so far.
            challenger: What is held against it.
            longer: How many times as many rounds as planned it may take.

        Raises:
            IncumbentEndedError: The incumbent itself does not run any more.
        """
        pair = _Pair(incumbent=incumbent, challenger=challenger)
        try:
            self._run_until_plain(pair, self.plan.most * longer)
            if pair.is_ahead:
                self._confirm(pair)
        except IncumbentEndedError:
            raise
        except ModelwrightError as error:
            return Raced(outcome="failed", gain=pair.gain, rounds=len(pair.launches), failure=error)
        return pair.conclude()

    def _run_until_plain(self, pair: _Pair, most: int) -> None:
        """Lets both take turns until the ratio leaves no doubt, or the rounds are over."""
        holder = (pair.incumbent, self._hold(pair.incumbent))
        with self.open(pair.challenger, "challenger") as runner:
            while len(pair.launches) < most:
                done, failure = self._run_rounds(
                    pair.costs, [holder, (pair.challenger, runner)], self.plan.look, launch=0
                )
                pair.add(done)
                if failure is not None:
                    raise failure
                if pair.gain is None or is_lost(pair.gain):
                    return
                if pair.is_ahead and len(pair.launches) >= 2 * self.plan.look:
                    return

    def _confirm(self, pair: _Pair) -> None:
        """Loads both anew, the challenger first, for more rounds."""
        self.close()
        with self.open(pair.challenger, "challenger") as runner:
            holder = (pair.incumbent, self._hold(pair.incumbent))
            done, failure = self._run_rounds(
                pair.costs, [(pair.challenger, runner), holder], self.plan.confirm, launch=1
            )
            pair.add(done)
            if failure is not None:
                raise failure

    def close(self) -> None:
        """Ends what is loaded."""
        self._alive.close()
        self._loaded = None

    def _hold(self, configuration: Configuration) -> Runner:
        """Returns the incumbent's runner, loaded if it is not yet."""
        if self._loaded is None or self._loaded[0].key != configuration.key:
            self.close()
            try:
                runner = self._alive.enter_context(self.open(configuration, "incumbent"))
            except ModelwrightError as error:
                raise _end(configuration, error) from error
            self._loaded = (configuration, runner)
        return self._loaded[1]

    def _run_rounds(
        self,
        costs: Mapping[tuple[object, ...], dict[int, float]],
        loaded: Sequence[tuple[Configuration, Runner]],
        rounds: int,
        *,
        launch: int,
    ) -> tuple[dict[int, int], ModelwrightError | None]:
        """Runs so many more rounds; returns round -> launch of those that all had, and why one of them ended."""
        effort = Effort(name="trial", rounds=rounds, window_s=self.plan.window_s)
        self._chunks += 1
        first = self._chunks * 1_000_000  # numbers of rounds are never used twice
        found = interleave([runner for _, runner in loaded], effort, seed=self.seed + self._chunks)
        for configuration, runner in loaded:
            for index, window in found[runner.name].windows.items():
                costs[configuration.key][first + index] = self.cost_of(window, configuration)
        failed = [
            (configuration, failure) for configuration, runner in loaded if (failure := found[runner.name].failure)
        ]
        if failed and self._loaded is not None and failed[0][0].key == self._loaded[0].key:
            self.close()
            raise _end(*failed[0])
        shared = set.intersection(*({first + index for index in found[runner.name].windows} for _, runner in loaded))
        return dict.fromkeys(sorted(shared), launch), failed[0][1] if failed else None


def _end(configuration: Configuration, error: ModelwrightError) -> IncumbentEndedError:
    return IncumbentEndedError(
        f"{configuration.describe()} does not run: {error.message}", hint=error.hint, detail=error.detail
    )


def is_lost(gain: SpeedRatio) -> bool:
    """Whether a gain that anyone would notice is out of the question."""
    return gain.ci95 is not None and gain.ci95[1] <= SAME_SPEED


def _log_ratios(incumbent: Mapping[int, float], challenger: Mapping[int, float]) -> dict[int, float]:
    shared = sorted(incumbent.keys() & challenger.keys())
    return {index: math.log(incumbent[index] / challenger[index]) for index in shared}
