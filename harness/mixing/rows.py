"""The ways to give bits that a mix judges, with one granularity: fixed ones, thirds, and what the program finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from modelwright.core.errors import LimitNotMetError
from modelwright.harness.mixing.assign import Costs, assign_program, assign_thirds, total
from modelwright.harness.mixing.energy import estimate, estimate_layer
from modelwright.harness.mixing.record import Z95, Judged, Kind
from modelwright.harness.mixing.scores import Scores
from modelwright.harness.mixing.settings import Settings
from modelwright.harness.mixing.work import LayerWork
from modelwright.profiles.technology import Technology

_Z_ROOM = 0.6745
"""The normal quantile that three in four lie below: room for what chance does on the samples that judge."""
_HALVINGS = 6
"""Of the logarithm of the error that the program may make, in the search for the cheapest that keeps a limit."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to give bits.

    Attributes:
        name: For people.
        kind: How they were given.
        bits: Layer's output -> its bits.
        is_plan: Whether this is what the user asked for.
    """

    name: str
    kind: Kind
    bits: Mapping[str, int]
    is_plan: bool = False


@dataclass(frozen=True, kw_only=True)
class Chooser:
    """Gives bits to the layers of one network, rounded in one way.

    Attributes:
        scores: What a method says of the layers.
        works: Of all layers that energy is counted for.
        technology: What operations cost.
        settings: What was asked for.
    """

    scores: Scores
    works: Sequence[LayerWork]
    technology: Technology
    settings: Settings

    @property
    def energies(self) -> Costs:
        """Layer's output -> bits -> picojoules, of the layers that bits are chosen for."""
        parts = {
            (work.output, bits): estimate_layer(work, bits, self.technology)
            for work in self.works
            for bits in self.settings.bits
            if work.output in self.scores.costs
        }
        return {
            name: {bits: parts[name, bits].compute_pj + parts[name, bits].memory_pj for bits in self.settings.bits}
            for name in self.scores.costs
        }

    def fixed(self, bits: int) -> dict[str, int]:
        """Returns the same bits for all layers."""
        return dict.fromkeys(self.scores.costs, bits)

    def within_energy(self, limit_pj: float) -> dict[str, int]:
        """Returns the bits with the least estimated error at no more energy, which the fewest bits do not exceed."""
        found = assign_program(self.scores.costs, self.energies, limit_pj, limited="energy")
        return found if found is not None else self.fixed(min(self.settings.bits))

    def within_error(self, limit: float) -> dict[str, int] | None:
        """Returns the bits with the least energy whose estimated error is within a limit; None where none is."""
        return assign_program(self.scores.costs, self.energies, limit**2, limited="error")

    def answer_error(self, bits: Mapping[str, int]) -> float:
        """Returns the estimated relative error of the answers."""
        return math.sqrt(total(self.scores.costs, bits))


def list_choices(
    chooser: Chooser, judge: Callable[[Mapping[str, int]], Judged] | None, fp32: Judged | None
) -> list[Choice]:
    """Returns all ways that are judged; one is the plan.

    Args:
        chooser: Gives the bits.
        judge: Judges bits on the samples that choose; needed for `--max-drop`.
        fp32: What FP32's answers are worth there.

    Raises:
        LimitNotMetError: Not even the most bits keep to a limit.
    """
    widths = chooser.settings.bits
    choices = [Choice(name=f"{bits} bits", kind="fixed", bits=chooser.fixed(bits)) for bits in widths]
    choices.append(Choice(name="mixed, thirds", kind="thirds", bits=assign_thirds(chooser.scores.order, widths)))
    limits = _list_limits(chooser)
    plan = _choose_plan(chooser, judge, fp32)
    middle = list(limits)[len(limits) // 2]
    for name, limit in limits.items():
        bits = chooser.within_energy(limit)
        choices.append(Choice(name=name, kind="program", bits=bits, is_plan=plan is None and name == middle))
    return choices if plan is None else [*choices, plan]


def _list_limits(chooser: Chooser) -> dict[str, float]:
    """Returns limits of energy between those of fixed bits, the highest first: that of each width, and halves."""
    spent = {bits: total(chooser.energies, chooser.fixed(bits)) for bits in chooser.settings.bits}
    limits: dict[str, float] = {}
    for more, fewer in pairwise(chooser.settings.bits):
        if more != chooser.settings.bits[0]:
            limits[f"mixed <= E({more})"] = spent[more]
        limits[f"mixed <= E({more},{fewer})"] = (spent[more] + spent[fewer]) / 2
    return limits


def _choose_plan(
    chooser: Chooser, judge: Callable[[Mapping[str, int]], Judged] | None, fp32: Judged | None
) -> Choice | None:
    """Returns the cheapest bits within the user's limit; None where there is no limit."""
    settings = chooser.settings
    if settings.max_error is not None:
        found = chooser.within_error(settings.max_error)
        if found is None:
            least = chooser.answer_error(chooser.fixed(max(settings.bits)))
            raise LimitNotMetError(
                f"no bits of {', '.join(map(str, settings.bits))} keep the estimated error of the answers within "
                f"{settings.max_error:g}: the most make {least:.3g}",
                hint=f"allow more: --max-error {math.ceil(least * 1000) / 1000:g}; or offer more bits",
            )
        return Choice(name="mixed, --max-error", kind="program", bits=found, is_plan=True)
    if settings.max_drop is None or judge is None or fp32 is None:
        return None
    return Choice(name="mixed, --max-drop", kind="program", bits=_search_drop(chooser, judge, fp32), is_plan=True)


def _search_drop(chooser: Chooser, judge: Callable[[Mapping[str, int]], Judged], fp32: Judged) -> Mapping[str, int]:
    """Returns the cheapest bits, of those that the program finds, that lose no more on the samples that choose.

    The estimated error orders what the program finds; how much of it may be is what the samples say, by halving.
    """
    settings = chooser.settings
    assert settings.max_drop is not None
    most, fewest = chooser.fixed(max(settings.bits)), chooser.fixed(min(settings.bits))

    def keeps(bits: Mapping[str, int], room: float = _Z_ROOM) -> bool:
        found = judge(bits).over(fp32)
        spread = 0.0 if found.ci95 is None else (found.ci95[1] - found.ci95[0]) / (2 * Z95)
        return -found.points + room * spread <= settings.max_drop  # type: ignore[operator]

    if keeps(fewest):
        return fewest
    low, high = chooser.answer_error(most), chooser.answer_error(fewest)
    best: Mapping[str, int] = most
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high) if low > 0.0 else high / 2
        found = chooser.within_error(middle)
        if found is not None and keeps(found):
            best, low = found, middle
        else:
            high = middle
    if best is most and not keeps(most, room=0.0):
        lost = -judge(most).over(fp32).points
        raise LimitNotMetError(
            f"{max(settings.bits)} bits everywhere lose {lost:.3g} points on the samples that choose, and --max-drop "
            f"allows {settings.max_drop:g}",
            hint="allow more, with room for what chance does on the samples that judge; or offer more bits: "
            "--bits 12,8,6,4",
        )
    return best


def describe_energy(chooser: Chooser, bits: Mapping[str, int]) -> tuple[float, float]:
    """Returns the estimate of a choice: joules of computing, joules of memory."""
    spent = estimate(chooser.works, bits, chooser.technology)
    return spent.compute_pj * 1e-12, spent.memory_pj * 1e-12
