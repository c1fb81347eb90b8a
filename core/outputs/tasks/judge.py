"""Compares a candidate with FP32 in the terms of the task: every float output, by value and by what it means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.boxes import BoxMeter
from modelwright.core.outputs.tasks.checks import Check
from modelwright.core.outputs.tasks.classes import ClassMeter, EqualMeter
from modelwright.core.outputs.tasks.embedding import EmbeddingMeter
from modelwright.core.outputs.tasks.roles import OutputRole, Outputs, Role, is_number
from modelwright.core.outputs.tasks.signs import are_ranked, is_within_one
from modelwright.core.outputs.tasks.thresholds import ThresholdMeter
from modelwright.core.outputs.tasks.values import ValueMeter
from modelwright.core.records.codec import Amount, Count, Record

Array = npt.NDArray[Any]

_SCORES_NAME = re.compile(r"score|conf|prob|logit", re.IGNORECASE)
_LABELS_NAME = re.compile(r"class|label|categor", re.IGNORECASE)


class Meter(Protocol):
    """Compares one output, an inference at a time."""

    def add(self, expected: Array, found: Array) -> None: ...
    def checks(self) -> list[Check]: ...


class TaskFidelity(Record):
    """How a candidate serves the task that FP32 serves.

    Attributes:
        task: Of the whole model: of its outputs' roles the most telling one; see `find_task`.
        samples: Inferences compared.
        detection: The outputs whose rows are detections together, matched before they are compared.
        measure: What `kept` is a share of, in words: `agreement`, `detections`, ...
        kept: How much of FP32's answers is kept, by the task's own measure: 1 is all. None where FP32 gives no answer.
        checks: All findings, the worst first.
    """

    task: Role
    samples: Count
    detection: tuple[str, ...]
    measure: str
    kept: Amount | None
    checks: tuple[Check, ...]

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
        self._answers: dict[str, ClassMeter | EqualMeter | EmbeddingMeter | ThresholdMeter] = {}
        self._boxes: BoxMeter | None = None
        self._detection: tuple[str, ...] = ()

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
        for name in self._roles:
            wanted, have = expected.get(name), found.get(name)
            if wanted is None or have is None or np.shape(wanted) != np.shape(have):
                continue
            wanted, have = np.asarray(wanted), np.asarray(have)
            if name in self._values:
                self._values[name].add(wanted, have)
            answers = self._answers.get(name)
            if isinstance(answers, ClassMeter):
                answers.add(wanted, have, label if name == labelled else None)
            elif answers is not None:
                answers.add(wanted, have)
        if self._boxes is not None:
            self._boxes.add(join_detection(expected, self._detection), join_detection(found, self._detection))

    def _settle(self, first: Outputs) -> None:
        """Chooses what compares each output, by FP32's first answer."""
        self._detection = find_detection(self._roles, first)
        if self._detection:
            self._boxes = BoxMeter(self._roles[self._detection[0]])
        # Rows that stand by rank are other things when two tie: only matching compares them.
        joined = join_detection(first, self._detection) if self._detection else np.zeros((1, 0, 6))
        ranked = are_ranked([joined]) or any(self._roles[name].by_rank for name in self._detection[:1])
        for name, role in self._roles.items():
            if ranked and name not in self._detection and _is_beside(np.asarray(first[name]), joined):
                continue  # more columns of the same rows, such as the scores of the other classes
            if name not in self._detection:
                meter = _make_meter(role, np.asarray(first[name]))
                if meter is not None:
                    self._answers[name] = meter
            if is_number(np.asarray(first[name])) and (name not in self._detection or not ranked):
                self._values[name] = ValueMeter(role)

    def result(self) -> TaskFidelity:
        """Returns what was found so far."""
        meters: list[Meter] = [*self._values.values(), *self._answers.values()]
        if self._boxes is not None:
            meters.append(self._boxes)
        checks = [check for meter in meters for check in meter.checks()]
        task = find_task(self._roles)
        measure, kept = self._find_kept(task)
        return TaskFidelity(
            task=task,
            samples=self._samples,
            detection=self._detection,
            measure=measure,
            kept=None if kept is None else min(1.0, max(0.0, kept)),
            checks=tuple(sorted(checks, key=_rank)),
        )

    def _find_kept(self, task: Role) -> tuple[str, float | None]:
        """Returns the measure of the task and its value: of several outputs of the task the worst."""
        if self._boxes is not None:
            seen = self._boxes.result()
            return "detections", None if seen is None else seen.kept
        shares: list[float | None] = []
        measure = {"embedding": "cosine", "mask": "overlap"}.get(task, "agreement")
        for name, meter in self._answers.items():
            if self._roles[name].role == task:
                if isinstance(meter, ClassMeter | EqualMeter):
                    measure = "agreement"
                shares.append(meter.kept())
        if not shares:
            measure = "R squared"
            shares = [meter.kept() for meter in self._values.values()]
        known = [share for share in shares if share is not None]
        return measure, min(known, default=None)


_TELLING = ("unlike", "class_lost", "lost", "found", "recall", "accuracy", "flips", "iou", "box_error", "noise")
"""Findings that say most to a user, of several that mean broken."""


def _rank(check: Check) -> tuple[float, int, float]:
    """Sorts findings: the worst first; of those that mean broken the most telling one."""
    place = _TELLING.index(check.measure) if check.is_broken and check.measure in _TELLING else len(_TELLING)
    return -min(check.severity, 2.0), place, -check.severity


def _make_meter(role: OutputRole, first: Array) -> ClassMeter | EqualMeter | EmbeddingMeter | ThresholdMeter | None:
    if not is_number(first):
        return EqualMeter(role)
    if role.role == "mask" and role.axis is None:
        return ThresholdMeter(role)
    if role.role in ("classes", "tokens", "mask"):
        return ClassMeter(role)
    return EmbeddingMeter(role) if role.role == "embedding" else None


def find_labelled(roles: Mapping[str, OutputRole]) -> str | None:
    """Returns the output that labels speak of: the first that chooses one class for a sample."""
    return next((name for name, role in roles.items() if role.role == "classes" and role.axis is not None), None)


def find_task(roles: Mapping[str, OutputRole]) -> Role:
    """Returns the task of the whole model: what its outputs are for, the most telling one."""
    present = [role.role for role in roles.values()]
    telling: tuple[Role, ...] = ("boxes", "classes", "tokens", "mask", "embedding", "regression")
    return next((task for task in telling if task in present), "other")


def find_detection(roles: Mapping[str, OutputRole], reference: Outputs) -> tuple[str, ...]:
    """Returns the outputs that are detections together: one of rows, or boxes, scores and labels of as many rows."""
    for name, role in roles.items():
        if role.role != "boxes":
            continue
        rows = _as_rows(np.asarray(reference[name]))
        if rows is None:
            continue
        if rows.shape[1] > 4:
            return (name,)
        others = [
            other
            for other, value in reference.items()
            if other != name and (found := _as_rows(np.asarray(value))) is not None and len(found) == len(rows)
        ]
        labels = [other for other in others if _holds_labels(other, np.asarray(reference[other]))]
        scores = [other for other in others if other not in labels and is_number(np.asarray(reference[other]))]
        # Of several, those named for it; one score a row goes before one a class.
        scores.sort(key=lambda other: (not _SCORES_NAME.search(other), np.size(reference[other])))
        if scores and (_SCORES_NAME.search(scores[0]) or is_within_one(np.asarray(reference[scores[0]]))):
            return (name, scores[0], *labels[:1])
    return ()


def join_detection(outputs: Outputs, names: Sequence[str]) -> Array:
    """Returns [1, rows, columns]: the outputs of a detection side by side."""
    parts = [_as_rows(np.asarray(outputs[name], np.float64)) for name in names if name in outputs]
    whole = [part for part in parts if part is not None]
    if len(names) == 1:
        return np.asarray(outputs[names[0]], np.float64) if names[0] in outputs else np.zeros((1, 0, 6))
    if len(whole) != len(names) or len({len(part) for part in whole}) != 1:
        return np.zeros((1, 0, 6))
    return np.concatenate(whole, axis=1)[None]


def _holds_labels(name: str, value: Array) -> bool:
    """Whether an output gives a class number a row, as integers or as floats that are whole."""
    if value.dtype.kind in "iu":
        return True
    return bool(_LABELS_NAME.search(name)) and value.size == value.shape[-1] and bool(np.all(value == np.round(value)))


def _is_beside(value: Array, joined: Array) -> bool:
    rows = _as_rows(value)
    return rows is not None and len(rows) == joined.shape[1] > 1


def _as_rows(value: Array) -> Array | None:
    squeezed = value[0] if value.ndim >= 2 and value.shape[0] == 1 else value
    if squeezed.ndim == 1:
        return squeezed[:, None]
    return squeezed if squeezed.ndim == 2 else None
