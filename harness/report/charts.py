"""Charts as inline SVG, drawn in Python: no script, no network. Colours come from the page's style sheet.

The report's template escapes all it is given but `Markup`, which is made here and nowhere else: every text in a
drawing goes through `escape_text`.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from modelwright.harness.formatting import clean_text, format_significant, shorten

FONT_PX = 12.0
LOG_FROM = 10.0
"""Latencies that differ by more than this are drawn on a logarithmic axis."""

_GLYPH_EM = 0.63
"""Mean width of a glyph in the system's sans-serif fonts, on the wide side so that labels do not touch."""

_LABEL_LENGTH = 26
_LABEL_PX = 200.0
"""Of the labels of bars: what is wider, in bold or in wide characters, is shortened further."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A target in the scatter chart.

    Attributes:
        x: Latency in milliseconds, above 0.
        y: Quality as a share of 0..1 or a cosine.
        whisker: The 95 % interval of `y`.
        color: Index of the runtime's colour.
        tooltip: Plain text; everything given here is escaped when it is drawn.
    """

    label: str
    x: float
    y: float
    whisker: tuple[float, float] | None
    color: int
    is_float: bool
    on_front: bool
    is_ship: bool
    tooltip: str


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A row of a bar chart.

    Attributes:
        value: Length in the chart's unit; None draws `text` alone.
        upper: Where the whisker ends, such as p99.
        text: The figure as people read it, or why there is none.
        estimated: Draws the bar hatched.
    """

    label: str
    value: float | None
    text: str
    color: int
    upper: float | None = None
    estimated: bool = False
    is_ship: bool = False


@dataclass(frozen=True, kw_only=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: _Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: _Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Maps values to pixels, and knows where its ticks are."""

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool
    ticks: tuple[float, ...]

    def pixel(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        share = ((math.log(value) if self.log else value) - low) / (high - low)
        return self.start_px + share * (self.end_px - self.start_px)


def text_width(text: str, font_px: float = FONT_PX) -> float:
    """Estimates the width of a text in pixels; wide East Asian characters count double."""
    ems = sum(1.0 if unicodedata.east_asian_width(char) in "WF" else _GLYPH_EM for char in text)
    return ems * font_px


def draw_scatter(
    points: Sequence[Point],
    *,
    width: int,
    height: int,
    quality: str,
    percent: bool,
    min_span: float,
    time: str = "median latency, ms",
) -> Markup:
    """Draws latency against quality with the Pareto front.

    Args:
        points: At least one.
        width: Of the drawing, pixels at its natural size.
        height: As `width`.
        quality: What the vertical axis shows.
        percent: Whether it is a share, shown in percent.
        min_span: The least range of the vertical axis, so that one sample's difference does not fill the chart.
        time: What the horizontal axis shows.
    """
    top, bottom = 16.0, height - 48.0
    y_axis = quality_axis([point.y for point in points], min_span, bottom, top)
    y_labels = _quality_labels(y_axis, percent=percent)
    area = _Box(left=max(map(text_width, y_labels), default=0.0) + 34, top=top, right=width - 18.0, bottom=bottom)
    x_axis = latency_axis([point.x for point in points], area.left, area.right)
    front = _front_corners(points, x_axis, y_axis, area)
    parts = [_grid(x_axis, y_axis, y_labels, area, (time, quality)), _front_line(front)]
    spots = [(x_axis.pixel(point.x), y_axis.pixel(point.y)) for point in points]
    for point, (x, _) in zip(points, spots, strict=True):
        if point.whisker is not None:
            low, high = y_axis.pixel(point.whisker[0]), y_axis.pixel(point.whisker[1])
            parts.append(f'<line class="ci c{point.color}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
    parts += [_marker(point, x, y) for point, (x, y) in zip(points, spots, strict=True)]
    labels = place_labels(points, spots, area, front)
    for point, (x, y), box in zip(points, spots, labels, strict=True):
        if box is not None:
            parts.append(_label(point, x, y, box))
    title = f"Latency against {quality}"
    return make_svg("".join(parts), width, height, title)


def latency_axis(values: Sequence[float], start_px: float, end_px: float) -> _Axis:
    """Returns the latency axis: logarithmic when the values differ by more than `LOG_FROM`."""
    low, high = min(values), max(values)
    if high / low > LOG_FROM:
        low, high = low / 1.35, high * 1.35
        return _Axis(low=low, high=high, start_px=start_px, end_px=end_px, log=True, ticks=_log_ticks(low, high))
    ticks = linear_ticks(0, high * 1.12)
    return _Axis(low=0, high=high * 1.12, start_px=start_px, end_px=end_px, log=False, ticks=ticks)


def quality_axis(values: Sequence[float], min_span: float, start_px: float, end_px: float) -> _Axis:
    """Returns the quality axis, padded, of at least `min_span`."""
    low, high = min(values), max(values)
    missing = max(0.0, min_span - (high - low))
    low, high = low - missing * 0.7, high + missing * 0.3
    pad = (high - low) * 0.12
    low, high = low - pad, high + 1.6 * pad
    ticks = tuple(tick for tick in linear_ticks(low, high) if tick <= 1 + 1e-9)
    return _Axis(low=low, high=high, start_px=start_px, end_px=end_px, log=False, ticks=ticks)


def place_labels(
    points: Sequence[Point],
    spots: Sequence[tuple[float, float]],
    area: _Box,
    front: Sequence[tuple[float, float]] = (),
) -> list[_Box | None]:
    """Finds a place for each point's label that touches no other label, no point and no edge.

    The recommended target and the front choose first, and all keep off the front's line if they can. A label without
    a free place is left out: the point's tooltip and the table have its name.
    """
    taken = [_Box(left=x - 8, top=y - 8, right=x + 8, bottom=y + 8) for x, y in spots]
    lines = [
        _Box(left=min(x1, x2) - 2, top=min(y1, y2) - 2, right=max(x1, x2) + 2, bottom=max(y1, y2) + 2)
        for (x1, y1), (x2, y2) in pairwise(front)
    ]
    places: list[_Box | None] = [None] * len(points)
    ranks = sorted(range(len(points)), key=lambda index: (not points[index].is_ship, not points[index].on_front))
    for index in ranks:
        x, y = spots[index]
        width = text_width(shorten(points[index].label, _LABEL_LENGTH)) * _weight(points[index]) + 4
        free = [
            box
            for box in _label_places(x, y, width, FONT_PX + 5)
            if box.within(area) and not any(box.overlaps(other) for other in taken)
        ]
        if free:
            best = next((box for box in free if not any(box.overlaps(line) for line in lines)), free[0])
            places[index] = best
            taken.append(best)
    return places


def _label_places(x: float, y: float, width: float, height: float) -> list[_Box]:
    """Returns places around a point, nearest first."""
    boxes = []
    for distance in (0.0, 14.0, 28.0, 44.0, 62.0, 82.0, 104.0):
        for side, rise in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            if rise == 0 and distance > 0:
                continue
            center_y = y + rise * (height / 2 + 9 + distance)
            left = {1: x + 10, 0: x - width / 2, -1: x - width - 10}[side]
            boxes.append(_Box(left=left, top=center_y - height / 2, right=left + width, bottom=center_y + height / 2))
    return boxes


def draw_bars(bars: Sequence[Bar], *, title: str, hatch_id: str, width: int = 520) -> Markup:
    """Draws horizontal bars with their figures; whiskers reach to `upper`.

    Args:
        bars: In the order to draw.
        title: For screen readers; plain text.
        hatch_id: An id for the pattern of estimated bars, unique on the page.
        width: Of the drawing, pixels at its natural size.
    """
    labels = [_fit_label(bar) for bar in bars]
    label_px = max(text_width(label) * _weight(bar) for label, bar in zip(labels, bars, strict=True)) + 10
    text_px = max((text_width(bar.text) * _weight(bar) for bar in bars if bar.value is not None), default=0.0) + 12
    full = max(60.0, width - label_px - text_px)
    top = _bar_scale(bars)
    row_px = 28
    hatched = ""
    parts = []
    for index, (label, bar) in enumerate(zip(labels, bars, strict=True)):
        y = index * row_px + 4
        middle = y + 10
        weight = " ship" if bar.is_ship else ""
        parts.append(
            f'<text class="t{weight}" x="{label_px - 8:.1f}" y="{middle + 4}" text-anchor="end">'
            f"{escape_text(label)}<title>{escape_text(bar.label)}</title></text>"
        )
        if bar.value is None:
            note = escape_text(shorten(bar.text, 48))
            parts.append(f'<text class="t none" x="{label_px:.1f}" y="{middle + 4}">{note}</text>')
            continue
        length = max(1.5, bar.value / top * full)
        end = label_px + length
        shape = f'x="{label_px:.1f}" y="{y}" width="{length:.1f}" height="20" rx="2"'
        parts.append(f'<rect class="bar c{bar.color}" {shape}/>')
        if bar.estimated:
            hatched = _hatch(hatch_id)
            parts.append(f'<rect fill="url(#{hatch_id})" {shape}/>')
        if bar.upper is not None and bar.upper > bar.value:
            tip = label_px + min(1.0, bar.upper / top) * full
            # A whisker that leaves the chart ends in an arrow.
            arrow = f"M{tip - 5:.1f} {middle - 4}L{tip:.1f} {middle}L{tip - 5:.1f} {middle + 4}"
            cap = f"M{tip:.1f} {middle - 5}V{middle + 5}" if bar.upper <= top else arrow
            parts.append(f'<path class="whisker" d="M{end:.1f} {middle}H{tip:.1f}{cap}"/>')
            end = tip
        parts.append(f'<text class="t{weight}" x="{end + 6:.1f}" y="{middle + 4}">{escape_text(bar.text)}</text>')
    return make_svg(hatched + "".join(parts), width, len(bars) * row_px + 4, title)


def _fit_label(bar: Bar) -> str:
    """Returns the label of a bar, no wider than the place for it."""
    length = _LABEL_LENGTH
    while length > 1 and text_width(shorten(bar.label, length)) * _weight(bar) > _LABEL_PX:
        length -= 1
    return shorten(bar.label, length)


def _weight(item: Bar | Point) -> float:
    """Returns how much wider the text is for being bold."""
    return 1.12 if item.is_ship else 1.0


def _bar_scale(bars: Sequence[Bar]) -> float:
    """Returns the value at the chart's right end: the longest whisker, but no outlier squeezes all bars to nothing."""
    longest = max((bar.value for bar in bars if bar.value is not None), default=0.0)
    whisker = max((bar.upper for bar in bars if bar.upper is not None), default=0.0)
    return max(longest, min(whisker, longest * 1.5)) or 1.0


def _quality_labels(axis: _Axis, *, percent: bool) -> list[str]:
    """Returns the ticks' labels, with the decimals that keep neighbours apart."""
    step = axis.ticks[1] - axis.ticks[0] if len(axis.ticks) > 1 else 0.01
    decimals = max(0, -math.floor(math.log10(step * (100 if percent else 1)) + 1e-9))
    return [f"{tick * 100:.{decimals}f} %" if percent else f"{tick:.{decimals}f}" for tick in axis.ticks]


def _grid(x_axis: _Axis, y_axis: _Axis, y_labels: Sequence[str], area: _Box, names: tuple[str, str]) -> str:
    parts = []
    for tick in x_axis.ticks:
        x = x_axis.pixel(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{area.top}" y2="{area.bottom}"/>')
        label = f"{tick:.10g}"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{area.bottom + 17}" text-anchor="middle">{label}</text>')
    for tick, label in zip(y_axis.ticks, y_labels, strict=True):
        y = y_axis.pixel(tick)
        parts.append(f'<line class="grid" x1="{area.left}" x2="{area.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{area.left - 7:.1f}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    middle_x, middle_y = (area.left + area.right) / 2, (area.top + area.bottom) / 2
    scale = ", logarithmic" if x_axis.log else ""
    parts.append(f'<path class="axis" d="M{area.left} {area.top}V{area.bottom}H{area.right}"/>')
    parts.append(
        f'<text class="axis-name" x="{middle_x:.1f}" y="{area.bottom + 38}" text-anchor="middle">'
        f"{escape_text(names[0])}{scale} (left is faster)</text>"
    )
    parts.append(
        f'<text class="axis-name" transform="translate(12 {middle_y:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape_text(names[1])}</text>"
    )
    return "".join(parts)


def _front_corners(points: Sequence[Point], x_axis: _Axis, y_axis: _Axis, area: _Box) -> list[tuple[float, float]]:
    """Returns the corners of the front: the best quality that is to be had at each latency, as steps."""
    corners: list[tuple[float, float]] = []
    best = -math.inf
    for point in sorted((point for point in points if point.on_front), key=lambda point: (point.x, -point.y)):
        # Ties on the front can be slower and a sample worse: the line does not go down for them.
        if point.y > best:
            x = x_axis.pixel(point.x)
            corners += [(x, corners[-1][1] if corners else area.bottom), (x, y_axis.pixel(point.y))]
            best = point.y
    return [*corners, (area.right, corners[-1][1])] if corners else []


def _front_line(corners: Sequence[tuple[float, float]]) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
    return f'<path class="front" d="M{path}"/>' if path else ""


def _marker(point: Point, x: float, y: float) -> str:
    """Draws a circle for a float target and a diamond for INT8; the recommended one has a ring."""
    ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="10"/>' if point.is_ship else ""
    classes = f"dot c{point.color}{'' if point.on_front else ' behind'}"
    if point.is_float:
        shape = f'<circle class="{classes}" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'
    else:
        shape = f'<path class="{classes}" d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z"/>'
    return f"<g>{ring}{shape}<title>{escape_text(point.tooltip)}</title></g>"


def _label(point: Point, x: float, y: float, box: _Box) -> str:
    text = escape_text(shorten(point.label, _LABEL_LENGTH))
    leader = ""
    if abs((box.top + box.bottom) / 2 - y) > 24:
        near_x = min(max(x, box.left), box.right)
        near_y = box.top if box.top > y else box.bottom
        leader = f'<line class="leader" x1="{x:.1f}" y1="{y:.1f}" x2="{near_x:.1f}" y2="{near_y:.1f}"/>'
    classes = "t ship" if point.is_ship else "t"
    return f'{leader}<text class="{classes}" x="{box.left + 2:.1f}" y="{box.bottom - 5:.1f}">{text}</text>'


def linear_ticks(low: float, high: float) -> tuple[float, ...]:
    """Returns four to eight round values within an interval."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return tuple(index * step for index in range(first, math.floor(high / step + 1e-9) + 1))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Returns 1, 2 and 5 times powers of ten within an interval; powers alone where that would be too many."""
    factors = (1, 2, 5) if high / low < 2000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return tuple(float(format_significant(tick)) for tick in ticks if low <= tick <= high)


def _hatch(hatch_id: str) -> str:
    return (
        f'<defs><pattern id="{hatch_id}" width="7" height="7" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect class="hatch" width="3" height="7"/></pattern></defs>'
    )


def make_svg(content: str, width: int, height: float, title: str) -> Markup:
    """Returns a drawing, whose texts were escaped before; the title, for screen readers, is escaped here."""
    return Markup(  # noqa: S704 (the content is drawn here, its texts escaped)
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape_text(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{content}</svg>'
    )


def escape_text(text: str) -> str:
    """Returns text that is safe in SVG, in attributes too: what XML forbids is replaced, not only what HTML acts on."""
    return html.escape(clean_text(text), quote=True)
