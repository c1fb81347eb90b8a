"""Signs in FP32's own answers of what an output means: which axis, which unit, what stands for "masked".

All take one array a sample, each [1, ...] as the model gave it; `clean` ones hold NaN where a value is none.
"""

from __future__ import annotations

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
_Z_ONE_IN_100 = 2.326
_UNIT_TOLERANCE = 1e-3
_MOST_ELONGATED = 4
"""Images are up to this many times as long as they are wide; a table of rows is longer."""
_SIGNAL_CORRELATION = 0.5
"""Neighbours in a waveform or a spectrum move together; the features of an embedding stand in no order."""
_DECIDED = 0.12
"""Mean distance from 0 or 1, whichever is nearer, up to which numbers within them are decisions; evenly spread ones are
0.25 away."""
_FEWEST_ROWS = 8
_MOST_ONE_ANSWER = 0.9


def is_number(array: Array) -> bool:
    """Whether an array holds floating-point numbers, bfloat16 included."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def as_sigmoid(logits: Floats) -> Floats:
    """Returns the probabilities of logits that are decided each by itself."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -500.0, 500.0))))


def as_softmax(logits: Floats) -> Floats:
    """Returns the probabilities of logits of which one is chosen, along the last axis."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


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
    fewer = [axis for axis in ends if _is_fewer_than_pixels(shape, axis)]
    if len(fewer) == 1:
        return fewer
    sides = shape[2:] if shape[1] == 1 else shape[1:last] if shape[last] == 1 else ()
    if sides and max(sides) <= _MOST_ELONGATED * min(sides):
        return []
    if len(set(shape[2:])) == 1:
        return [axis for axis in ends if axis == 1]
    return [axis for axis in ends if axis == last] if len(set(shape[1:last])) == 1 else ends


def _is_fewer_than_pixels(shape: tuple[int, ...], axis: int) -> bool:
    """Whether an axis is shorter than the others, and those are the sides of an image: channels mostly are so."""
    sides = [size for other, size in enumerate(shape) if other not in (0, axis)]
    return shape[axis] < min(sides) and max(sides) <= _MOST_ELONGATED * min(sides)


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


def are_decisions(clean: list[Floats]) -> bool:
    """Whether probabilities mostly lie next to 0 or 1, as after a sigmoid: each says yes or no by itself."""
    near = np.concatenate([np.minimum(value, 1.0 - value).ravel() for value in clean])
    near = near[np.isfinite(near)]
    return bool(near.size) and float(near.mean()) < _DECIDED


def has_unit_rows(clean: list[Floats]) -> bool:
    """Whether every row is a vector of length 1, as vectors that are compared by cosine mostly are."""
    lengths = np.concatenate([np.linalg.norm(value.reshape(-1, value.shape[-1]), axis=1) for value in clean])
    return clean[0].shape[-1] >= 8 and bool(np.abs(lengths - 1).max() < _UNIT_TOLERANCE)


def moves_in_a_plane(clean: list[Floats], axis: int | None) -> bool:
    """Whether the sum over the channels varies far less than independent channels would make it."""
    if axis is None or len(clean) < _FEWEST_ROWS:
        return False
    rows = np.concatenate([np.moveaxis(v, axis, -1).reshape(-1, v.shape[axis]) for v in clean])
    rows = rows[np.isfinite(rows).all(axis=1)]
    if len(rows) < 2:
        return False
    apart = float(rows.var(axis=0).sum())
    # Of few rows the sum of independent channels, too, varies little by chance: chi-squared (Wilson, Hilferty 1931).
    spare = 2 / (9 * (len(rows) - 1))
    chance = max(0.0, 1 - spare - _Z_ONE_IN_100 * spare**0.5) ** 3
    return apart > 0.0 and float(rows.sum(axis=1).var()) < min(_SUM_SHARE, chance) * apart


def lies_in_a_plane(clean: list[Floats]) -> bool:
    """Whether [1, width] sum to one number up to rounding, as after a normalization: training never gets that far."""
    rows = np.concatenate([value.reshape(-1, value.shape[-1]) for value in clean])
    rows = rows[np.isfinite(rows).all(axis=1)]
    return bool(len(rows)) and float(rows.sum(axis=1).std()) < 1e-4 * float(np.abs(rows).sum(axis=1).mean())


def has_varying_top(clean: list[Floats]) -> bool:
    """Whether in most of [1, width] one value stands out, now this one and now that: a class, no feature.

    The largest of n numbers of a bell curve lies less than sqrt(2 ln n) deviations above their mean.
    """
    rows = np.concatenate([value.reshape(-1, value.shape[-1]) for value in clean])
    rows = rows[np.isfinite(rows).all(axis=1)]
    if len(rows) < _FEWEST_ROWS or rows.shape[1] < 2:
        return False
    rows = rows - rows.mean(axis=0)
    tops = np.argmax(rows, axis=1)
    usual = np.bincount(tops).max() / len(rows)
    heights = (rows.max(axis=1) - rows.mean(axis=1)) / np.maximum(rows.std(axis=1), 1e-30)
    return bool(usual < _MOST_ONE_ANSWER and np.median(heights) > np.sqrt(2 * np.log(rows.shape[1])))


def are_far_below_zero(clean: list[Floats], axis: int | None) -> bool:
    """Whether logits mostly say no, and to none or several of the classes as often as to one: each by itself.

    Logits of which one is chosen are about as often above 0 as below.
    """
    if axis is None or clean[0].shape[axis] < 4 or len(clean) < _FEWEST_ROWS or moves_in_a_plane(clean, axis):
        return False
    rows = np.concatenate([np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis]) for value in clean])
    rows = rows[np.isfinite(rows).all(axis=1)]
    yeses = (rows > 0.0).sum(axis=1)
    if not len(rows) or not yeses.any():
        return False
    return bool(rows.mean() < -rows.std() and np.mean(yeses) < 0.25 * rows.shape[1] and np.mean(yeses != 1) > 0.3)


def mostly_tops_at_an_end(clean: list[Floats], axis: int | None) -> bool:
    """Whether the first or the last channel is the largest at most positions, not at all: the blank of a CTC head."""
    if axis is None or clean[0].shape[axis] < 3:
        return False
    tops = np.concatenate([np.argmax(np.nan_to_num(value, nan=-np.inf), axis=axis).ravel() for value in clean])
    ends = [float(np.mean(tops == end)) for end in (0, clean[0].shape[axis] - 1)]
    return 0.3 < max(ends) < 0.999


def are_alike(clean: list[Floats]) -> bool:
    """Whether the channels of [1, width] have about one level and spread, as features have: no units of their own."""
    rows = np.concatenate([value.reshape(-1, value.shape[-1]) for value in clean])
    rows = rows[np.isfinite(rows).all(axis=1)]
    if len(rows) < _FEWEST_ROWS:
        return False
    spreads = rows.std(axis=0)
    within, between = float(np.mean(spreads**2)), float(rows.mean(axis=0).var())
    return within > 0.0 and between < 2 * within and float(np.median(spreads)) > 0.3 * float(spreads.max())
