"""How answers follow those of FP32, and how many are right: the same for ours and the peers'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.boxes import BoxMeter
from modelwright.core.outputs.tasks.roles import find_roles
from modelwright.core.outputs.tasks.rows import RowFormat
from modelwright.core.records.codec import Count, Record
from modelwright.harness.kinds import Figure
from modelwright.harness.results.statistics import wilson_interval

Floats = npt.NDArray[np.float64]
_OUTPUT = "output"


class Quality(Record, kw_only=True):
    """Of the answers of one file on the held-out samples.

    Attributes:
        count: Samples; of a detector FP32's detections, and those that are new.
        agreeing: Of them, those in whose first output the largest value is where FP32's is; what both detect.
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


def judge_if_comparable(
    answers: Sequence[Floats] | None, reference: Sequence[Floats], labels: npt.NDArray[np.int64] | None
) -> Quality | None:
    """Returns how a file's answers follow FP32; None where it gave none, or in other shapes than flat ones.

    Args:
        answers: Each output, [samples, ...].
        reference: FP32's; the same outputs in the same order.
        labels: Right classes, of as many samples or more; None where there are none.
    """
    found = [_unflatten(*pair) for pair in zip(answers or (), reference, strict=False)]
    if [one.shape for one in found] != [one.shape for one in reference]:
        return None
    return judge(found, reference, None if labels is None else labels[: len(reference[0])])


def _unflatten(found: Floats, reference: Floats) -> Floats:
    """Gives an output its shape again, where a file has all of a sample's values in one row."""
    return found.reshape(reference.shape) if found.ndim == 2 and found.size == reference.size else found


def judge(answers: Sequence[Floats], reference: Sequence[Floats], labels: npt.NDArray[np.int64] | None) -> Quality:
    """Compares answers with FP32's.

    Args:
        answers: Each output, [samples, ...].
        reference: FP32's; the same outputs in the same order.
        labels: Right classes, [samples]; None where there are none.
    """
    rows = _find_rows(reference[0])
    if rows is not None:
        count, agreeing = _count_detections(answers[0], reference[0], rows)
    else:
        picks, expected = (each[0].reshape(len(each[0]), -1).argmax(1) for each in (answers, reference))
        count, agreeing = len(picks), int(np.sum(picks == expected))
    return Quality(
        count=count,
        agreeing=agreeing,
        correct=None if labels is None else int(np.sum(answers[0].reshape(len(labels), -1).argmax(1) == labels)),
        cosine=min(_mean_cosine(ours, theirs) for ours, theirs in zip(answers, reference, strict=True)),
    )


def _find_rows(reference: Floats) -> RowFormat | None:
    """Returns how FP32's first output is read as detections, where it holds any."""
    rows = find_roles([{_OUTPUT: one[None].astype(np.float32)} for one in reference])[_OUTPUT].rows
    return None if rows is None or rows.threshold is None else rows


def _count_detections(answers: Floats, reference: Floats, rows: RowFormat) -> tuple[int, int]:
    """Returns how many things are detected by FP32 or a file, and by both."""
    meter = BoxMeter(_OUTPUT, rows)
    for found, expected in zip(answers, reference, strict=True):
        meter.add(rows.join({_OUTPUT: expected[None]}), rows.join({_OUTPUT: found[None]}))
    seen = meter.result()
    return (1, 1) if seen is None else (seen.detections + seen.found, seen.detections - seen.lost)


def _mean_cosine(answers: Floats, reference: Floats) -> float:
    ours, theirs = answers.reshape(len(answers), -1), reference.reshape(len(reference), -1)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(np.mean(np.sum(ours * theirs, axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)))
