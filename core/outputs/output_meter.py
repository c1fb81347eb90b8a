"""How closely one output follows its reference: the sums over consecutive inferences, and what comes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.signs import is_sentinel
from modelwright.core.records.codec import Amount, Cosine, Count, Number, Record, Share

Array = npt.NDArray[Any]

_LEAST_SAMPLES_FOR_VARIATION = 4
_VARIES_SHARE = 0.01
"""An output varies when its standard deviation over samples is more than this share of its norm: well above the
step of an 8-bit output, so that coarse rounding is not taken for an artifact that ignores its input."""
_FEW = 2
"""Values a sample whose cosine would say too little: of one its sign, of two classes which of both is larger."""
_LAYOUT_COSINE = 0.99
_LAYOUT_TRIES = 8
"""Samples on which permuted layouts are tried: enough to tell, and large outputs stay cheap."""


class OutputFidelity(Record):
    """How one output follows its reference, over all samples.

    Attributes:
        name: As in the signature.
        is_float: Whether the reference is floating point; cosine and errors are None otherwise.
        cosine_mean: Mean over samples of the cosine between the whole outputs. Both zero: 1; one zero, NaN, infinity or
            another shape: 0. An output of one or two values a sample, whose cosine would be a sign or say no more
            than which of both is larger, is compared as the vector of all samples' values, less FP32's means where
            they vary.
        cosine_min: Of the worst sample; of an output of one or two values the same as `cosine_mean`.
        max_abs_error: Largest difference of one element, in the output's own unit.
        relative_l2_error: ||y - y0|| / ||y0|| over all samples; None when the reference is zero and y is not.
        r_squared: Share of the reference's variation between samples that is followed: 1 - var(y - y0) / var(y0),
            summed over elements. 1 follows all, 0 or less none. None with fewer than 4 samples, varying shapes or no
            variation.
        is_constant: The same on every sample to the last bit, while the reference varies: it ignores its input.
        equal_share: Of integer and bool outputs: share of equal elements. None for float ones.
        nonfinite: Elements that are NaN or infinite where the reference is finite.
        reference_nonfinite: Elements left out because the reference itself is NaN or infinite.
        shape_fault: For instance `expected [1, 5], got [5]`, of the first sample that differs. An axis whose length
            changes with the input's values in the reference too, such as the number of detections, may differ: the
            shorter one is then filled up with zeros, which no integer equals.
        layout: The axes' permutation after which the values match, such as (0, 3, 1, 2), when only that helps.
    """

    name: str
    is_float: bool
    cosine_mean: Cosine | None
    cosine_min: Cosine | None
    max_abs_error: Amount | None
    relative_l2_error: Amount | None
    r_squared: Number | None
    is_constant: bool
    equal_share: Share | None
    nonfinite: Count
    reference_nonfinite: Count
    shape_fault: str | None
    layout: tuple[Count, ...] | None


class OutputMeter:
    """Sums over one output; keeps no outputs but the first sample's, to tell whether they ever change.

    Args:
        name: Of the output.
        is_float: Whether it holds floating-point numbers.
        sentinel: The value that stands for "masked".
        free_axis: One along which a candidate may be longer or shorter.
    """

    def __init__(
        self, name: str, *, is_float: bool, sentinel: float | None = None, free_axis: int | None = None
    ) -> None:
        self._name = name
        self._sentinel = sentinel
        self._is_float = is_float
        self._samples = 0
        self._cosine_sum = 0.0
        self._cosine_min = 1.0
        self._max_abs_error = 0.0
        self._error_energy = 0.0
        self._energy = 0.0
        self._equal = 0
        self._elements = 0
        self._non_finite = 0
        self._reference_non_finite = 0
        self._mismatch: str | None = None
        self._lengths = _Lengths(free_axis)
        self._filled_cosine_sum = 0.0
        self._variation: _Variation | None = _Variation() if is_float else None
        self._few: _FewValues | None = _FewValues() if is_float else None
        self._layouts: dict[tuple[int, ...], list[float]] = {}

    def add(self, expected: Array, found: Array | None) -> None:
        """Takes one inference's output and its reference; None when the candidate has no such output."""
        self._samples += 1
        self._lengths.add(expected, found)
        if found is not None and found.shape != expected.shape and found.ndim == expected.ndim:
            self._add_filled(expected, found)
        if found is None or found.shape != expected.shape:
            if self._mismatch is None:
                got = "none of that name" if found is None else str(list(found.shape))
                self._mismatch = f"expected {list(expected.shape)}, got {got}"
            self._cosine_min = 0.0
            self._elements += expected.size
            self._variation = self._few = None
            if found is not None and self._is_float:
                self._try_layouts(expected, found)
        elif self._is_float:
            self._add_float(expected, found)
        else:
            self._elements += expected.size
            self._equal += int(np.count_nonzero(expected == found))

    def _add_filled(self, expected: Array, found: Array) -> None:
        """Compares outputs of other lengths, for the case that lengths turn out to depend on the values."""
        shared = tuple(slice(min(sizes)) for sizes in zip(expected.shape, found.shape, strict=True))
        if self._is_float:
            shape = np.maximum(expected.shape, found.shape)
            wanted, have = np.zeros(shape), np.zeros(shape)
            wanted[tuple(map(slice, expected.shape))] = expected
            have[tuple(map(slice, found.shape))] = found
            finite = np.isfinite(wanted) & np.isfinite(have)
            self._filled_cosine_sum += _cosine(np.where(finite, wanted, 0.0), np.where(finite, have, 0.0))
        else:
            self._equal += int(np.count_nonzero(expected[shared] == found[shared]))

    def _add_float(self, expected: Array, found: Array) -> None:
        wanted, have = _to_float64(expected), _to_float64(found)
        comparable = np.isfinite(wanted)
        broken = comparable & ~np.isfinite(have) & ~self._stands_for_masked(wanted, have)
        self._reference_non_finite += int(wanted.size - np.count_nonzero(comparable))
        broken_count = int(np.count_nonzero(broken))
        self._non_finite += broken_count
        sound = comparable & np.isfinite(have)
        wanted, have = np.where(sound, wanted, 0.0), np.where(sound, have, 0.0)
        cosine = 0.0 if broken_count else _cosine(wanted, have)
        self._cosine_sum += cosine
        self._cosine_min = min(self._cosine_min, cosine)
        difference = have - wanted
        if difference.size:
            self._max_abs_error = max(self._max_abs_error, float(np.abs(difference).max()))
        self._error_energy += float(np.vdot(difference, difference))
        self._energy += float(np.vdot(wanted, wanted))
        if self._variation is not None and not self._variation.add(wanted, difference, have):
            self._variation = None
        if self._few is not None and (broken_count or not self._few.add(wanted, have)):
            self._few = None
        if cosine < _LAYOUT_COSINE and not broken_count:
            self._try_layouts(wanted, have)

    def _stands_for_masked(self, wanted: Array, have: Array) -> npt.NDArray[np.bool_]:
        """Marks infinities where FP32 says "masked" with a number, such as -1e9, that 16 bits do not hold."""
        if self._sentinel is None:
            return np.zeros(wanted.shape, np.bool_)
        return np.asarray(is_sentinel(wanted, self._sentinel) & (have == math.copysign(math.inf, self._sentinel)))

    def _try_layouts(self, expected: Array, found: Array) -> None:
        """Notes how well the values match after moving the channels, when they do not match as they are."""
        if expected.ndim not in (3, 4, 5) or found.size != expected.size or found.ndim != expected.ndim:
            return
        if not np.isfinite(expected).all() or not np.isfinite(found).all():
            return
        for axes in _channel_moves(expected.ndim):
            seen = self._layouts.setdefault(axes, [])
            moved = found.transpose(axes)
            if len(seen) < _LAYOUT_TRIES and moved.shape == expected.shape:
                seen.append(_cosine(_to_float64(expected), _to_float64(moved)))

    def result(self) -> OutputFidelity:
        """Returns what was seen so far."""
        matches = {axes: float(np.mean(seen)) for axes, seen in self._layouts.items() if seen}
        best = max(matches, key=lambda axes: matches[axes], default=None)
        layout = best if best is not None and matches[best] >= _LAYOUT_COSINE else None
        mean, least, mismatch = self._cosine_sum / self._samples, self._cosine_min, self._mismatch
        if self._lengths.may_differ:
            mean, mismatch = mean + self._filled_cosine_sum / self._samples, None
        if self._few is not None and self._samples >= _LEAST_SAMPLES_FOR_VARIATION:
            over_all = self._few.cosine()
            mean, least = (mean, least) if over_all is None else (over_all, over_all)
        errors = self._mismatch is None and self._is_float
        variation = self._variation
        return OutputFidelity(
            name=self._name,
            is_float=self._is_float,
            cosine_mean=mean if self._is_float else None,
            cosine_min=least if self._is_float else None,
            max_abs_error=_finite(self._max_abs_error) if errors else None,
            relative_l2_error=_relative_error(self._error_energy, self._energy) if errors else None,
            r_squared=None if variation is None else variation.r_squared(),
            is_constant=variation is not None and variation.is_ignored(self._energy),
            equal_share=None if self._is_float else (self._equal / self._elements if self._elements else 1.0),
            nonfinite=self._non_finite,
            reference_nonfinite=self._reference_non_finite,
            shape_fault=mismatch,
            layout=layout if mean < _LAYOUT_COSINE else None,
        )


class _Lengths:
    """Which axes change their length in the reference, and on which ones the candidate's differs from it.

    Args:
        free: An axis that is known to change, such as that of detections, though it may not on these samples.
    """

    def __init__(self, free: int | None = None) -> None:
        self._first: tuple[int, ...] | None = None
        self._changing = set() if free is None else {free}
        self._differing: set[int] = set()
        self._same_rank = True

    def add(self, expected: Array, found: Array | None) -> None:
        """Takes one inference's output and its reference."""
        self._first = self._first or expected.shape
        shapes = (self._first, () if found is None else found.shape)
        for axes, shape in zip((self._changing, self._differing), shapes, strict=True):
            if len(shape) != expected.ndim or found is None:
                self._same_rank = False
            else:
                axes.update(axis for axis, size in enumerate(expected.shape) if size != shape[axis])

    @property
    def may_differ(self) -> bool:
        """Whether the candidate differs only on axes that change in the reference."""
        return self._same_rank and bool(self._differing) and self._differing <= self._changing


class _Variation:
    """Between-sample variation of a reference and of the difference to it (Welford 1962: one pass, no cancellation)."""

    def __init__(self) -> None:
        self._count = 0
        self._means: list[Array] = []
        self._energies = [0.0, 0.0]
        self._first: Array | None = None
        self._same = True

    def add(self, expected: Array, difference: Array, found: Array) -> bool:
        """Takes one sample; returns False when its shape differs from the ones before."""
        if self._first is None:
            self._first = found.copy()
            self._means = [np.zeros_like(expected), np.zeros_like(difference)]
        elif self._first.shape != found.shape:
            return False
        self._count += 1
        self._same = self._same and bool(np.array_equal(self._first, found))
        for index, value in enumerate((expected, difference)):
            offset = value - self._means[index]
            self._means[index] += offset / self._count
            self._energies[index] += float(np.vdot(offset, value - self._means[index]))
        return True

    def r_squared(self) -> float | None:
        reference, residual = self._energies
        # Rounding alone makes a constant output vary by some 1e-16 of itself.
        if self._count < _LEAST_SAMPLES_FOR_VARIATION or reference <= 1e-24 * self._mean_energy():
            return None
        return _finite(1.0 - residual / reference)

    def is_ignored(self, energy: float) -> bool:
        """Whether the candidate never changed while the reference varies by a share of its norm."""
        varies = self._energies[0] > _VARIES_SHARE**2 * energy
        return self._count >= _LEAST_SAMPLES_FOR_VARIATION and self._same and varies

    def _mean_energy(self) -> float:
        return self._count * float(np.vdot(self._means[0], self._means[0]))


class _FewValues:
    """Sums over an output of one or two values a sample: of each, of its reference, their squares and their product."""

    def __init__(self) -> None:
        self._count = 0
        self._sums = np.zeros((5, 0))

    def add(self, expected: Array, found: Array) -> bool:
        """Takes one sample; returns False when it has more or fewer values than those before, or than one or two."""
        if not self._count:
            self._sums = np.zeros((5, expected.size))
        if not 0 < expected.size <= _FEW or expected.size != self._sums.shape[1]:
            return False
        x, y = expected.ravel(), found.ravel()
        self._count += 1
        with np.errstate(over="ignore"):
            self._sums += (x, y, x * x, y * y, x * y)
        return True

    def cosine(self) -> float | None:
        """Returns the cosine over samples, less FP32's means in both where FP32 varies by a share of its norm.

        None where squares of the values overflow.
        """
        if not np.isfinite(self._sums).all():
            return None
        x, y = self._sums[:2]
        xx, yy, xy = (float(value) for value in self._sums[2:].sum(axis=1))
        means = x / self._count
        shared = self._count * float(np.dot(means, means))
        varying = xx - shared
        if varying > _VARIES_SHARE**2 * xx:
            xy -= float(np.dot(means, x + y)) - shared
            yy -= 2 * float(np.dot(means, y)) - shared
            xx = varying
        if xx <= 0.0 or yy <= 0.0:
            return 1.0 if xx == yy else 0.0
        return max(-1.0, min(1.0, xy / math.sqrt(xx * yy)))


def is_float(array: Array) -> bool:
    """Returns whether an array is floating point, bfloat16 included."""
    # ml_dtypes' bfloat16 has the kind V.
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _to_float64(array: Array) -> npt.NDArray[np.float64]:
    return np.asarray(array, dtype=np.float64)


def _cosine(first: Array, second: Array) -> float:
    """Cosine of two arrays as vectors; both zero is 1, one zero is 0. Scaled first, so that squares do not overflow."""
    scales = [float(np.abs(array).max()) if array.size else 0.0 for array in (first, second)]
    if not all(scales):
        return 1.0 if not any(scales) else 0.0
    one, other = (first / scales[0]).ravel(), (second / scales[1]).ravel()
    cosine = float(np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other)))
    return max(-1.0, min(1.0, cosine))


def _relative_error(error_energy: float, energy: float) -> float | None:
    if energy == 0.0:
        return 0.0 if error_energy == 0.0 else None
    return _finite(math.sqrt(error_energy / energy))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _channel_moves(rank: int) -> Sequence[tuple[int, ...]]:
    """Axis orders that move the channels from the last place to the second or back."""
    last = rank - 1
    to_second, to_last = (0, last, *range(1, last)), (0, *range(2, rank), 1)
    return list(dict.fromkeys((to_second, to_last)))
