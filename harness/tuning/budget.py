"""How long a search may go on, as typed: `10m`, `90s`, `2h`, or `40` trials."""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelwright.core.durations import parse_duration
from modelwright.core.errors import UsageError

_TRIALS = re.compile(r"[0-9]{1,9}", re.ASCII)
_LONGEST_S = 30 * 24 * 3600.0
_MOST_TRIALS = 100_000


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the trials of a search may take, all runs of it together.

    Attributes:
        text: As typed.
        seconds: None where trials are counted.
        trials: None where seconds are.
    """

    text: str
    seconds: float | None = None
    trials: int | None = None

    def is_spent(self, *, seconds: float, trials: int) -> bool:
        """Whether so much time, or so many trials, leave nothing."""
        if self.seconds is not None:
            return seconds >= self.seconds
        return self.trials is not None and trials >= self.trials


def parse_budget(text: str) -> Budget:
    """Reads a budget.

    Raises:
        UsageError: It is none.
    """
    hint = "give a time, such as 90s, 10m or 2h, or a number of trials, such as 40"
    if _TRIALS.fullmatch(text.strip()):
        count = int(text)
        if not 1 <= count <= _MOST_TRIALS:
            raise UsageError(f"--budget {text}: 1 to {_MOST_TRIALS:,} trials", hint=hint)
        return Budget(text=text, trials=count)
    seconds = parse_duration(text)
    if seconds is None:
        raise UsageError(f"--budget {text} is no budget", hint=hint)
    if not 1.0 <= seconds <= _LONGEST_S:
        raise UsageError(f"--budget {text}: a second at least, and 30 days at most", hint=hint)
    return Budget(text=text, seconds=seconds)
