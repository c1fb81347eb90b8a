"""The ways to quantize that the OpenVINO INT8 target tries, what is wanted of them, and how one of them did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

WANTED_AGREEMENT = 1.0
WANTED_COSINE = 0.999
"""Reached on the tuning samples, nothing more is tried. 64 samples that all agree vouch for 95 % at 95 % confidence;
the cosine, which does not depend on how close the classes are, has to carry the rest."""
ENOUGH_AGREEMENT = 0.98
ENOUGH_COSINE = 0.99
"""Reached by the best recipe (one sample that differs is forgiven), no layer goes back to float: that would cost speed
for a difference hard to see."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to call NNCF.

    Attributes:
        name: For people.
        preset: `performance` (symmetric activations) or `mixed` (asymmetric ones).
        min_max: Take the ranges of all samples as they are, instead of the mean over samples.
        fast_bias_correction: False for the slower, more accurate one.
        smooth_quant_alpha: How much of the activations' range moves into the weights; None leaves NNCF's default.
    """

    name: str
    preset: str
    min_max: bool = False
    fast_bias_correction: bool = True
    smooth_quant_alpha: float | None = None


CONVOLUTIONAL = (
    Candidate(name="symmetric", preset="performance"),
    Candidate(name="asymmetric, full ranges", preset="mixed", min_max=True),
    Candidate(name="asymmetric, accurate bias correction", preset="mixed", fast_bias_correction=False),
)
TRANSFORMER = (
    Candidate(name="SmoothQuant 0.95", preset="mixed", smooth_quant_alpha=0.95),
    Candidate(name="SmoothQuant 0.7, full ranges", preset="mixed", smooth_quant_alpha=0.7, min_max=True),
    Candidate(
        name="SmoothQuant 0.5, full ranges, accurate bias correction",
        preset="mixed",
        smooth_quant_alpha=0.5,
        min_max=True,
        fast_bias_correction=False,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Score:
    """How closely outputs follow FP32's.

    Attributes:
        agreement: Share of samples with FP32's top class; None without an output that reads as class scores.
        cosine: Mean cosine of the worst float output; None without float outputs.
        count: Samples compared.
    """

    agreement: float | None
    cosine: float | None
    count: int

    def reaches(self, agreement: float, cosine: float) -> bool:
        """Whether neither figure that exists is below its limit."""
        return (self.agreement is None or self.agreement >= agreement) and (
            self.cosine is None or self.cosine >= cosine
        )

    @property
    def tier(self) -> int:
        """2: as wanted, 1: enough, 0: neither."""
        if self.reaches(WANTED_AGREEMENT, WANTED_COSINE):
            return 2
        # One sample of a few that differs is a close call, which proves nothing; the cosine still has to hold.
        return int(self.reaches(min(ENOUGH_AGREEMENT, 1 - 1 / self.count), ENOUGH_COSINE))

    @property
    def loss(self) -> float:
        """What is missing to a cosine of 1."""
        return 0.0 if self.cosine is None else 1 - self.cosine

    def describe(self) -> str:
        """Returns for instance `agreement 98.4 %, cosine 0.99912`."""
        agreement = "" if self.agreement is None else f"agreement {self.agreement:.1%}, "
        return agreement + ("no float output" if self.cosine is None else f"cosine {self.cosine:.5f}")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A quantized model and how it did; the score is None without tuning samples."""

    candidate: Candidate
    ignored: tuple[str, ...]
    score: Score | None
    seconds: float
    model: Any = field(repr=False)

    @property
    def rank(self) -> tuple[int, float]:
        """Sorts trials from worst to best: within a tier by cosine, as one sample more or less agrees by chance."""
        return (0, 0.0) if self.score is None else (self.score.tier, self.score.cosine or 0.0)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.candidate.name,
            "float_layers": len(self.ignored),
            "agreement": None if self.score is None else self.score.agreement,
            "cosine": None if self.score is None else self.score.cosine,
            "seconds": round(self.seconds, 1),
        }


BF16_INSTRUCTION_SETS = frozenset({"avx512_bf16", "amx_bf16"})
