"""What "follows FP32 closely enough" means for a candidate of a quantization search, in every runtime.

The only place that knows: a search asks for levels, for the better of two and for words, and never for a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from modelwright.core.outputs.fidelity import Fidelity, explain_divergence

_GOOD_COSINE = 0.999
"""Mean cosine of the worst output from which nothing more is tried: 4.5 % error in norm, 0.2 % in energy."""
_FAIR_COSINE = 0.99
"""From here, 14 % error in norm, speed counts for more than what layers in float would still win."""
_LEAST_AGREEMENT = 0.98
"""Share of labelled samples that have to keep FP32's top class: one near-tie in 64 is no reason to give up speed."""
_CLEARLY = 0.5
"""Share of the error that has to go before a change that costs speed, or that is not understood, is worth it."""
_FREE_COSINE_LOSS = 0.0005
"""A change that costs no more, and no level, costs nothing."""
_BROKEN_ERROR = 1000.0
"""What the error of a broken candidate counts as: more than any that gives numbers."""


class Level(IntEnum):
    """How well a candidate does; more is better."""

    BROKEN = 0
    """It does not build or run, or its outputs are of another shape, not finite, or always the same."""
    POOR = 1
    """Layers go back to float until it is fair, whatever speed that costs up to half the work."""
    FAIR = 2
    """Layers go back to float only where few of them make it good."""
    GOOD = 3
    """Nothing more is tried."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How closely a candidate follows FP32 on the samples that it is judged on.

    Attributes:
        cosine: Mean cosine of the worst float output; None without float outputs.
        error: Energy of the difference as a share of the energy of FP32's output, of several the worst; without float
            outputs the share of elements that differ. None for a broken candidate.
        agreement: Share of samples with FP32's top class; None where samples have no labels, as the largest element
            of an embedding means nothing. Integer outputs are classes or flags, with labels or without.
        samples: Samples compared.
        fault: Why the candidate is broken.
    """

    cosine: float | None
    error: float | None
    agreement: float | None
    samples: int
    fault: str | None = None

    @staticmethod
    def broken(fault: str) -> Figures:
        """Returns the figures of a candidate that does not build or does not run."""
        return Figures(cosine=None, error=None, agreement=None, samples=0, fault=fault)

    @staticmethod
    def from_fidelity(fidelity: Fidelity, *, labelled: bool) -> Figures:
        """Takes what the goal looks at out of a comparison with FP32.

        Args:
            fidelity: The comparison.
            labelled: Whether the samples have labels: FP32's top class is then the answer.
        """
        floats = [output.relative_l2_error for output in fidelity.outputs if output.is_float]
        # An output without a relative error has energy where FP32's has none.
        errors = [1.0 if value is None else value**2 for value in floats]
        if not floats:
            errors = [1.0 - (output.equal_share or 0.0) for output in fidelity.outputs]
        fault = explain_divergence(fidelity, min_cosine=-1.0, min_equal_share=0.0)
        return Figures(
            cosine=fidelity.cosine,
            error=None if fault else max(errors, default=0.0),
            agreement=fidelity.agreement if labelled or not floats else None,
            samples=fidelity.samples,
            fault=fault,
        )

    @property
    def level(self) -> Level:
        if self.fault is not None:
            return Level.BROKEN
        # One sample of a few that differs is a close call, which proves nothing.
        least = min(_LEAST_AGREEMENT, 1 - 1 / max(self.samples, 1))
        if self.agreement is not None and self.agreement < least:
            return Level.POOR
        if self.cosine is None or self.cosine >= _GOOD_COSINE:
            return Level.GOOD
        return Level.FAIR if self.cosine >= _FAIR_COSINE else Level.POOR

    @property
    def rank(self) -> tuple[Level, float]:
        """Sorts candidates from worst to best: by level, then by what is left of the error."""
        return self.level, -math.inf if self.error is None else -self.error

    def is_clearly_better(self, than: Figures) -> bool:
        """Whether it reaches a higher level, or loses half as much."""
        if self.level != than.level:
            return self.level > than.level
        return self.error is not None and than.error is not None and self.error < _CLEARLY * than.error

    def loses_nothing(self, against: Figures) -> bool:
        """Whether it is as good as others for all that these samples can tell."""
        return self.level >= against.level and (against.cosine or 0.0) - (self.cosine or 0.0) <= _FREE_COSINE_LOSS

    def gain_over(self, before: Figures) -> float:
        """Returns how much of another candidate's error is gone; 0 for a broken one."""
        if self.error is None:
            return 0.0
        return (_BROKEN_ERROR if before.error is None else before.error) - self.error

    def describe(self) -> str:
        """Returns for instance `cosine 0.99912, agreement 98.4%`."""
        if self.fault is not None:
            return self.fault
        parts = [] if self.cosine is None else [f"cosine {self.cosine:.5f}"]
        parts += [] if self.agreement is None else [f"agreement {self.agreement:.1%}"]
        return ", ".join(parts) or "no figures"

    def to_dict(self) -> dict[str, Any]:
        return {"level": self.level.name.lower(), **asdict(self)}


def describe_goal() -> Mapping[str, Any]:
    """Returns the goal for a manifest: the levels by name, and what each asks for."""
    return {
        "good": {"cosine": _GOOD_COSINE, "agreement": _LEAST_AGREEMENT},
        "fair": {"cosine": _FAIR_COSINE, "agreement": _LEAST_AGREEMENT},
    }


def explain_miss(figures: Figures) -> str | None:
    """Returns a sentence for the user about a candidate that is shipped without being good; None for a good one."""
    if figures.level is Level.GOOD:
        return None
    asked = f"{figures.describe()} on {figures.samples} samples, where a cosine of {_GOOD_COSINE} "
    asked += f"and an agreement of {_LEAST_AGREEMENT:.0%} are wanted"
    if figures.level is Level.FAIR:
        return f"it follows FP32 less closely than wanted: {asked}"
    return f"no way of quantizing reaches the goal: {asked}; compare its accuracy before shipping it"
