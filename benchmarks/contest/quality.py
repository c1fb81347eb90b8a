"""How answers follow those of FP32, and how many are right: the same for ours and the peers'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from modelwright.core.records.codec import Count, Record
from modelwright.harness.kinds import Figure
from modelwright.harness.results.statistics import wilson_interval

Floats = npt.NDArray[np.float64]


class Quality(Record, kw_only=True):
    """Of the answers of one file on the held-out samples.

    Attributes:
        count: Samples.
        agreeing: Of them, those in whose first output the largest value is where FP32's is.
        correct: Of them, those that are right; None without labels.
        cosine: The least similar output's mean cosine with FP32's, over samples.
    """

    count: Count
    agreeing: Count
    correct: Count | None
    cosine: Figure

    @property
    def agreement(self) -> float:
        """As a share."""
        return self.agreeing / self.count

    @property
    def agreement_interval(self) -> tuple[float, float] | None:
        """95 % of it, by Wilson's formula."""
        return wilson_interval(self.agreeing, self.count)

    @property
    def accuracy(self) -> float | None:
        """As a share; None without labels."""
        return None if self.correct is None else self.correct / self.count


def judge(answers: Sequence[Floats], reference: Sequence[Floats], labels: npt.NDArray[np.int64] | None) -> Quality:
    """Compares answers with FP32's.

    Args:
        answers: Each output, [samples, ...].
        reference: FP32's; the same outputs in the same order.
        labels: Right classes, [samples]; None where there are none.
    """
    chosen, expected = answers[0].reshape(len(answers[0]), -1), reference[0].reshape(len(reference[0]), -1)
    picks = chosen.argmax(1)
    return Quality(
        count=len(picks),
        agreeing=int(np.sum(picks == expected.argmax(1))),
        correct=None if labels is None else int(np.sum(picks == labels)),
        cosine=min(_mean_cosine(ours, theirs) for ours, theirs in zip(answers, reference, strict=True)),
    )


def _mean_cosine(answers: Floats, reference: Floats) -> float:
    ours, theirs = answers.reshape(len(answers), -1), reference.reshape(len(reference), -1)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(np.mean(np.sum(ours * theirs, axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)))
