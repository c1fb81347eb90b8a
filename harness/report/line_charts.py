"""Lines over numbers, one a target: what a time does as an answer or a prompt grows. Latencies as in `charts.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from modelwright.harness.formatting import shorten
from modelwright.harness.report.charts import FONT_PX, escape_text, latency_axis, linear_ticks, make_svg, text_width

_HEIGHT = 270
_LABEL_LENGTH = 26
_ROW_PX = FONT_PX + 3


@dataclass(frozen=True, kw_only=True)
class Line:
    """A target's line.

    Attributes:
        label: Stands at its right end.
        points: x and y, by x; y above 0. One point is drawn as a dot.
        color: Index of the runtime's colour.
        is_float: Others are dashed.
        is_ship: Whether it is the recommended one.
    """

    label: str
    points: Sequence[tuple[float, float]]
    color: int
    is_float: bool
    is_ship: bool


def draw_lines(lines: Sequence[Line], *, title: str, x_name: str, y_name: str, width: int = 520) -> Markup:
    """Draws lines with their names at the right.

    Args:
        lines: At least one, each with a point at least.
        title: For screen readers; plain text.
        x_name: What the horizontal axis shows.
        y_name: What the vertical axis shows, unit included.
        width: Of the drawing, pixels at its natural size.
    """
    top, bottom, left = 12.0, _HEIGHT - 44.0, 56.0
    labels = [shorten(line.label, _LABEL_LENGTH) for line in lines]
    right = width - max(text_width(label) for label in labels) * 1.05 - 14
    columns = sorted({x for line in lines for x, _ in line.points})
    low, high = columns[0], columns[-1]
    y_axis = latency_axis([y for line in lines for _, y in line.points], bottom, top)

    def x_of(value: float) -> float:
        return left + 8 + (right - left - 16) * ((value - low) / (high - low) if high > low else 0.5)

    parts = []
    for tick in y_axis.ticks:
        y = y_axis.pixel(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:.10g}</text>')
    shown = columns if len(columns) < 6 else [tick for tick in linear_ticks(low, high) if low <= tick <= high]
    parts += [
        f'<text class="tick" x="{x_of(tick):.1f}" y="{bottom + 17}" text-anchor="middle">{tick:.10g}</text>'
        for tick in shown
    ]
    parts.append(f'<path class="axis" d="M{left} {top}V{bottom}H{right:.1f}"/>')
    ends = [y_axis.pixel(line.points[-1][1]) for line in lines]
    for line, label, end, place in zip(lines, labels, ends, _spread(ends, top, bottom), strict=True):
        spots = [(x_of(x), y_axis.pixel(y)) for x, y in line.points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        dash = "" if line.is_float else " dashed"
        thick = " ship" if line.is_ship else ""
        parts.append(f'<path class="line c{line.color}{dash}{thick}" d="M{path}"/>')
        if len(columns) < 6:
            parts += [f'<circle class="dot c{line.color}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in spots]
        if abs(place - end) > 3:
            start = f'x1="{spots[-1][0] + 3:.1f}" y1="{end:.1f}"'
            parts.append(f'<line class="leader" {start} x2="{right + 4:.1f}" y2="{place:.1f}"/>')
        parts.append(
            f'<text class="t{thick}" x="{right + 6:.1f}" y="{place + 4:.1f}">{escape_text(label)}'
            f"<title>{escape_text(line.label)}</title></text>"
        )
    scale = ", logarithmic" if y_axis.log else ""
    parts.append(
        f'<text class="axis-name" x="{(left + right) / 2:.1f}" y="{bottom + 36}" text-anchor="middle">'
        f"{escape_text(x_name)}</text>"
        f'<text class="axis-name" transform="translate(12 {(top + bottom) / 2:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape_text(y_name + scale)}</text>"
    )
    return make_svg("".join(parts), width, _HEIGHT, title)


def _spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Returns heights for labels that are a row apart, in the order of the wanted ones and near to them."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    places = list(wanted)
    least = top
    for index in order:
        places[index] = least = max(wanted[index], least)
        least += _ROW_PX
    most = bottom
    for index in reversed(order):
        places[index] = min(places[index], most)
        most = places[index] - _ROW_PX
    return places
