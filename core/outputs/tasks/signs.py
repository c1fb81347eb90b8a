"""Signs in FP32's own answers of what an output means: which axis, which unit, what stands for "masked".

All take one array a sample, each [1, ...] as the model gave it; `clean` ones hold NaN where a value is none.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

SENTINEL_SIZE = 1e4
"""Masks are written as -1e4 (float16's safe minimum) or far below."""
_SENTINEL_GAP = 100.0
"""A sentinel is at least this many times as large as the largest of the other values."""
_LEAST_REPEATED, _REPEATED_GAP, _REPEATED_SHARE = 10.0, 5.0, 0.002
"""Smaller masks, such as -100, are told by standing there again and again, well beyond the rest."""
_SUM_SHARE = 0.5
"""Logits trained with cross-entropy move within the plane of a constant sum: the variance of their sum is a small share
of the sum of their variances, which for independent numbers is 1."""
_UNIT_TOLERANCE = 1e-3
_BOX_SIDES = 4
_WIDEST_PLAIN_BOX = 7
"""Sides, score, class and an index: what detectors that suppress by themselves give, in as few rows as they find."""
_MOST_BOX_COLUMNS = 512

_BOX_NAME = re.compile(r"bbox|box|\bdets?\b|detection", re.IGNORECASE)


def spread_indices(count: int, most: int) -> list[int]:
    """Returns indices evenly spread over a sequence: neighbours are often alike."""
    if count <= most:
        return list(range(count))
    return [round(index * (count - 1) / (most - 1)) for index in range(most)]


def drop_odd(value: Floats, sentinel: float | None) -> Floats:
    """Returns the finite values that are no sentinel, the others as NaN."""
    odd = ~np.isfinite(value) | is_sentinel(value, sentinel)
    return np.where(odd, np.nan, value)


def is_sentinel(value: Floats, sentinel: float | None) -> npt.NDArray[np.bool_]:
    """Marks the values that stand for "masked": of the sentinel's sign and at least half its size."""
    if sentinel is None:
        return np.zeros(value.shape, np.bool_)
    return np.asarray(value * np.sign(sentinel) >= abs(sentinel) / 2)


def find_sentinel(values: list[Floats]) -> float | None:
    """Returns the value that masks, of those far beyond all others and nearly equal among themselves."""
    flat = np.concatenate([value.ravel() for value in values])
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        return None
    repeated = _find_repeated_end(flat)
    if repeated is not None:
        return repeated
    large = flat[np.abs(flat) >= SENTINEL_SIZE]
    rest = flat[np.abs(flat) < SENTINEL_SIZE]
    if not large.size or not rest.size:
        return None
    least, most = float(np.abs(large).min()), float(np.abs(large).max())
    if not (np.all(large > 0) or np.all(large < 0)) or least < _SENTINEL_GAP * float(np.abs(rest).max()):
        return None
    # Sums of a few masks, or a mask plus a logit, still stand for it; continuous numbers do not.
    if most > 8 * least or len(np.unique(np.round(large / least, 1))) > 8:
        return None
    return float(np.sign(large[0])) * least


def _find_repeated_end(flat: Floats) -> float | None:
    """Returns the largest value when it stands there again and again to the last bit, far beyond all others."""
    end = flat[np.argmax(np.abs(flat))]
    same = flat == end
    rest = np.abs(flat[~same])
    if abs(end) < _LEAST_REPEATED or same.mean() < _REPEATED_SHARE or not rest.size or rest.max() == 0.0:
        return None
    return float(end) if abs(end) > _REPEATED_GAP * rest.max() else None


def find_axis(values: list[Floats]) -> int | None:
    """Returns the axis along which meaning changes.

    For [batch, channels] it is clear. Else the one of fixed length whose slices differ most from each other in level
    and spread, compared with what they vary within; classes and coordinates differ, positions hardly.
    """
    shape = values[0].shape
    axes = range(1 if len(shape) > 1 else 0, len(shape))
    fixed = [axis for axis in axes if all(v.ndim == len(shape) and v.shape[axis] == shape[axis] for v in values)]
    fixed = [axis for axis in fixed if shape[axis] > 1]
    if len(shape) >= 4:
        fixed = _choose_image_axes(shape, fixed)
    if not fixed:
        return None
    if len(fixed) == 1:
        return fixed[0]

    def rate(axis: int) -> float:
        moved = [
            np.moveaxis(np.nan_to_num(v, posinf=0.0, neginf=0.0), axis, 0).reshape(shape[axis], -1) for v in values
        ]
        slices = np.concatenate(moved, axis=1)
        total = slices.var()
        level = slices.mean(axis=1).var() / total if total else 0.0
        spreads = np.log(slices.std(axis=1) + 1e-12 + 1e-6 * slices.std())
        # Many short slices differ by chance: what chance explains is taken off.
        chance = 1.0 / max(slices.shape[1], 1)
        return float(level + 0.25 * spreads.var() - chance)

    rates = {axis: rate(axis) for axis in fixed}
    # Without a clear sign, the convention: features last in sequences, second in images.
    usual = fixed[-1] if len(shape) == 3 else fixed[0]
    best = max(fixed, key=lambda axis: rates[axis])
    return best if rates[best] > 2 * rates[usual] + 0.05 else usual


def _choose_image_axes(shape: tuple[int, ...], fixed: list[int]) -> list[int]:
    """Returns which of the second and the last axis can be an image's channels: the odd one beside equal sides."""
    last = len(shape) - 1
    ends = [axis for axis in (1, last) if axis in fixed]
    if len(set(shape[2:])) == 1:
        return [axis for axis in ends if axis == 1]
    return [axis for axis in ends if axis == last] if len(set(shape[1:last])) == 1 else ends


def is_probability(clean: list[Floats]) -> bool:
    """Whether all values lie within 0 and 1, and use that range."""
    low = min((float(np.nanmin(v)) for v in clean if np.isfinite(v).any()), default=0.0)
    high = max((float(np.nanmax(v)) for v in clean if np.isfinite(v).any()), default=0.0)
    return low >= -1e-6 and high <= 1 + 1e-6 and low < 0.2 < high


def sums_to_one(clean: list[Floats], axis: int | None) -> bool:
    """Whether the values along an axis are shares of a whole, as after a softmax."""
    if axis is None or clean[0].shape[axis] < 2:
        return False
    if any(np.nanmin(value) < -1e-6 for value in clean if np.isfinite(value).any()):
        return False
    sums = np.concatenate([value.sum(axis=axis).ravel() for value in clean])
    sums = sums[np.isfinite(sums)]
    return bool(sums.size) and bool(np.abs(sums - 1).max() < _UNIT_TOLERANCE)


def has_unit_rows(clean: list[Floats]) -> bool:
    """Whether every row is a vector of length 1, as vectors that are compared by cosine mostly are."""
    lengths = np.concatenate([np.linalg.norm(value.reshape(-1, value.shape[-1]), axis=1) for value in clean])
    return clean[0].shape[-1] >= 8 and bool(np.abs(lengths - 1).max() < _UNIT_TOLERANCE)


def moves_in_a_plane(clean: list[Floats], axis: int | None) -> bool:
    """Whether the sum over the channels varies far less than independent channels would make it."""
    if axis is None or len(clean) < 8:
        return False
    rows = np.concatenate([np.moveaxis(v, axis, -1).reshape(-1, v.shape[axis]) for v in clean])
    rows = rows[np.isfinite(rows).all(axis=1)]
    apart = float(rows.var(axis=0).sum()) if len(rows) > 1 else 0.0
    return apart > 0.0 and float(rows.sum(axis=1).var()) < _SUM_SHARE * apart


def looks_like_boxes(name: str, clean: list[Floats]) -> bool:
    """Whether an output is [1, rows, columns] (or [1, columns, rows]) of four sides, scores and perhaps a class."""
    rows = as_box_rows(clean[0])
    if rows is None:
        return False
    sides = np.concatenate([found[:, :_BOX_SIDES] for v in clean if (found := as_box_rows(v)) is not None])
    sides = sides[np.isfinite(sides).all(axis=1)]
    if not len(sides):
        return False
    corners = float(np.mean((sides[:, 2] >= sides[:, 0]) & (sides[:, 3] >= sides[:, 1])))
    positive = float(np.mean((sides[:, 2:] >= 0).all(axis=1)))
    if _BOX_NAME.search(name):
        return max(corners, positive) > 0.9
    scores = np.concatenate([found[:, _BOX_SIDES:] for v in clean if (found := as_box_rows(v)) is not None])
    if scores.shape[1] < 1:
        return False
    sides_range = float(sides.max() - sides.min())
    inside = np.nan_to_num(scores[:, 0])
    return max(corners, positive) > 0.98 and sides_range > 4.0 and inside.min() >= 0.0 and inside.max() <= 1.0


def are_ranked(clean: list[Floats]) -> bool:
    """Whether rows come in the order of their scores, or as many as there are: not one for each place in the image."""
    found = [rows for value in clean if (rows := as_box_rows(value)) is not None]
    if len({rows.shape for rows in found}) > 1:
        return True
    scored = [rows[:, _BOX_SIDES] for rows in found if rows.shape[1] > _BOX_SIDES and len(rows) > 1]
    return bool(scored) and all(bool(np.all(np.diff(np.nan_to_num(scores)) <= 1e-6)) for scores in scored)


def as_box_rows(value: Array) -> Array | None:
    """Returns [rows, columns] of an output of boxes, turned where the columns come first; None where it is none."""
    squeezed = value.reshape(value.shape[1:]) if value.ndim == 3 and value.shape[0] == 1 else value
    if squeezed.ndim != 2:
        return None
    if squeezed.shape[0] < squeezed.shape[1] and squeezed.shape[1] > _WIDEST_PLAIN_BOX:
        squeezed = squeezed.T
    return squeezed if _BOX_SIDES <= squeezed.shape[1] <= _MOST_BOX_COLUMNS else None
