"""Detections: rows of four sides, scores and perhaps a class, matched by overlap before they are compared.

Rows that change places are the same detections, so nothing is compared row by row. What counts is which of FP32's
detections are still there, which are new, and how far their boxes have moved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.checks import Check, as_loss, bound_share, format_share
from modelwright.core.outputs.tasks.rows import BOX_SIDES, RowFormat

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

SLACK = 0.2
"""A detection within this share of the threshold may be on either side of it."""
OVERLAP = 0.5
"""Intersection over union from which two boxes are of the same thing: PASCAL VOC's."""
SUPPRESSION = 0.6
LOST = (0.02, 0.10)
"""Share of FP32's detections that are gone: good, broken. The same of new ones."""
CLASS_LOST = (0.05, 0.3)
BOX_ERROR = (0.03, 0.15)
"""Mean distance of a box's sides from FP32's, as a share of its size."""
MOST_DETECTIONS = 300
BEST, AMONG = 10, 30
"""Where FP32 is never sure, its ten best of a sample have to be among the thirty best: a threshold would cut through
scores that hardly differ. Those that hardly differ from the thirtieth need not be among them either."""
MIN_CLASS_ROWS = 5
_FEW = 50


@dataclass(kw_only=True)
class Detections:
    """Detections of one sample, best first.

    Attributes:
        boxes: float64 [n, 4], as corners.
        scores: float64 [n].
        classes: int64 [n].
        rows: int64 [n]: where they stand in the output.
    """

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]


@dataclass(kw_only=True)
class _Tally:
    expected: int = 0
    lost: int = 0
    found: int = 0
    moved: list[float] = field(default_factory=list)
    sides_px: list[float] = field(default_factory=list)
    by_class: dict[int, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BoxFidelity:
    """How far the detections are FP32's.

    Attributes:
        detections: FP32's above the threshold.
        threshold: Of the score; None where the best of each sample were taken instead.
        lost: FP32's that have no counterpart.
        found: The candidate's that have none.
        box_error: Mean distance of matched boxes' sides, as a share of their size.
        box_error_px: The same in the boxes' own unit, mostly pixels.
        classes: Those of `MIN_CLASS_ROWS` detections or more.
        worst_class: The class that loses most; None where none has `MIN_CLASS_ROWS` detections.
    """

    detections: int
    threshold: float | None
    lost: int
    found: int
    box_error: float
    box_error_px: float
    classes: int
    worst_class: int | None
    worst_lost: int
    worst_rows: int

    @property
    def kept(self) -> float | None:
        """Share of FP32's detections and the candidate's that are of both; None where FP32 has none."""
        if not self.detections:
            return None
        shared = self.detections - self.lost
        return shared / (self.detections + self.found)


class BoxMeter:
    """Matches detections sample by sample.

    Args:
        name: Of the output that holds the boxes.
        rows: How its rows are read.
    """

    def __init__(self, name: str, rows: RowFormat) -> None:
        self._name, self._rows = name, rows
        self._tally = _Tally()

    def add(self, expected: Floats | None, found: Floats | None) -> list[tuple[int, int]]:
        """Takes FP32's rows and the candidate's, whose numbers may differ, and returns which ones are the same thing.

        Args:
            expected: float64 [rows, columns]; see `join_rows`. None for none.
            found: Likewise; of other columns is like none.
        """
        wanted = np.zeros((0, BOX_SIDES)) if expected is None else expected
        fits = found is not None and found.shape[1] == wanted.shape[1]
        return self._compare(wanted, found if found is not None and fits else wanted[:0])

    def _compare(self, wanted: Floats, have: Floats) -> list[tuple[int, int]]:
        threshold = self._rows.threshold
        low = -np.inf if threshold is None else threshold * (1 - SLACK)
        reference, candidate = (self._read(rows, low) for rows in (wanted, have))
        shown, given = (self._find_shown(found) for found in (reference, candidate))
        pairs = match(reference, candidate)
        tally = self._tally
        matched, taken = {first for first, _ in pairs}, {second for _, second in pairs}
        for index in range(shown):
            counts = tally.by_class.setdefault(int(reference.classes[index]), [0, 0])
            tally.expected += 1
            counts[0] += 1
            if index not in matched:
                tally.lost += 1
                counts[1] += 1
        tally.found += sum(1 for index in range(given) if index not in taken)
        for first, second in pairs:
            one, other = reference.boxes[first], candidate.boxes[second]
            size = max(float(np.sqrt(max(one[2] - one[0], 0.0) * max(one[3] - one[1], 0.0))), 1e-9)
            distance = float(np.abs(one - other).mean())
            tally.sides_px.append(distance)
            tally.moved.append(distance / size)
        return [(int(reference.rows[first]), int(candidate.rows[second])) for first, second in pairs]

    def _find_shown(self, found: Detections) -> int:
        """Returns how many of the detections, best first, have to have a counterpart."""
        if self._rows.threshold is None:
            last = found.scores[AMONG - 1] if len(found.scores) >= AMONG else 0.0
            return int(np.count_nonzero(found.scores[:BEST] >= last * (1 + SLACK)))
        return int(np.count_nonzero(found.scores >= self._rows.threshold * (1 + SLACK)))

    def _read(self, rows: Floats, least: float) -> Detections:
        """Returns the detections above a score, those of the same thing collapsed into the best."""
        scores, classes = self._rows.read(rows)
        sides = rows[:, :BOX_SIDES]
        good = np.isfinite(sides).all(axis=1) & np.isfinite(scores) & (scores >= least)
        order = np.flatnonzero(good)[np.argsort(-scores[good], kind="stable")][: 4 * MOST_DETECTIONS]
        boxes = sides[order] if self._rows.corners else _to_corners(sides[order])
        found = suppress(Detections(boxes=boxes, scores=scores[order], classes=classes[order], rows=order))
        return take(found, np.arange(len(found.rows))[: AMONG if self._rows.threshold is None else MOST_DETECTIONS])

    def result(self) -> BoxFidelity | None:
        """Returns what was matched; None where FP32 detects nothing."""
        tally = self._tally
        if not tally.expected and not tally.found:
            return None
        worst, lost, rows = None, 0, 0
        counted = {name: counts for name, counts in tally.by_class.items() if counts[0] >= MIN_CLASS_ROWS}
        if counted:
            worst = max(counted, key=lambda name: bound_share(counted[name][1], counted[name][0], upper=False))
            rows, lost = counted[worst]
        return BoxFidelity(
            detections=tally.expected,
            threshold=self._rows.threshold,
            lost=tally.lost,
            found=tally.found,
            box_error=float(np.mean(tally.moved)) if tally.moved else 0.0,
            box_error_px=float(np.mean(tally.sides_px)) if tally.sides_px else 0.0,
            classes=len(counted),
            worst_class=worst,
            worst_lost=lost,
            worst_rows=rows,
        )

    def checks(self) -> list[Check]:
        """Returns the findings: detections lost and new, the class that loses most, how far boxes moved."""
        seen = self.result()
        if seen is None:
            return []
        name, count = self._name, max(seen.detections, 1)
        at = f"among the {BEST} best of a sample" if seen.threshold is None else f"at a score of {seen.threshold:.2g}"
        checks = [
            Check(
                output=name,
                measure="lost",
                value=_rate(seen.lost, count),
                good=LOST[0],
                broken=LOST[1],
                text=f"{seen.lost} of FP32's {seen.detections} detections are lost {at}",
            ),
            Check(
                output=name,
                measure="found",
                value=_rate(seen.found, count),
                good=LOST[0],
                broken=LOST[1],
                text=f"{seen.found} detections are new beside FP32's {seen.detections} {at}",
            ),
            Check(
                output=name,
                measure="box_error",
                value=as_loss(seen.box_error),
                good=BOX_ERROR[0],
                broken=BOX_ERROR[1],
                text=f"boxes are off by {seen.box_error_px:.3g} (mostly pixels), "
                f"{format_share(seen.box_error)} of their size",
            ),
        ]
        if seen.worst_class is not None:
            checks.append(
                Check(
                    output=name,
                    measure="class_lost",
                    value=bound_share(seen.worst_lost, seen.worst_rows, upper=False, among=seen.classes),
                    good=CLASS_LOST[0],
                    broken=CLASS_LOST[1],
                    text=f"class {seen.worst_class} loses {seen.worst_lost} of its {seen.worst_rows} detections",
                )
            )
        return checks


def _rate(part: int, count: int) -> float:
    """Returns a share; of few detections what is sure of it."""
    return as_loss(bound_share(min(part, count), count, upper=False) if count < _FEW else part / count)


def _to_corners(sides: Floats) -> Floats:
    """Turns centre, width and height into corners."""
    half = sides[:, 2:] / 2
    return np.concatenate([sides[:, :2] - half, sides[:, :2] + half], axis=1)


def overlaps(boxes: Floats, other: Floats) -> Floats:
    """Returns intersection over union: float64 [boxes, other]."""
    low = np.maximum(boxes[:, None, :2], other[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(rows[:, 2:] - rows[:, :2], 0, None).prod(axis=1) for rows in (boxes, other)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(np.where(union > 0, shared / np.maximum(union, 1e-300), 0.0))


def suppress(found: Detections) -> Detections:
    """Keeps the best of detections of one class that overlap: heads without suppression give one thing many times."""
    kept: list[int] = []
    for name in np.unique(found.classes):
        left = np.flatnonzero(found.classes == name)
        overlapping = overlaps(found.boxes[left], found.boxes[left]) > SUPPRESSION
        gone = np.zeros(len(left), np.bool_)
        for index in range(len(left)):
            if not gone[index]:
                gone |= overlapping[index] & (np.arange(len(left)) > index)
        kept.extend(left[~gone].tolist())
    order = sorted(kept)[:MOST_DETECTIONS]
    return take(found, np.array(order, np.int64))


def take(found: Detections, order: npt.NDArray[np.int64]) -> Detections:
    """Returns some of the detections."""
    return Detections(
        boxes=found.boxes[order], scores=found.scores[order], classes=found.classes[order], rows=found.rows[order]
    )


def match(reference: Detections, candidate: Detections) -> list[tuple[int, int]]:
    """Pairs detections of one class by overlap, FP32's best first; each is taken once."""
    if not len(reference.scores) or not len(candidate.scores):
        return []
    shared = overlaps(reference.boxes, candidate.boxes)
    shared[reference.classes[:, None] != candidate.classes[None]] = 0.0
    pairs = []
    free = np.ones(len(candidate.scores), np.bool_)
    for index in range(len(reference.scores)):
        open_now = np.where(free, shared[index], 0.0)
        best = int(np.argmax(open_now))
        if open_now[best] >= OVERLAP:
            free[best] = False
            pairs.append((index, best))
    return pairs
