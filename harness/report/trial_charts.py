"""Charts of a search: how good each trial was, and what each value of a setting came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from modelwright.harness.formatting import shorten
from modelwright.harness.report.charts import escape_text, linear_ticks, make_svg, text_width

_LABEL_LENGTH = 30
_HEIGHT = 300


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A trial in the chart.

    Attributes:
        number: Its place.
        ratio: How many times as good as the first one.
        low: Of its interval; None without one.
        high: As `low`.
        color: Index of a colour.
        is_best: Whether it took the incumbent's place.
        tooltip: Plain text.
    """

    number: int
    ratio: float
    low: float | None
    high: float | None
    color: int
    is_best: bool
    tooltip: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """What trials with one value of a setting came to.

    Attributes:
        label: The value.
        ratios: Of each trial, how many times as good as the first one.
    """

    label: str
    ratios: Sequence[float]


def draw_attempts(attempts: Sequence[Attempt], *, width: int = 1100, axis: str) -> Markup:
    """Draws every trial with its interval, in order, and a line at what was best until then.

    Args:
        attempts: At least one.
        width: Of the drawing, pixels at its natural size.
        axis: What is drawn upwards.
    """
    ends = [value for each in attempts for value in (each.low, each.ratio, each.high) if value is not None]
    low, high = _pad(min(*ends, 1.0), max(*ends, 1.0))
    top, bottom, left, right = 14.0, _HEIGHT - 44.0, 58.0, width - 14.0
    last = max(each.number for each in attempts)

    def x_of(number: float) -> float:
        return left + 14 + (right - left - 28) * (number / last if last else 0.5)

    def y_of(ratio: float) -> float:
        return bottom - (ratio - low) / (high - low) * (bottom - top)

    parts = []
    for tick in linear_ticks(low, high):
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}x</text>')
    parts.append(f'<path class="axis" d="M{left} {top}V{bottom}H{right}"/>')
    parts.append(_best_line(attempts, x_of, y_of, right))
    for each in attempts:
        x = x_of(each.number)
        if each.low is not None and each.high is not None:
            ends_px = f'y1="{y_of(each.low):.1f}" y2="{y_of(each.high):.1f}"'
            parts.append(f'<line class="ci c{each.color}" x1="{x:.1f}" x2="{x:.1f}" {ends_px}/>')
        ring = f'<circle class="ring" cx="{x:.1f}" cy="{y_of(each.ratio):.1f}" r="8"/>' if each.is_best else ""
        dot = f'<circle class="dot c{each.color}" cx="{x:.1f}" cy="{y_of(each.ratio):.1f}" r="4.5"/>'
        parts.append(f"<g>{ring}{dot}<title>{escape_text(each.tooltip)}</title></g>")
    middle = (top + bottom) / 2
    parts += [
        f'<text class="tick" x="{x_of(tick):.1f}" y="{bottom + 17}" text-anchor="middle">{tick}</text>'
        for tick in sorted({0, last // 2, last})
    ]
    parts.append(
        f'<text class="axis-name" x="{(left + right) / 2:.1f}" y="{bottom + 36}" text-anchor="middle">trial</text>'
    )
    parts.append(
        f'<text class="axis-name" transform="translate(12 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape_text(axis)}</text>"
    )
    return make_svg("".join(parts), width, _HEIGHT, f"Each trial: {axis}")


def _best_line(
    attempts: Sequence[Attempt], x_of: Callable[[float], float], y_of: Callable[[float], float], right: float
) -> str:
    """Returns the steps of what was best."""
    best = [each for each in attempts if each.is_best]
    if not best:
        return ""
    path = f"M{x_of(best[0].number):.1f} {y_of(best[0].ratio):.1f}"
    path += "".join(f"H{x_of(each.number):.1f}V{y_of(each.ratio):.1f}" for each in best[1:])
    return f'<path class="front" d="{path}H{right}"/>'


def draw_strips(strips: Sequence[Strip], *, title: str, width: int = 520) -> Markup:
    """Draws a row for each value of a setting, with a dot for each trial that had it.

    Args:
        strips: At least one.
        title: For screen readers; plain text.
        width: Of the drawing, pixels at its natural size.
    """
    every = [ratio for strip in strips for ratio in strip.ratios]
    low, high = _pad(min(*every, 1.0), max(*every, 1.0))
    label_px = min(210.0, max(text_width(shorten(strip.label, _LABEL_LENGTH)) for strip in strips) + 12)
    row_px, right = 26, width - 20.0
    bottom = len(strips) * row_px + 4

    def x_of(ratio: float) -> float:
        return label_px + 8 + (ratio - low) / (high - low) * (right - label_px - 8)

    parts = []
    for tick in linear_ticks(low, high):
        parts.append(f'<line class="grid" x1="{x_of(tick):.1f}" x2="{x_of(tick):.1f}" y1="0" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x_of(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:.4g}x</text>'
        )
    for index, strip in enumerate(strips):
        y = index * row_px + 15
        parts.append(
            f'<text class="t" x="{label_px - 6:.1f}" y="{y + 4}" text-anchor="end">'
            f"{escape_text(shorten(strip.label, _LABEL_LENGTH))}<title>{escape_text(strip.label)}</title></text>"
        )
        parts += [f'<circle class="dot behind c0" cx="{x_of(ratio):.1f}" cy="{y}" r="4.5"/>' for ratio in strip.ratios]
    return make_svg("".join(parts), width, bottom + 24, title)


def _pad(low: float, high: float) -> tuple[float, float]:
    """Returns the ends of an axis: the values with some room, and a range of 4 % at least."""
    missing = max(0.0, 0.04 - (high - low))
    pad = (high - low + missing) * 0.08
    return low - missing / 2 - pad, high + missing / 2 + pad
