"""How long to measure: the trade between waiting and what can be told apart."""

from __future__ import annotations

from dataclasses import dataclass

from modelwright.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Effort:
    """A measuring plan.

    Attributes:
        name: As typed on the command line.
        launches: How often every artifact is loaded anew. A process is faster or slower by up to half a percent for as
            long as it lives, which only other processes of the same artifact can show.
        rounds: Of each launch; every artifact gets one window a round. Ratios are computed over rounds; on a shared
            machine the ratio of two equal processes scatters by 4 % with 10 rounds, 0.5 % with 25, 0.2 % with 50.
        window_s: Seconds of a window. Short ones see the same disturbances as their neighbours.
    """

    name: str
    launches: int = 1
    rounds: int
    window_s: float

    @property
    def total_rounds(self) -> int:
        """Turns of every artifact, over all launches."""
        return self.launches * self.rounds


EFFORTS = {
    effort.name: effort
    for effort in (
        Effort(name="quick", rounds=12, window_s=0.1),
        Effort(name="standard", launches=3, rounds=10, window_s=0.2),
        Effort(name="strict", launches=5, rounds=12, window_s=0.5),
    )
}


def get_effort(name: str) -> Effort:
    """Returns an effort by name.

    Raises:
        UsageError: There is no such effort.
    """
    if name not in EFFORTS:
        raise UsageError(f"there is no effort {name!r}", hint=f"one of {', '.join(EFFORTS)}")
    return EFFORTS[name]
