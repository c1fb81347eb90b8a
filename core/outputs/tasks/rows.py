"""Rows of detectors: which outputs hold them together, and how their columns are read. Settled on FP32's own rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.signs import as_sigmoid, as_softmax, is_number, is_within_one
from modelwright.core.records.codec import Amount, Count, Record

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Outputs = Mapping[str, Array]

BOX_SIDES = 4
THRESHOLD = 0.25
"""What deployed detectors show from: YOLO's `conf` default."""
_WIDEST_PLAIN_BOX = 7
"""Sides, score, class and an index: what detectors that suppress by themselves give, in as few rows as they find."""
_LEAST_PIXELS = 4.0
"""Sides that differ by more are pixels; shares of the image lie within 0 and 1."""
_MOST_BOX_COLUMNS = 512
_ROUNDING = 0.01
"""A class number may be off by this much: who reads it cuts it down to a whole one."""
_UNIT = 1e-6
_SURE, _UNSURE = 0.5, 0.05
_ROWS_OF_OBJECTNESS = 0.2
"""Share of rows that are sure of their class though nothing is there: of detectors whose first score says whether."""
_MOST_ROWS = 2**16
_SURE_SAMPLES = 0.1
"""Share of samples with a detection from which on the others are taken for images of nothing: their best rows are
what a deployed detector never shows."""

_BOX_NAME = re.compile(r"bbox|box|\bdets?\b|detection", re.IGNORECASE)
_SCORES_NAME = re.compile(r"score|conf|prob|logit", re.IGNORECASE)
_LABELS_NAME = re.compile(r"class|label|categor", re.IGNORECASE)


class RowFormat(Record):
    """How the rows of a detector are read.

    Attributes:
        outputs: Those that are detections together: one of boxes and scores, or boxes, scores and perhaps classes.
        followers: Other outputs with something for each box: masks, key points.
        turned: Whether the columns come before the rows.
        by_rank: Whether rows stand where their score puts them: then row 5 is another thing when two scores tie.
        corners: Whether boxes are two corners; else a centre, width and height.
        numbered: Whether the column after the score is the class; else there is one score a class.
        scores: Columns of scores behind the sides; those that follow are something else.
        objectness: Whether the first score says how sure it is that anything is there.
        scale: What makes the scores probabilities.
        background: The column that stands for nothing.
        threshold: From which score a row is a detection; None where FP32 never reaches the usual one: then the best
            rows of a sample are.
    """

    outputs: tuple[str, ...]
    followers: tuple[str, ...] = ()
    turned: bool = False
    by_rank: bool = False
    corners: bool = True
    numbered: bool = False
    scores: Count = 0
    objectness: bool = False
    scale: Literal["none", "sigmoid", "softmax"] = "none"
    background: Count | None = None
    threshold: Amount | None = None

    def join(self, outputs: Outputs) -> Floats | None:
        """Returns [rows, columns]: the outputs of a detection side by side; None where their rows do not fit."""
        if any(name not in outputs for name in self.outputs):
            return None
        first = as_box_rows(np.asarray(outputs[self.outputs[0]], np.float64), turned=self.turned)
        if first is None:
            return None
        parts = [first]
        for name in self.outputs[1:]:
            part = self.take(outputs, name)
            if part is None:
                return None
            parts.append(np.asarray(part, np.float64).reshape(len(first), -1 if len(first) else 1))
        return np.concatenate(parts, axis=1)

    def take(self, outputs: Outputs, name: str) -> Array | None:
        """Returns [rows, ...] of an output beside the boxes; None where it has not as many rows."""
        value, boxes = np.asarray(outputs[name]), np.asarray(outputs[self.outputs[0]])
        rows = as_box_rows(boxes, turned=self.turned)
        if rows is None:
            return None
        if boxes.ndim >= 3 and value.ndim >= 2 and value.shape[0] == 1:
            value = value[0]
        if value.ndim and value.shape[0] == len(rows):
            return value
        return value.T if value.ndim == 2 and value.shape[1] == len(rows) else None

    def find_axis(self, outputs: Outputs) -> int | None:
        """Returns the axis of the rows, in the output of boxes and in those beside it; None where columns come first.

        Along it a candidate may have more or fewer than FP32: as many as it detects.
        """
        boxes = outputs.get(self.outputs[0])
        return None if boxes is None or self.turned else 1 if np.ndim(boxes) >= 3 else 0

    def read(self, rows: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Returns each row's score and its class.

        Args:
            rows: float64 [n, columns]; the first four are sides. A candidate's 1.97 is read as its users read it.
        """
        rest = rows[:, BOX_SIDES:]
        if not rest.shape[1]:
            return np.ones(len(rows)), np.zeros(len(rows), np.int64)
        scores = rest[:, : max(self.scores, 1)]
        if self.scale != "none":
            scores = as_softmax(scores) if self.scale == "softmax" else as_sigmoid(scores)
        if self.numbered and rest.shape[1] > 1:
            numbers = np.nan_to_num(rest[:, 1], nan=-1.0, posinf=-1.0, neginf=-1.0)
            return scores[:, 0], np.floor(np.clip(numbers, -1.0, 2**31) + _ROUNDING).astype(np.int64)
        if scores.shape[1] == 1:
            return scores[:, 0], np.zeros(len(rows), np.int64)
        if self.objectness:
            scores = scores[:, :1] * scores[:, 1:]
        if self.background is not None:
            scores = np.where(np.arange(scores.shape[1]) == self.background, -1.0, scores)
        return scores.max(axis=1), np.argmax(scores, axis=1).astype(np.int64)


def find_rows(name: str, shown: Sequence[Outputs]) -> RowFormat | None:
    """Returns how an output of boxes and those beside it are read; None where nothing says how sure a box is.

    Args:
        name: The output of boxes.
        shown: FP32's outputs, one mapping a sample.
    """
    turned = are_turned([np.asarray(value[name]) for value in shown])
    alone = RowFormat(outputs=(name,), turned=turned)
    outputs, labelled = _find_together(alone, shown)
    if not outputs:
        return None
    plain = msgspec.structs.replace(alone, outputs=outputs)
    joined = [rows for value in shown if (rows := plain.join(value)) is not None]
    # Boxes without a row tell nothing.
    filled = [rows for rows in joined if len(rows)]
    followers = [other for other in shown[0] if other not in outputs and _has_rows_of(other, alone, shown)]
    plain = msgspec.structs.replace(plain, followers=tuple(followers), by_rank=are_ranked(joined))
    if not filled:
        return plain
    found = _find_columns(plain, np.concatenate(filled)[:_MOST_ROWS], labelled=labelled)
    counts = [int((found.read(rows)[0] >= THRESHOLD).sum()) for rows in filled]
    is_sure = sum(counts) >= len(joined) or sum(map(bool, counts)) >= max(_SURE_SAMPLES * len(joined), 2)
    return msgspec.structs.replace(found, threshold=THRESHOLD if is_sure else None)


def _find_together(alone: RowFormat, shown: Sequence[Outputs]) -> tuple[tuple[str, ...], bool]:
    """Returns the outputs that make detections with one of boxes, and whether one of them holds class numbers."""
    name = alone.outputs[0]
    fullest = max(shown, key=lambda value: np.size(value[name]))
    rows = alone.join(fullest)
    if rows is None:
        return (), False
    if rows.shape[1] > BOX_SIDES:
        return (name,), False
    flat = [
        other
        for other in fullest
        if other != name and _has_rows_of(other, alone, shown) and _is_flat(alone.take(fullest, other))
    ]
    labels = [other for other in flat if _holds_labels(other, np.asarray(fullest[other]))]
    scores = [other for other in flat if other not in labels and is_number(np.asarray(fullest[other]))]
    # Of several, those named for it; one score a row goes before one a class.
    scores.sort(key=lambda other: (not _SCORES_NAME.search(other), np.size(fullest[other])))
    if scores and (_SCORES_NAME.search(scores[0]) or is_within_one(np.asarray(fullest[scores[0]]))):
        return (name, scores[0], *labels[:1]), bool(labels)
    return (), False


def _find_columns(plain: RowFormat, rows: Floats, *, labelled: bool) -> RowFormat:
    """Returns what the columns mean."""
    sides = rows[np.isfinite(rows[:, :BOX_SIDES]).all(axis=1), :BOX_SIDES]
    ordered = (sides[:, 2] >= sides[:, 0]) & (sides[:, 3] >= sides[:, 1])
    corners = not len(sides) or bool(np.mean(ordered) > 0.98)
    rest = rows[:, BOX_SIDES:]
    numbered = labelled or _holds_class_numbers(rest)
    likely = ((rest >= -_UNIT) & (rest <= 1 + _UNIT)) | ~np.isfinite(rest)
    count = rest.shape[1] if likely.all() else int(np.argmin(likely.all(axis=0)))
    is_logit = count == 0 and bool(np.any(rest[:, :1] < 0.0))
    scores = rest[:, : 1 if numbered else rest.shape[1] if is_logit else max(count, 1)]
    scale: Literal["none", "sigmoid", "softmax"] = "none"
    background, objectness = None, False
    if scores.shape[1] > 1:
        best = scores.max(axis=1)
        whole = not is_logit and bool(np.abs(scores.sum(axis=1) - 1).max() < 1e-3)
        # Where a logit mostly is above 0 though images are mostly empty, one of the classes is "nothing".
        if whole or (is_logit and float(np.median(best)) > 0.0):
            background = _find_background(np.argmax(scores, axis=1), scores.shape[1])
    if is_logit:
        scale = "sigmoid" if background is None else "softmax"
    if scores.shape[1] > 1 and background is None:
        powers = as_sigmoid(scores) if is_logit else scores
        empty = (powers[:, 1:].max(axis=1) > _SURE) & (powers[:, 0] < _UNSURE)
        objectness = bool(np.mean(empty) > _ROWS_OF_OBJECTNESS)
    return msgspec.structs.replace(
        plain,
        corners=corners,
        numbered=numbered,
        scores=scores.shape[1],
        objectness=objectness,
        scale=scale,
        background=background,
    )


def _find_background(answers: Array, classes: int) -> int | None:
    """Returns the class of most rows, where it is the first or the last: that of nothing."""
    usual = int(np.bincount(answers, minlength=classes).argmax())
    return usual if usual in (0, classes - 1) and np.mean(answers == usual) > 0.5 else None


def _holds_class_numbers(rest: Floats) -> bool:
    """Whether the column after the first score holds whole numbers: classes, not their scores."""
    if rest.shape[1] < 2:
        return False
    finite = rest[np.isfinite(rest[:, 1]), 1]
    return bool(finite.size) and bool(np.all(finite == np.round(finite))) and float(finite.max(initial=0.0)) >= 1.0


def _holds_labels(name: str, value: Array) -> bool:
    """Whether an output gives a class number a row, as integers or as floats that are whole."""
    if value.dtype.kind in "iu":
        return True
    return bool(_LABELS_NAME.search(name)) and value.size == value.shape[-1] and bool(np.all(value == np.round(value)))


def _is_flat(rows: Array | None) -> bool:
    """Whether there is one value a row, or one a class."""
    return rows is not None and rows.ndim <= 2


def _has_rows_of(other: str, boxes: RowFormat, shown: Sequence[Outputs]) -> bool:
    """Whether an output has something for each box, on every sample."""
    return all(boxes.take(outputs, other) is not None for outputs in shown)


def looks_like_boxes(name: str, clean: list[Floats], *, scored: bool = False) -> bool:
    """Whether an output is [1, rows, columns] (or [1, columns, rows]) of four sides, scores and perhaps a class.

    Args:
        name: Of the output.
        clean: Its values.
        scored: Whether another output gives a probability for each row.
    """
    turned = are_turned(clean)
    found = [rows for value in clean if (rows := as_box_rows(value, turned=turned)) is not None]
    if not found or len({rows.shape[1] for rows in found}) > 1:
        return False
    rows = np.concatenate(found)
    sides, scores = rows[:, :BOX_SIDES], rows[:, BOX_SIDES:]
    sides = sides[np.isfinite(sides).all(axis=1)]
    if not len(sides):
        return False
    corners = float(np.mean((sides[:, 2] >= sides[:, 0]) & (sides[:, 3] >= sides[:, 1])))
    positive = float(np.mean((sides[:, 2:] >= 0).all(axis=1)))
    if _BOX_NAME.search(name):
        return max(corners, positive) > 0.9
    in_pixels = float(sides.max() - sides.min()) > _LEAST_PIXELS
    several = max(len(rows) for rows in found) > 1
    if not scores.shape[1]:
        return scored and several and (corners > 0.98 or (in_pixels and positive > 0.98) or _lie_inside(sides))
    first = np.nan_to_num(scores[:, 0])
    if first.min() < 0.0 or first.max() > 1.0:
        return several and in_pixels and max(corners, positive) > 0.98 and _are_rare_logits(sides, scores)
    if in_pixels:
        return max(corners, positive) > 0.98
    # Shares of the image: told from other numbers within 0 and 1 by scores that are mostly next to nothing.
    rare = float(np.median(scores[:, 0])) < 0.1 < first.max()
    return rare and len(rows) > len(found) and (corners > 0.98 or _lie_inside(sides))


def _lie_inside(sides: Floats) -> bool:
    """Whether centre, width and height, as shares of an image, make boxes within it, here and there."""
    half = sides[:, 2:] / 2
    low, high = sides[:, :2] - half, sides[:, :2] + half
    inside = (half > 0.0).all(axis=1) & (low > -0.05).all(axis=1) & (high < 1.05).all(axis=1)
    return bool(np.mean(inside) > 0.98) and float(sides[:, :2].std()) > 0.1


def _are_rare_logits(sides: Floats, scores: Floats) -> bool:
    """Whether what stands behind sides in pixels are logits: mostly of nothing, now and then of something.

    Logits are small beside pixels, and a sigmoid of the first one is mostly next to nothing.
    """
    finite = scores[np.isfinite(scores).all(axis=1)]
    if not len(finite):
        return False
    best = finite.max(axis=1)
    small = float(np.abs(finite).max()) < float(np.abs(sides).max())
    return small and float(np.median(finite[:, 0])) < -2.0 and float(best.max()) > float(np.median(best)) + 2.0


def are_ranked(joined: Sequence[Floats]) -> bool:
    """Whether rows come in the order of their scores, or as many as there are: not one for each place in the image.

    Args:
        joined: [rows, columns] a sample.
    """
    if len({rows.shape for rows in joined}) > 1:
        return True
    scored = [rows[:, BOX_SIDES] for rows in joined if rows.shape[1] > BOX_SIDES and len(rows) > 1]
    return bool(scored) and all(bool(np.all(np.diff(np.nan_to_num(scores)) <= _UNIT)) for scores in scored)


def are_turned(values: Sequence[Array]) -> bool:
    """Whether the columns come before the rows: told by which of them changes its number, else by which are fewer."""
    shapes = {value.shape for value in values}
    rows, columns = ({shape[axis] for shape in shapes if len(shape) > 1} for axis in (-2, -1))
    if len(rows) > 1 or len(columns) > 1:
        return len(rows) == 1
    return bool(rows) and max(rows) < max(columns) > _WIDEST_PLAIN_BOX


def as_box_rows(value: Array, *, turned: bool) -> Array | None:
    """Returns [rows, columns] of an output of boxes; None where it is none."""
    if value.ndim == 4 and value.shape[2:] == (1, BOX_SIDES):
        value = value[:, :, 0]
    squeezed = value.reshape(value.shape[1:]) if value.ndim == 3 and value.shape[0] == 1 else value
    if squeezed.ndim != 2:
        return None
    squeezed = squeezed.T if turned else squeezed
    return squeezed if BOX_SIDES <= squeezed.shape[1] <= _MOST_BOX_COLUMNS else None
