"""The search: proposes, races, checks answers, keeps the better one, and ends when no trial can win any more."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from modelwright.core.errors import ModelwrightError
from modelwright.harness.tuning.budget import Budget
from modelwright.harness.tuning.race import Race, Raced
from modelwright.harness.tuning.record import Configuration, Trial
from modelwright.harness.tuning.space import Space
from modelwright.harness.tuning.study import Study

PATIENCE = 20
"""Trials in a row without a gain, after everything next to the incumbent was tried, that end a search."""
SECOND_CHANCES = 5
"""Trials in doubt, the most promising first, that are made again at the end."""
_LONGER = 3
"""How many times as many rounds they may take then."""

Check = Callable[[Configuration], str | None]
"""Says why a configuration's answers are not those that were proved; None where they are."""


@dataclass
class Search:
    """Runs trials until something ends it.

    Args:
        space: What can be tried.
        study: Where trials are kept.
        race: Holds two configurations against each other.
        check: Looks at the answers of what is better.
        budget: Of all trials, those of earlier runs among them.
        tell: Takes a finished trial.
        clock: Seconds.
    """

    space: Space
    study: Study
    race: Race
    check: Check
    budget: Budget
    tell: Callable[[Trial, Search], None] = lambda _trial, _search: None
    clock: Callable[[], float] = time.monotonic

    @property
    def incumbents(self) -> list[Trial]:
        """The first trial and all that took its place, in order."""
        return [trial for trial in self.study.trials if trial.outcome in ("start", "better")]

    @property
    def spent_s(self) -> float:
        """What all trials took."""
        return sum(trial.elapsed_s for trial in self.study.trials)

    def run(self) -> str:
        """Makes trials, and returns why there are no more.

        Raises:
            ModelwrightError: The first artifact does not run at all.
        """
        if not self.study.trials:
            self._start()
        while True:
            if self.budget.is_spent(seconds=self.spent_s, trials=len(self.study.trials)):
                return f"the budget of {self.budget.text} is spent"
            incumbent = self.incumbents[-1]
            planned = [*self.space.starts(), *self.space.neighbours(incumbent.configuration)]
            hopeless = self._is_hopeless(incumbent, planned)
            challenger = None if hopeless else self.study.propose(planned)
            if challenger is not None:
                self._try(incumbent, challenger)
                continue
            doubtful = self._find_doubtful(incumbent)
            if doubtful is not None:
                self.study.repeat(doubtful)
                self._try(incumbent, doubtful, longer=_LONGER)
            elif hopeless:
                return (
                    f"no trial can win any more: everything next to the best was tried, the last {PATIENCE} trials "
                    "gained nothing, and what was most in doubt was tried again"
                )
            else:
                return "everything that can be tried was tried"

    def _find_doubtful(self, incumbent: Trial) -> Configuration | None:
        """Returns what may be better than the incumbent by its only trial against it; None where that is enough."""
        against = [trial for trial in self.study.trials if trial.incumbent == incumbent.number]
        times = Counter(trial.configuration.key for trial in against)
        if sum(times.values()) - len(times) >= SECOND_CHANCES:
            return None
        doubtful = [trial for trial in against if trial.outcome == "undecided" and times[trial.configuration.key] == 1]
        best = max(doubtful, key=lambda trial: trial.gain.ratio if trial.gain else 0.0, default=None)
        return None if best is None else best.configuration

    def _is_hopeless(self, incumbent: Trial, planned: list[Configuration]) -> bool:
        tried = self.study.tried
        if any(each.key not in tried for each in planned):
            return False
        return len(self.study.trials) - 1 - incumbent.number >= PATIENCE

    def _start(self) -> None:
        """Runs the default of the first artifact, or of the next one where it does not run."""
        failure: ModelwrightError | None = None
        for configuration in self.space.starts():
            begun = self.clock()
            proposed = self.study.propose([configuration])
            assert proposed is not None
            raced = self.race.measure_first(proposed)
            score = 0.0 if raced.failure is None else None
            self._keep(proposed, raced, begun, incumbent=None, score=score)
            failure = raced.failure
            if failure is None:
                return
        assert failure is not None
        raise failure

    def _try(self, incumbent: Trial, challenger: Configuration, *, longer: int = 1) -> None:
        begun = self.clock()
        raced = self.race.run(incumbent.configuration, challenger, longer=longer)
        reason = None
        if raced.outcome == "better":
            try:
                reason = self.check(challenger)
            except ModelwrightError as error:
                reason = error.message
        if reason is not None:
            raced = replace(raced, outcome="refused")
        score = None
        if raced.gain is not None and raced.outcome not in ("failed", "refused"):
            score = (incumbent.score or 0.0) + math.log(raced.gain.ratio)
        self._keep(challenger, raced, begun, incumbent=incumbent.number, score=score, reason=reason)

    def _keep(
        self,
        configuration: Configuration,
        raced: Raced,
        begun: float,
        *,
        incumbent: int | None,
        score: float | None,
        reason: str | None = None,
    ) -> None:
        trial = Trial(
            number=len(self.study.trials),
            configuration=configuration,
            outcome=raced.outcome,
            reason=reason if raced.failure is None else raced.failure.message,
            incumbent=incumbent,
            gain=raced.gain,
            score=score,
            cost=raced.cost,
            rounds=raced.rounds,
            elapsed_s=self.clock() - begun,
        )
        self.study.keep(trial)
        self.tell(trial, self)
