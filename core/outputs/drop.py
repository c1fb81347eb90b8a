"""What an artifact loses against FP32, in points: counted where it is proved, expected where a search has to choose.

On the few samples that choose, no loss seen does not prove that there is none. So what is to be expected on those that
judge is estimated: by counting, by margins and errors (`tasks/margins.py`), and with room for what chance does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelwright.core.outputs.fidelity import Fidelity
from modelwright.core.outputs.limit import Limit, LimitedBy
from modelwright.core.outputs.tasks.checks import Check, as_loss
from modelwright.core.outputs.tasks.judge import AnswerLoss, TaskFidelity
from modelwright.core.outputs.tasks.margins import weigh_estimate
from modelwright.core.records.codec import Amount, Count, Line, Number, Record

_DECIMALS = 3
_LEAST_POINTS = 1e-3
"""A thousandth of a point is no loss: other runtimes round otherwise."""
_COUNTED = frozenset({"agreement", "detections", "overlap"})
"""Measures that count things, so that chance moves them as it moves counts."""
_DOUBT_SHARE = 0.25
"""Of the answers that change: by how much the loss expected of them may be off (of two classes, half of the way between
as many won as lost and all of them lost)."""
_WITHIN_SAMPLE = 0.1
"""Correlation of the answers of one sample, such as neighbouring pixels: a thousand of them are worth ten samples."""
_MARGIN_SHARE = 0.25
"""Of the loss by another measure, which is a mean over samples: what other samples may add to it."""
DROP = "drop"
"""The finding that a limit is."""
PARTS = 4
"""Of the samples that choose, to see how a metric of the user's scatters."""
LEAST_PARTED = 16
"""Fewer are not parted."""
_KEPT_WORDS = {
    "agreement": "agreement with FP32",
    "detections": "FP32's detections kept",
    "overlap": "overlap with FP32",
    "cosine": "cosine with FP32",
}


class Drop(Record):
    """What an artifact loses.

    Attributes:
        by: What it is taken of.
        measure: In words: `accuracy`, `agreement with FP32`, or the name of the user's metric.
        fp32: FP32's figure.
        artifact: The artifact's.
        points: Lost, in thousandths; negative where it does better.
        count: Samples that both were taken on.
        max_points: That the user allows; None where no limit was set.
    """

    by: LimitedBy
    measure: Line
    fp32: Number
    artifact: Number
    points: Number
    count: Count
    max_points: Amount | None = None

    @property
    def is_over(self) -> bool:
        """Whether it is more than the user allows."""
        return self.max_points is not None and self.points > self.max_points

    def describe(self) -> str:
        """Returns for instance `accuracy 78.1 % to 77.0 %, 1.174 points lost on 512 samples`."""
        if self.by == "metric":
            change = f"{self.measure} {self.fp32:.4g} to {self.artifact:.4g}"
        elif self.by == "kept":
            change = f"{self.measure} {self.artifact:.2%}"
        else:
            change = f"{self.measure} {self.fp32:.2%} to {self.artifact:.2%}"
        way = "lost" if self.points >= 0 else "won"
        # All decimals: what is over a limit by one of them must not read as if it were the limit.
        points = f"{abs(self.points):.{_DECIMALS}f}".rstrip("0").rstrip(".")
        return f"{change}, {points} point{'' if points == '1' else 's'} {way} on {self.count} samples"


def count_drop(
    fidelity: Fidelity, correct: int | None, correct_fp32: int | None, count: int, max_points: float | None = None
) -> Drop | None:
    """Returns what was lost of right answers, where FP32 has some, else of what is kept of FP32's; None if unknown."""
    if correct is not None and correct_fp32 and count:
        shares = correct_fp32 / count, correct / count
        return _make_drop("accuracy", "accuracy", *shares, 100 * (shares[0] - shares[1]), count, max_points)
    task = fidelity.task
    if task is None or task.kept is None or not count:
        return None
    measure = _KEPT_WORDS.get(task.measure, task.measure)
    return _make_drop("kept", measure, 1.0, task.kept, 100 * (1 - task.kept), count, max_points)


def metric_drop(limit: Limit, fp32: float, found: float) -> Drop:
    """Returns what was lost by the user's metric."""
    assert limit.metric is not None
    points = limit.metric.points_lost(fp32, found)
    return _make_drop("metric", limit.metric.name, fp32, found, points, limit.evaluated, limit.max_drop)


def _make_drop(
    by: LimitedBy, measure: str, fp32: float, artifact: float, points: float, count: int, max_points: float | None
) -> Drop:
    rounded = round(points, _DECIMALS) + 0.0  # which makes -0 nothing
    return Drop(
        by=by, measure=measure, fp32=fp32, artifact=artifact, points=rounded, count=count, max_points=max_points
    )


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a candidate is to be expected to lose where it is judged in the end; shares, of which a point is 0.01.

    Attributes:
        loss: Most likely.
        margin: On top of it, what chance makes of it, but for as many cases as the limit leaves no room for.
    """

    loss: float
    margin: float


def expect_drop(limit: Limit, task: TaskFidelity) -> Expectation | None:
    """Returns what to expect by right answers or by the measure of the task; None where nothing says.

    Args:
        limit: That has to be kept.
        task: How the candidate did on the samples that choose.
    """
    found = [_expect_of_answers(limit, answers, task.samples) for answers in task.answers]
    if found and (limit.by != "kept" or task.measure == "agreement"):
        return max(found, key=lambda expected: expected.loss + expected.margin)
    if task.kept is None:
        return None
    loss = max(0.0, 1 - task.kept)
    chance = limit.room * math.sqrt(loss * (1 - loss) / max(1, limit.evaluated))
    return Expectation(loss=loss, margin=chance if task.measure in _COUNTED else _MARGIN_SHARE * loss)


def _expect_of_answers(limit: Limit, answers: AnswerLoss, samples: int) -> Expectation:
    """Of right answers: those lost less those won; every answer that changes may be one of them."""
    flips = weigh_estimate(answers.differing / answers.rows, answers.expected_flips, answers.rows)
    loss, changed = flips, flips
    if limit.by != "kept":
        # What FP32 is in doubt about, it is often wrong about: the regret is what changed answers cost. A gain that was
        # seen is not to be relied upon.
        loss = answers.expected_regret
        if answers.labelled:
            seen = max(0, answers.lost - answers.won) / answers.labelled
            turned = (answers.lost + answers.won) / answers.labelled
            changed = weigh_estimate(turned, answers.expected_flips, answers.labelled)
            loss = _shrink(seen, answers.expected_regret, changed, answers.labelled)
    each = max(1.0, answers.rows / max(1, samples))
    worth = max(1, limit.evaluated) * each / (1 + _WITHIN_SAMPLE * (each - 1))  # Kish's design effect
    spread = math.sqrt(max(changed * (1 - changed), 0.0) / worth)
    return Expectation(loss=loss, margin=limit.room * spread)


def _shrink(seen: float, expected: float, changed: float, labelled: int) -> float:
    """Returns the mean of the loss that was seen and the one expected, each weighed by the inverse of its variance.

    That of what was seen is what chance makes of so few samples: one right answer lost of 64 is 1.6 points, and one
    won is as likely. That of what is expected grows with the share of answers that change.
    """
    chance, doubt = changed / labelled, (_DOUBT_SHARE * changed) ** 2
    return expected if not changed else (doubt * seen + chance * expected) / (doubt + chance)


def expect_metric_drop(
    limit: Limit, fp32: Sequence[float], found: Sequence[float], count: int, answers: Expectation | None
) -> Expectation:
    """Returns what to expect by the user's metric.

    Args:
        limit: With the metric.
        fp32: FP32's, of all samples that choose, and of each part of them.
        found: The candidate's.
        count: Samples that choose.
        answers: What is to be expected of right answers: no loss seen on few samples proves none, where answers are
            expected to change.
    """
    assert limit.metric is not None
    lost = [limit.metric.points_lost(*pair) / 100 for pair in zip(fp32, found, strict=True)]
    spread = 0.0
    if len(lost) > 2:
        # The mean of these samples is itself off by as much, and so is that of those that judge.
        spread = float(np.std(lost[1:], ddof=1)) / math.sqrt(len(lost) - 1)
        spread *= math.sqrt(1 + count / max(1, limit.evaluated))
    seen = Expectation(loss=max(0.0, lost[0]), margin=limit.room * spread)
    if answers is None or seen.loss + seen.margin >= answers.loss + answers.margin:
        return seen
    return answers


def check_limit(limit: Limit, expected: Expectation, task: TaskFidelity) -> Check:
    """Returns the limit as a finding among the others: good within it with room for chance, broken beyond it."""
    allowed = max(limit.max_drop, _LEAST_POINTS) / 100
    if limit.by == "accuracy" or (limit.by == "kept" and _is_one_answer(task)):
        # Whole samples are counted: of 100, a limit of 0.5 points allows none, and half a one is as good as none.
        allowed = (math.floor(limit.max_drop / 100 * limit.evaluated + 1e-6) + 0.5) / max(1, limit.evaluated)
    outputs = [answers.output for answers in task.answers] or [check.output for check in task.checks[:1]]
    measure = limit.metric.name if limit.metric else "accuracy" if limit.by == "accuracy" else task.measure
    value = as_loss(expected.loss + expected.margin)
    return Check(
        output=outputs[0] if outputs else "",
        measure=DROP,
        value=value,
        good=allowed,
        broken=max(allowed, as_loss(allowed + expected.margin)),
        text=f"a loss of {100 * expected.loss:.2g} points of {measure} is expected on {limit.evaluated} samples, and "
        f"{100 * value:.2g} by bad luck, where {limit.max_drop:g} may be",
    )


def _is_one_answer(task: TaskFidelity) -> bool:
    """Whether each sample has one answer."""
    return task.measure == "agreement" and all(answers.rows == task.samples for answers in task.answers)
