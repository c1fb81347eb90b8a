"""The noise of one output's channels, and what is found by it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.checks import Check, as_loss, bound_share, format_share
from modelwright.core.outputs.tasks.lost import LostSamples
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.outputs.tasks.saturation import Saturation

Floats = npt.NDArray[np.float64]

UNLIKE_LIMITS = (1e-6, 1e-3)
"""Share of values that are NaN, infinite or masked in one alone: good, broken."""
SCALE_LIMITS = (0.05, 0.2)
"""How much steeper or flatter than FP32's an output runs: good, broken. Noise averages out for who uses many values; a
scale does not, and every metre or decibel is wrong by it. Where to call it broken is arbitrary between 10 and 30 %."""
OFFSET_LIMITS = (0.1, 0.3)
"""How far an output is off on average, in deviations of FP32's own: good, broken. It does not average out either."""
LOST_LIMITS = (0.005, 0.05)
"""Share of samples that are lost altogether: good, broken."""
_FEW_LOST = 5
RANGE_LIMITS = (0.1, 0.3)
"""How much of the way to FP32's end is missing where a channel stops short of it: good, broken. The largest are wrong
by that much, always in one direction, however few they are."""
CHOSEN_RANGE_LIMITS = (0.1, 1.0)
"""The same where answers are chosen from the numbers: a stop that changes none is worth knowing, and no more."""
PLACE_LIMITS = (0.1, 1.0)
"""Noise of one slice along another axis: good, broken. Of many slices one is noisy by chance, so more is let pass."""
STATE_CHANNEL_LIMITS = (0.1, 10.0)
"""Noise of one channel of a state: good, broken. A state is read by the model alone: what a channel is worth shows in
the outputs, so it is the whole state that decides, and a channel alone only where it drifts from all that FP32 has."""
_ROBUST_LEEWAY = 10.0
"""Noise against the typical instead of the mean square deviation is this much larger where values are heavy-tailed."""
NOISE_LIMITS = {
    "classes": (0.02, 0.5),
    "tokens": (0.02, 0.5),
    "mask": (0.02, 0.5),
    "boxes": (0.02, 0.5),
    "embedding": (0.02, 0.3),
    "state": (0.02, 0.3),
    "regression": (0.01, 0.15),
    "other": (0.01, 0.15),
}
"""Task -> noise that is good, noise that is broken: shares of a channel's variance (1 - R squared). Where answers are
chosen from the numbers, the task's own checks decide and noise only finds what is dead."""


MATCHED_LIMITS = (0.05, 0.5)
"""The same of rows that are matched besides: anchors hardly move, so that half a pixel is much of what sides vary."""


@dataclass(frozen=True, kw_only=True)
class ChannelNoise:
    """Noise of the channels of one output.

    Attributes:
        noise: float64 [channels]: energy of the error as a share of FP32's variation.
        place: Noise of the worst slice along another axis, each channel in its own unit: a border, a head, a position.
        place_text: Which slice that is; None where there is no other axis.
        robust: Noise of the worst channel against typical deviations; None where they do not say anything.
        rare: bool [channels]: whether too few positions have anything to say of the channel for its noise to refuse.
        pooled: Of all channels together, each in its own unit.
        lost: Samples that are lost altogether.
        offset: float64 [channels]: how far each is off on average, in FP32's deviations; what is sure of it.
        slope: How much each channel moves with FP32's: 1 is alike, 1.3 is 30 % too much. NaN where FP32's is constant.
        off_scale: How far the slope is surely off 1: what noise may have done by chance is taken off.
        saturation: The channel that stops shortest of FP32's end; None where none does.
        unlike: Values that are masked, NaN or infinite in one and not in the other, but where FP32 is NaN.
        count: Values compared.
    """

    noise: Floats
    rare: npt.NDArray[np.bool_]
    place: float
    place_text: str | None
    robust: float | None
    robust_channel: int
    pooled: float
    lost: LostSamples
    offset: Floats
    slope: Floats
    off_scale: Floats
    saturation: Saturation | None
    unlike: int
    count: int


def check_noise(role: OutputRole, seen: ChannelNoise) -> list[Check]:
    """Returns the findings about an output's values: unlike ones, the worst channel, the worst by the robust scale.

    Args:
        role: Of the output.
        seen: Its noise.
    """
    limits = NOISE_LIMITS[role.role] if role.rows is None else MATCHED_LIMITS
    good, broken = limits
    channels = len(seen.noise)
    checks = []

    def find(measure: str, value: float, limits: tuple[float, float], text: str) -> None:
        good, broken = limits
        checks.append(
            Check(output=role.name, measure=measure, value=as_loss(value), good=good, broken=broken, text=text)
        )

    if seen.unlike:
        text = f"{seen.unlike} of {seen.count} values are NaN, infinite or masked in one and not in the other"
        find("unlike", seen.unlike / max(seen.count, 1), UNLIKE_LIMITS, text)
    pooled = role.role in ("embedding", "state")
    noise = np.where(seen.rare, np.minimum(seen.noise, math.sqrt(good * broken)), seen.noise)
    channel = int(np.argmax(noise)) if noise.size else 0
    value = seen.pooled if pooled else float(noise.max(initial=0.0))
    find(
        "noise",
        value,
        limits,
        _describe(None if pooled else channel, channels, value if pooled else seen.noise[channel]),
    )
    if role.role == "state" and channels > 1:
        value = float(seen.noise[channel])
        find("channel_noise", value, STATE_CHANNEL_LIMITS, _describe(channel, channels, value))
    # Where answers are chosen from the numbers, what of these matters changes answers, and those are counted.
    plain = role.role in ("regression", "other")
    if plain and seen.off_scale.any():
        index = int(np.argmax(seen.off_scale))
        where = "the output moves" if channels == 1 else f"channel {index} of {channels} moves"
        text = f"{where} {seen.slope[index]:.3g} times as much as FP32's"
        find("scale", float(seen.off_scale[index]), SCALE_LIMITS, text)
    if plain and seen.offset.any():
        index = int(np.argmax(seen.offset))
        which = "it is" if channels == 1 else f"channel {index} of {channels} is"
        value = float(seen.offset[index])
        text = f"{which} off on average by {value:.2g} of the deviation of FP32's own values"
        find("offset", value, OFFSET_LIMITS, text)
    if (plain or role.role == "embedding") and seen.lost.lost:
        lost, count = seen.lost.lost, seen.lost.count
        text = f"{lost} of {count} samples are answered wrong by more than half of what answers vary"
        value = lost / count if lost >= _FEW_LOST else bound_share(lost, count, upper=False)
        find("lost_samples", value, LOST_LIMITS, text)
    if seen.saturation is not None:
        end = seen.saturation
        which = "it" if channels == 1 else f"channel {end.channel} of {channels}"
        text = f"{which} saturates at {end.stop:.4g} where FP32 reaches {end.reach:.4g}"
        find("range", end.lost, RANGE_LIMITS if plain else CHOSEN_RANGE_LIMITS, text)
    if plain and seen.place_text is not None:
        text = f"{seen.place_text} carries {format_share(seen.place)} noise"
        find("place_noise", seen.place, PLACE_LIMITS, text)
    if seen.robust is not None and not pooled:
        text = _describe(seen.robust_channel, channels, seen.robust) + " at its typical values"
        find("robust_noise", seen.robust, (good * _ROBUST_LEEWAY, broken * _ROBUST_LEEWAY), text)
    return checks


def _describe(channel: int | None, channels: int, noise: float) -> str:
    where = "the output carries" if channel is None or channels == 1 else f"channel {channel} of {channels} carries"
    return f"{where} {format_share(noise)} noise (error against FP32's own variation)"
