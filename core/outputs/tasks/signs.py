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
_MOST_ELONGATED = 4
"""Images are up to this many times as long as they are wide; a table of rows is longer."""
_SIGNAL_CORRELATION = 0.5
"""Neighbours in a waveform or a spectrum move together; the features of an embedding stand in no order."""
BOX_SIDES = 4
_WIDEST_PLAIN_BOX = 7
"""Sides, score, class and an index: what detectors that suppress by themselves give, in as few rows as they find."""
_LEAST_PIXELS = 4.0
"""Sides that differ by more are pixels; shares of the image lie within 0 and 1."""
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

    shares = [axis for axis in fixed if are_shares(values, axis)]
    if len(shares) == 1:
        return shares[0]
    told = [_drop_padding(value) for value in values] if len(shape) == 3 else values

    def rate(axis: int) -> float:
        moved = [np.moveaxis(np.where(np.isfinite(v), v, np.nan), axis, 0).reshape(shape[axis], -1) for v in told]
        slices = np.concatenate(moved, axis=1)
        slices = slices[np.isfinite(slices).sum(axis=1) > 1]
        total = np.nanvar(slices) if len(slices) > 1 else 0.0
        if not total:
            return 0.0
        level = np.nanmean(slices, axis=1).var() / total
        spreads = np.log(np.nanstd(slices, axis=1) + 1e-12 + 1e-6 * np.nanstd(slices))
        # Many short slices differ by chance: what chance explains is taken off.
        chance = 1.0 / max(slices.shape[1], 1)
        return float(level + 0.25 * spreads.var() - chance)

    rates = {axis: rate(axis) for axis in fixed}
    # Without a clear sign, the convention: features last in sequences, second in images.
    usual = fixed[-1] if len(shape) == 3 else fixed[0]
    best = max(fixed, key=lambda axis: rates[axis])
    return best if rates[best] > 2 * rates[usual] + 0.05 else usual


def _drop_padding(value: Floats) -> Floats:
    """Returns [batch, positions, features] without the positions that hold one number throughout: padding."""
    if value.shape[-1] < 2:
        return value
    return np.where((value == value[..., :1]).all(axis=-1, keepdims=True), np.nan, value)


def _choose_image_axes(shape: tuple[int, ...], fixed: list[int]) -> list[int]:
    """Returns which of the second and the last axis can be an image's channels: the odd one beside equal sides.

    Of [batch, 1, height, width] and [batch, height, width, 1] none: there is one channel.
    """
    last = len(shape) - 1
    ends = [axis for axis in (1, last) if axis in fixed]
    sides = shape[2:] if shape[1] == 1 else shape[1:last] if shape[last] == 1 else ()
    if sides and max(sides) <= _MOST_ELONGATED * min(sides):
        return []
    if len(set(shape[2:])) == 1:
        return [axis for axis in ends if axis == 1]
    return [axis for axis in ends if axis == last] if len(set(shape[1:last])) == 1 else ends


def is_probability(clean: list[Floats]) -> bool:
    """Whether all values lie within 0 and 1, and use that range."""
    low = min((float(np.nanmin(v)) for v in clean if np.isfinite(v).any()), default=0.0)
    high = max((float(np.nanmax(v)) for v in clean if np.isfinite(v).any()), default=0.0)
    return low >= -1e-6 and high <= 1 + 1e-6 and low < 0.2 < high


def is_within_one(value: Array) -> bool:
    """Whether there are values, all of them probabilities by their size."""
    return bool(value.size) and bool(value.min() >= 0.0 and value.max() <= 1.0)


def are_shares(clean: list[Floats], axis: int | None) -> bool:
    """Whether the values along an axis are shares of a whole, as after a softmax, or the logarithms of such."""
    if axis is None or clean[0].shape[axis] < 2:
        return False
    finite = [value[np.isfinite(value)] for value in clean]
    low = min((float(value.min()) for value in finite if value.size), default=0.0)
    high = max((float(value.max()) for value in finite if value.size), default=0.0)
    if low >= -1e-6 or high > _UNIT_TOLERANCE:
        return low >= -1e-6 and _sums_to_one(clean, axis)
    # The logarithm of 0 is -inf, or what the model masks with.
    return _sums_to_one([np.exp(np.nan_to_num(value, nan=-np.inf)) for value in clean], axis)


def _sums_to_one(values: list[Floats], axis: int) -> bool:
    """Whether all sums along an axis are 1; slices without a number, and padding of zeros, say nothing."""
    sums = np.concatenate([value.sum(axis=axis).ravel() for value in values])
    sums = sums[np.isfinite(sums) & (sums != 0.0)]
    return bool(sums.size) and bool(np.abs(sums - 1).max() < _UNIT_TOLERANCE)


def is_signal(clean: list[Floats]) -> bool:
    """Whether neighbouring values of [1, width] move together, as in a waveform: they are positions, not features."""
    alike = len(clean) > 1 and len({value.shape for value in clean}) == 1
    usual = np.mean(clean, axis=0) if alike else np.concatenate([value.ravel() for value in clean]).mean()
    rows = [value - usual for value in clean]
    energy = sum(float(np.square(row).sum()) for row in rows)
    together = sum(float((row[..., 1:] * row[..., :-1]).sum()) for row in rows)
    return energy > 0.0 and together > _SIGNAL_CORRELATION * energy


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


def looks_like_boxes(name: str, clean: list[Floats], *, scored: bool = False) -> bool:
    """Whether an output is [1, rows, columns] (or [1, columns, rows]) of four sides, scores and perhaps a class.

    Args:
        name: Of the output.
        clean: Its values.
        scored: Whether another output gives a probability for each row.
    """
    found = [rows for value in clean if (rows := as_box_rows(value)) is not None]
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
    if not scores.shape[1]:
        several = max(len(rows) for rows in found) > 1
        return scored and several and (corners > 0.98 or (in_pixels and positive > 0.98) or _lie_inside(sides))
    inside = np.nan_to_num(scores[:, 0])
    if inside.min() < 0.0 or inside.max() > 1.0:
        return False
    if in_pixels:
        return max(corners, positive) > 0.98
    # Shares of the image: told from other numbers within 0 and 1 by scores that are mostly next to nothing.
    rare = float(np.median(scores[:, 0])) < 0.1 < inside.max()
    return rare and len(rows) > len(found) and (corners > 0.98 or _lie_inside(sides))


def _lie_inside(sides: Floats) -> bool:
    """Whether centre, width and height, as shares of an image, make boxes within it, here and there."""
    half = sides[:, 2:] / 2
    low, high = sides[:, :2] - half, sides[:, :2] + half
    inside = (half > 0.0).all(axis=1) & (low > -0.05).all(axis=1) & (high < 1.05).all(axis=1)
    return bool(np.mean(inside) > 0.98) and float(sides[:, :2].std()) > 0.1


def are_ranked(clean: list[Floats]) -> bool:
    """Whether rows come in the order of their scores, or as many as there are: not one for each place in the image."""
    found = [rows for value in clean if (rows := as_box_rows(value)) is not None]
    if len({rows.shape for rows in found}) > 1:
        return True
    scored = [rows[:, BOX_SIDES] for rows in found if rows.shape[1] > BOX_SIDES and len(rows) > 1]
    return bool(scored) and all(bool(np.all(np.diff(np.nan_to_num(scores)) <= 1e-6)) for scores in scored)


def as_box_rows(value: Array) -> Array | None:
    """Returns [rows, columns] of an output of boxes, turned where the columns come first; None where it is none."""
    squeezed = value.reshape(value.shape[1:]) if value.ndim == 3 and value.shape[0] == 1 else value
    if squeezed.ndim != 2:
        return None
    if squeezed.shape[0] < squeezed.shape[1] and squeezed.shape[1] > _WIDEST_PLAIN_BOX:
        squeezed = squeezed.T
    return squeezed if BOX_SIDES <= squeezed.shape[1] <= _MOST_BOX_COLUMNS else None
