"""Compares a candidate with FP32 in the terms of the task: every float output, by value and by what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.boxes import BoxMeter
from modelwright.core.outputs.tasks.checks import Check
from modelwright.core.outputs.tasks.classes import ClassMeter, EqualMeter
from modelwright.core.outputs.tasks.decisions import DecisionMeter
from modelwright.core.outputs.tasks.embedding import EmbeddingMeter
from modelwright.core.outputs.tasks.roles import OutputRole, Outputs, Role
from modelwright.core.outputs.tasks.rows import RowFormat
from modelwright.core.outputs.tasks.signs import is_number
from modelwright.core.outputs.tasks.values import ValueMeter
from modelwright.core.records.codec import Amount, Count, Record, Share

Array = npt.NDArray[Any]


class Meter(Protocol):
    """Has compared one output, or those of a detection."""

    def checks(self) -> list[Check]: ...


class AnswerLoss(Record):
    """What becomes of the answers of one output, as it was counted and as margins and errors lead one to expect.

    Attributes:
        output: Its name.
        rows: Answers compared.
        differing: Of them, other ones than FP32's.
        expected_flips: Share of other answers to expect.
        expected_regret: Accuracy that those cost, by FP32's own probabilities.
        labelled: Answers of which the right one is known.
        lost: Of them, FP32's right answers that became wrong.
        won: Wrong ones that became right.
    """

    output: str
    rows: Count
    differing: Count
    expected_flips: Share
    expected_regret: Amount
    labelled: Count
    lost: Count
    won: Count


class TaskFidelity(Record):
    """How a candidate serves the task that FP32 serves.

    Attributes:
        task: Of the whole model: of its outputs' roles the most telling one; see `find_task`.
        samples: Inferences compared.
        detection: The outputs whose rows are detections together, and what follows them: matched before they are
            compared.
        measure: What `kept` is a share of, in words: `agreement`, `detections`, ...
        kept: How much of FP32's answers is kept, by the task's own measure: 1 is all. None where FP32 gives no answer.
        checks: All findings, the worst first.
        answers: Of each output that chooses among classes.
    """

    task: Role
    samples: Count
    detection: tuple[str, ...]
    measure: str
    kept: Share | None
    checks: tuple[Check, ...]
    answers: tuple[AnswerLoss, ...] = ()

    @property
    def worst(self) -> Check | None:
        return self.checks[0] if self.checks else None

    @property
    def severity(self) -> float:
        """Of the worst finding: 0 as FP32, up to 1 good, from 2 on broken."""
        return max((check.severity for check in self.checks), default=0.0)

    @property
    def is_broken(self) -> bool:
        return self.severity >= 2.0


class TaskMeter:
    """Compares inference after inference, each output as what it is.

    Args:
        roles: From `find_roles`, on FP32's outputs alone.
    """

    def __init__(self, roles: Mapping[str, OutputRole]) -> None:
        self._roles = dict(roles)
        self._samples = 0
        self._values: dict[str, ValueMeter] = {}
        self._answers: dict[str, ClassMeter | DecisionMeter | EqualMeter | EmbeddingMeter] = {}
        self._rows: dict[str, RowFormat] = {}
        taken: set[str] = set()
        for name, role in self._roles.items():
            if role.rows is not None and taken.isdisjoint(role.rows.outputs):
                self._rows[name] = role.rows
                taken.update(role.rows.outputs)
        self._joined = tuple(name for rows in self._rows.values() for name in rows.outputs)
        self._boxes = {name: BoxMeter(name, rows) for name, rows in self._rows.items()}
        # Rows that stand by rank are other things when two tie: only matching compares them.
        self._matched = {name for rows in self._rows.values() if rows.by_rank for name in rows.outputs}
        self._follow = {
            follower: name
            for name, rows in self._rows.items()
            if rows.by_rank
            for follower in rows.followers
            if follower not in taken
        }

    @property
    def detection(self) -> tuple[str, ...]:
        """The outputs whose rows are detections, and those that follow them."""
        return (*self._joined, *self._follow)

    def find_free_axis(self, name: str, expected: Outputs) -> int | None:
        """Returns the axis of an output along which a candidate may have more or fewer: that of detections."""
        for rows in self._rows.values():
            if name in rows.outputs or name in rows.followers:
                return rows.find_axis(expected)
        return None

    def add(self, expected: Outputs, found: Outputs, label: int | None = None) -> None:
        """Takes one inference; outputs of another shape are left to the comparison of shapes.

        Args:
            expected: FP32's outputs.
            found: The candidate's.
            label: The right class of the first output that gives one, where it is known.
        """
        if not self._samples:
            self._settle(expected)
        self._samples += 1
        labelled = find_labelled(self._roles) if label is not None else None
        followed = self._match(expected, found)
        for name in self._roles:
            if name not in expected or name not in found:
                continue
            wanted, have = np.asarray(expected[name]), np.asarray(found[name])
            if name in self._follow:
                wanted, have = followed.get(name, (wanted[:0], have[:0]))
            if wanted.shape != have.shape:
                continue
            if name in self._values:
                self._values[name].add(wanted, have)
            answers = self._answers.get(name)
            if isinstance(answers, ClassMeter):
                answers.add(wanted, have, label if name == labelled else None)
            elif answers is not None:
                answers.add(wanted, have)

    def _match(self, expected: Outputs, found: Outputs) -> dict[str, tuple[Array, Array]]:
        """Matches detections, and returns what stands beside them, row by row of the same thing."""
        followed = {}
        for name, rows in self._rows.items():
            pairs = self._boxes[name].add(rows.join(expected), rows.join(found))
            axis = rows.find_axis(expected)
            for follower in rows.followers:
                if self._follow.get(follower) != name or follower not in found or axis is None or not pairs:
                    continue
                sides = (np.asarray(side[follower]) for side in (expected, found))
                first, second = (
                    side.take([pair[index] for pair in pairs], axis=axis) for index, side in enumerate(sides)
                )
                followed[follower] = (first, second)
        return followed

    def _settle(self, first: Outputs) -> None:
        """Chooses what compares each output, by FP32's first answer."""
        for name, role in self._roles.items():
            if name not in self._joined:
                meter = _make_meter(role, np.asarray(first[name]))
                if meter is not None:
                    self._answers[name] = meter
            if is_number(np.asarray(first[name])) and name not in self._matched:
                self._values[name] = ValueMeter(role)

    def result(self) -> TaskFidelity:
        """Returns what was found so far."""
        meters: list[Meter] = [*self._values.values(), *self._answers.values()]
        meters.extend(self._boxes.values())
        checks = [check for meter in meters for check in meter.checks()]
        task = find_task(self._roles)
        measure, kept = self._find_kept(task)
        return TaskFidelity(
            task=task,
            samples=self._samples,
            detection=self.detection,
            measure=measure,
            kept=None if kept is None else min(1.0, max(0.0, kept)),
            checks=tuple(sorted(checks, key=_rank)),
            answers=tuple(self._find_answers(task)),
        )

    def _find_answers(self, task: Role) -> Iterator[AnswerLoss]:
        """Yields what became of the answers that the task is about."""
        for name, meter in self._answers.items():
            seen = meter.result() if isinstance(meter, ClassMeter) and self._roles[name].role == task else None
            if seen is not None:
                yield AnswerLoss(
                    output=name,
                    rows=seen.rows,
                    differing=seen.differing,
                    expected_flips=seen.estimated_flips,
                    expected_regret=max(0.0, seen.estimated_regret),
                    labelled=seen.labelled,
                    lost=seen.right_lost,
                    won=seen.right_won,
                )

    def _find_kept(self, task: Role) -> tuple[str, float | None]:
        """Returns the measure of the task and its value: of several outputs of the task the worst."""
        if self._boxes:
            results = [meter.result() for meter in self._boxes.values()]
            return "detections", min((seen.kept for seen in results if seen and seen.kept is not None), default=None)
        shares: list[float | None] = []
        measure = {"embedding": "cosine", "mask": "overlap"}.get(task, "agreement")
        for name, meter in self._answers.items():
            if self._roles[name].role == task:
                measure = "overlap" if isinstance(meter, DecisionMeter) else measure
                if isinstance(meter, ClassMeter | EqualMeter):
                    measure = "agreement"
                shares.append(meter.kept())
        if not shares:
            measure = "R squared"
            values = [meter for meter in self._values.values() if meter.role.role != "state"]
            shares = [meter.kept() for meter in values or self._values.values()]
        known = [share for share in shares if share is not None]
        return measure, min(known, default=None)


_TELLING = (
    "unlike",
    "class_lost",
    "lost",
    "found",
    "recall",
    "invented",
    "accuracy",
    "flips",
    "iou",
    "range",
    "box_error",
    "noise",
)
"""Findings that say most to a user, of several that mean broken."""


def add_checks(task: TaskFidelity, checks: Sequence[Check]) -> TaskFidelity:
    """Returns a comparison with further findings in their place among its own."""
    return msgspec.structs.replace(task, checks=tuple(sorted((*task.checks, *checks), key=_rank)))


def _rank(check: Check) -> tuple[float, int, float]:
    """Sorts findings: the worst first; of those that mean broken the most telling one."""
    place = _TELLING.index(check.measure) if check.is_broken and check.measure in _TELLING else len(_TELLING)
    return -min(check.severity, 2.0), place, -check.severity


def _make_meter(role: OutputRole, first: Array) -> ClassMeter | DecisionMeter | EqualMeter | EmbeddingMeter | None:
    if not is_number(first):
        return EqualMeter(role)
    if role.independent:
        return DecisionMeter(role)
    if role.role in ("classes", "tokens", "mask"):
        return ClassMeter(role)
    return EmbeddingMeter(role) if role.role == "embedding" else None


def find_labelled(roles: Mapping[str, OutputRole]) -> str | None:
    """Returns the output that labels speak of: the first that chooses one class for a sample."""
    return next(
        (
            name
            for name, role in roles.items()
            if role.role == "classes" and role.axis is not None and not role.independent
        ),
        None,
    )


def find_task(roles: Mapping[str, OutputRole]) -> Role:
    """Returns the task of the whole model: what its outputs are for, the most telling one."""
    present = [role.role for role in roles.values()]
    telling: tuple[Role, ...] = ("boxes", "classes", "tokens", "mask", "embedding", "regression")
    return next((task for task in telling if task in present), "other")
