"""How closely an output's numbers follow FP32's, channel by channel, against what FP32's own vary over the samples.

One number over a whole output is no evidence: boxes in pixels drown their scores, a constant grid drowns the motion
that is added to it, and a mask of -1e9 drowns everything. So each channel is held against its own variation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.checks import Z_ONE_SIDED, Check
from modelwright.core.outputs.tasks.lost import LostMeter
from modelwright.core.outputs.tasks.noise import ChannelNoise, check_noise
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.outputs.tasks.rows import BOX_SIDES
from modelwright.core.outputs.tasks.saturation import SaturationMeter
from modelwright.core.outputs.tasks.signs import SENTINEL_SIZE, is_sentinel
from modelwright.core.outputs.tasks.sums import ChannelSums, ElementSums

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

LEAST_SAMPLES = 4
"""Under it, variation over samples says nothing: the spread over positions stands in for it."""
_CONSTANT_SHARE = 1e-5
"""A channel that varies by less than this share of its size is constant up to rounding in float32."""
_CONSTANT_TOLERANCE = 0.05
"""An error of this share of a constant channel's size is noise as large as a signal; bfloat16's 0.4 % is good."""
_LEAST_UNIT = 1e-3
"""An error that counts as large where FP32 gives nothing but zeros: arbitrary, as nothing says what its unit is."""
_UNIT_FLOOR_SHARE = 0.1
"""Channels of one unit (the classes of one head) count as varying by at least this share of what they vary on average:
the tail of a class that never comes up is not what a user looks at."""
_PROBABILITY_FLOOR = 0.01
"""Nor is a probability's third digit."""
_SAID, _UNSAID_FLOOR_SHARE = 0.5, 0.1
"""Probabilities of classes that FP32 hardly ever names are held against a share of what those vary that it names: there
is nothing in them that could be lost, and what is named instead is counted with the answers."""
_LEAST_WEIGHT = 5.0
"""Positions that must carry the probability of a class before its noise alone is called broken, as many as its recall
asks for."""
_PLACE_FLOOR_SHARE = 0.1
_SIDE_FLOOR_SHARE = 0.1
"""A box's side counts as varying by at least this share of what sides vary over the image, though the anchors of a raw
head hardly move: how far the boxes that are detections moved is looked at after matching."""
_FEATURE_FLOOR_SHARE = 0.1
"""Features of one vector count as varying by at least this share of their mean variance: whoever compares vectors, or
computes on with them, looks at them together."""
_FEATURES = 32
_MOSTLY = 0.9
"""Share of many channels that are constant up to rounding, from which on the others' size is no measure of it."""
_SAMPLED_VALUES = 2**16
_MAD_TO_SIGMA = 1.4826


class ValueMeter:
    """Sums over one float output, an inference at a time.

    Memory: six float64 arrays of one sample's size, and up to 2**16 sampled pairs.
    """

    def __init__(self, role: OutputRole) -> None:
        self.role = role
        self._samples = 0
        self._shape: tuple[int, ...] | None = None
        self._fixed: ElementSums | None = None
        self._channels: ChannelSums | None = None
        self._ends: SaturationMeter | None = None
        self._lost = LostMeter()
        self._unlike = 0
        self._values = 0
        self._pairs: list[tuple[Floats, Floats]] = []
        self._picked: npt.NDArray[np.int64] | None = None

    def add(self, expected: Array, found: Array) -> None:
        """Takes FP32's output and the candidate's, of the same shape."""
        wanted, have = np.asarray(expected, np.float64), np.asarray(found, np.float64)
        odd = ~np.isfinite(wanted) | is_sentinel(wanted, self.role.sentinel)
        broken = ~np.isfinite(have) | is_sentinel(have, self.role.sentinel)
        # FP32's NaN is no answer, so nothing is asked there; a mask is one, and any number that masks will do.
        masks = broken | (np.abs(have) >= SENTINEL_SIZE)
        same = np.isnan(wanted) | (odd & masks & ~np.isnan(have) & (np.sign(wanted) == np.sign(have)))
        self._unlike += int(np.count_nonzero((odd | broken) & ~same))
        self._values += wanted.size
        usable = ~odd & ~broken
        reference = np.where(usable, wanted, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.where(usable, have - wanted, 0.0)
        if self._shape is None:
            self._shape = wanted.shape
            self._fixed = ElementSums(wanted.shape)
            size = max(1, wanted.size)
            generator = np.random.default_rng(0)
            self._picked = np.sort(generator.choice(size, min(wanted.size, _SAMPLED_VALUES // 16), replace=False))
        by_channel = [self._by_channel(value) for value in (usable, reference, error)]
        if self._channels is None or self._ends is None:
            self._channels, self._ends = ChannelSums(), SaturationMeter(len(by_channel[0]))
        self._lost.add(by_channel[2], self._find_deviation(by_channel[0], by_channel[1]))
        self._channels.add(*by_channel)
        self._ends.add(*by_channel)
        if self._fixed is not None:
            if wanted.shape == self._shape:
                self._fixed.add(usable, reference, error)
                self._sample(usable, reference, error)
            else:
                self._fixed = None
        self._samples += 1

    def _find_deviation(self, usable: Array, reference: Floats) -> Floats:
        """Returns how far FP32's values, [channels, positions], are from their means so far."""
        mean: Floats | float = 0.0
        if self._fixed is not None and self._fixed.mean.size == reference.size:
            mean = self._by_channel(self._fixed.mean)
        elif self._channels is not None and len(self._channels.mean) == len(reference):
            mean = self._channels.mean[:, None]
        return np.where(usable, reference - mean, 0.0)

    def _sample(self, usable: Array, reference: Floats, error: Floats) -> None:
        if len(self._pairs) < 16 and self._picked is not None and self._picked.size:
            picked = self._picked
            masked = np.where(usable.ravel()[picked], reference.ravel()[picked], np.nan)
            self._pairs.append((masked, error.ravel()[picked]))

    def _by_channel(self, value: Array) -> Array:
        axis = self.role.axis
        if axis is None or axis >= value.ndim:
            return value.reshape(1, -1)
        return np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)

    def result(self) -> ChannelNoise:
        """Returns the noise of every channel."""
        assert self._channels is not None, "nothing was compared"
        sums = self._channels
        if self._fixed is not None and self._samples >= LEAST_SAMPLES:
            counts, energy, variation = self._fixed.sums()
            count, error, size, spread, shared = (
                self._by_channel(value).sum(axis=1)
                for value in (counts, self._fixed.error, energy, variation, self._fixed.shared)
            )
        else:
            count, error, size, spread, shared = sums.count, sums.error, sums.energy, sums.spread, sums.shared
        floor = self._find_floor(count, size, spread, sums)
        varying = np.where(spread > floor, spread, np.nan)
        excess = shared / varying
        chance = np.sqrt(np.maximum(error - excess * shared, 0.0) / varying / np.maximum(count, 1))
        noise = np.where(error > 0, error / np.maximum(np.maximum(spread, floor), 1e-300), 0.0)
        pooled = float(np.average(noise, weights=count)) if count.sum() else 0.0
        robust, channel = self._robust(floor / np.maximum(count, 1))
        place, place_text = self._find_worst_place(np.maximum(spread, floor) / np.maximum(count, 1))
        return ChannelNoise(
            noise=noise,
            rare=self._find_rare(sums),
            place=place,
            place_text=place_text,
            robust=robust,
            robust_channel=channel,
            pooled=pooled,
            lost=self._lost.result(np.maximum(spread, floor) / np.maximum(count, 1)),
            offset=_find_offset(sums, varying / np.maximum(count, 1)),
            slope=1.0 + excess,
            off_scale=np.nan_to_num(np.maximum(np.abs(excess) - Z_ONE_SIDED * chance, 0.0)),
            saturation=None if self._ends is None else self._ends.result(np.asarray(spread > floor)),
            unlike=self._unlike,
            count=self._values,
        )

    def _find_rare(self, sums: ChannelSums) -> npt.NDArray[np.bool_]:
        """Of the probabilities of classes: those of classes that FP32 gives a chance to in a handful of positions.

        Of thousands of characters or labels some come up once, and one answer that flips is all noise there. Flips are
        counted; so are the classes that come up often enough.
        """
        if not self.role.is_probability or self.role.role not in ("classes", "tokens", "mask"):
            return np.zeros(len(sums.count), np.bool_)
        return np.asarray(sums.find_weight() < _LEAST_WEIGHT)

    def _find_worst_place(self, variance: Floats) -> tuple[float, str | None]:
        """Returns the noise of the worst slice along the axes that are not the channels'.

        Args:
            variance: Of each channel, that makes their values comparable.
        """
        if self._fixed is None or self._samples < LEAST_SAMPLES or self._shape is None:
            return 0.0, None
        shape, axis = self._shape, self.role.axis
        unit = np.maximum(variance, 1e-300)
        scale = (
            unit.reshape([-1 if index == axis else 1 for index in range(len(shape))]) if axis is not None else unit[0]
        )
        error, spread = self._fixed.error / scale, self._fixed.variation / scale
        worst, text = 0.0, None
        for other in range(1, len(shape)):
            if other == axis or shape[other] < 2:
                continue
            rest = tuple(index for index in range(len(shape)) if index != other)
            errors, spreads = error.sum(axis=rest), spread.sum(axis=rest)
            floor = _PLACE_FLOOR_SHARE * float(spreads.mean())
            if floor > 0.0:
                noise = errors / np.maximum(spreads, floor)
                index = int(np.argmax(noise))
                if noise[index] > worst:
                    worst, text = float(noise[index]), f"slice {index} of {shape[other]} along axis {other}"
        return worst, text

    def _find_floor(self, count: Floats, size: Floats, spread: Floats, sums: ChannelSums) -> Floats:
        """Returns the least variation (a sum of squares) that each channel's error is held against."""
        size = _find_size(count, size, spread)
        constant = spread <= _CONSTANT_SHARE**2 * size
        floor = np.where(constant, _CONSTANT_TOLERANCE**2 * size, 0.0)
        # A channel that is always 0 has no size: the others' variation lends it one.
        usual = float(np.median((spread / np.maximum(count, 1))[~constant])) if not constant.all() else 0.0
        least = max(_CONSTANT_TOLERANCE**2 * usual, _LEAST_UNIT**2)
        floor = np.where(size == 0.0, least * count, floor)
        one_unit = np.zeros(len(count), np.bool_)
        if constant.all() and self.role.role in ("classes", "tokens", "mask"):
            # One sample, or the same again and again: classes vary beside each other, if not over samples.
            mean = sums.mean - np.average(sums.mean, weights=count) if count.sum() else sums.mean
            return np.maximum(floor, float(np.mean(mean**2)) * count)
        if self._holds_features(len(count)):
            return np.maximum(floor, _FEATURE_FLOOR_SHARE * float(spread.sum() / max(count.sum(), 1.0)) * count)
        if self.role.is_probability or self.role.role in ("classes", "tokens", "mask", "state"):
            one_unit[:] = True
        elif self.role.role == "boxes":
            # Of rows of boxes: the columns that are scores. Sides in pixels are units of their own.
            scores = 0 if self.role.rows is None else self.role.rows.scores
            one_unit[BOX_SIDES : BOX_SIDES + scores] = True
            usual_side = float((sums.spread / np.maximum(count, 1))[:BOX_SIDES].max(initial=0.0))
            least_side = _SIDE_FLOOR_SHARE**2 * usual_side * count
            floor[:BOX_SIDES] = np.maximum(floor, least_side)[:BOX_SIDES]
        if one_unit.any():
            mean_square = float(spread[one_unit].sum() / max(count[one_unit].sum(), 1.0))
            least = _UNIT_FLOOR_SHARE**2 * mean_square
            if self.role.is_probability or self.role.role == "boxes":
                least = max(least, _PROBABILITY_FLOOR**2)
            said = one_unit & (sums.high >= _SAID)
            if self.role.is_probability and self.role.role in ("classes", "tokens", "mask") and said.any():
                least = max(least, _UNSAID_FLOOR_SHARE * float(spread[said].sum() / max(count[said].sum(), 1.0)))
            floor = np.where(one_unit, np.maximum(floor, least * count), floor)
        return floor

    def _holds_features(self, channels: int) -> bool:
        """Whether the channels are those of vectors: many, and none with a unit of its own."""
        wide = self.role.role == "other" and channels >= _FEATURES and not self.role.is_probability
        return self.role.role == "embedding" or wide

    def _robust(self, floor: Floats) -> tuple[float | None, int]:
        """Returns the worst channel's noise against typical deviations, and the channel."""
        if len(self._pairs) < LEAST_SAMPLES or self._fixed is None or self._picked is None or self._shape is None:
            return None, 0
        reference = np.array([pair[0] for pair in self._pairs])
        error = np.array([pair[1] for pair in self._pairs])
        channel = np.zeros(self._picked.size, np.int64)
        if self.role.axis is not None:
            channel = np.unravel_index(self._picked, self._shape)[self.role.axis]
        present = ~np.isnan(reference).any(axis=0)
        worst, place = None, 0
        for index in np.unique(channel[present]):
            chosen = present & (channel == index)
            values = reference[:, chosen]
            deviation = np.abs(values - np.median(values, axis=0))
            scale = _MAD_TO_SIGMA * float(np.median(deviation))
            size = float(np.sqrt(np.mean(values**2)))
            if values.size < 64 or scale <= max(_CONSTANT_SHARE * size, math.sqrt(floor[index])):
                continue
            typical = _MAD_TO_SIGMA * float(np.median(np.abs(error[:, chosen])))
            noise = (typical / scale) ** 2
            if worst is None or noise > worst:
                worst, place = noise, int(index)
        return worst, place

    def kept(self) -> float | None:
        """Returns R squared of the worst channel."""
        return None if self._channels is None else 1.0 - float(self.result().noise.max(initial=0.0))

    def checks(self) -> list[Check]:
        """Returns the findings: unlike values, the worst channel, and the worst by the robust scale."""
        return [] if self._channels is None else check_noise(self.role, self.result())


def _find_size(count: Floats, size: Floats, spread: Floats) -> Floats:
    """Returns each channel's size (a sum of squares), by which rounding in float32 is known.

    In a network that answers everything alike, a logit near 0 is a sum of products as large as those of the others, and
    is rounded as they are: its last bits are no signal.
    """
    if len(size) < _FEATURES or np.mean(spread <= _CONSTANT_SHARE**2 * size) < _MOSTLY:
        return size
    return np.maximum(size, float(size.sum() / max(count.sum(), 1.0)) * count)


def _find_offset(sums: ChannelSums, variance: Floats) -> Floats:
    """Returns how far each channel is off on average, in FP32's deviations, less what noise may do by chance."""
    count = np.maximum(sums.count, 1)
    scatter = np.sqrt(np.maximum(sums.error / count - sums.bias**2, 0.0) / count)
    sure = np.maximum(np.abs(sums.bias) - Z_ONE_SIDED * scatter, 0.0)
    return np.nan_to_num(sure / np.sqrt(variance))
