"""Which charts the report shows, and what goes into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from modelwright.harness.formatting import (
    energy_unit,
    format_bytes,
    format_cosine,
    format_ms,
    format_percent,
    format_significant,
)
from modelwright.harness.report.charts import Bar, Point, draw_bars, draw_scatter
from modelwright.harness.results.record import Comparison, Row

_COLORS = 6
_QUALITY_NAMES = {"accuracy": "accuracy", "agreement": "agreement with FP32", "cosine": "cosine with FP32"}


def draw_figures(comparison: Comparison, measured: Sequence[Row], verdict: Mapping[str, Any]) -> str:
    """Returns the charts' sections: the scatter where there is a quality axis, then the bars."""
    if not measured:
        return ""
    runtimes = list(dict.fromkeys(row.runtime for row in comparison.rows if row.measured))
    colors = {runtime: index % _COLORS for index, runtime in enumerate(runtimes)}
    ship = verdict["ship"]
    on_gpu = [row for row in measured if row.on_gpu]
    bars = [
        _latency_bars(measured, colors, ship),
        _computation_bars(on_gpu, colors, ship),
        *_energy_figures(comparison, measured, colors, ship),
        _plain_bars(measured, colors, ship, "size_bytes", "Size", "of the artifact's files"),
        _plain_bars(measured, colors, ship, "peak_memory_bytes", "Peak memory", "of the process that runs it"),
    ]
    if on_gpu:
        bars.append(_plain_bars(on_gpu, colors, ship, "gpu_memory_bytes", "GPU memory", "of the process that runs it"))
    return (
        _scatter_section(comparison, measured, verdict, colors)
        + f"<section>\n<h2>Target by target</h2>\n<div class='grid'>\n{''.join(bars)}</div>\n</section>\n"
    )


def _scatter_section(
    comparison: Comparison, measured: Sequence[Row], verdict: Mapping[str, Any], colors: Mapping[str, int]
) -> str:
    axis = str(verdict.get("quality") or "")
    if axis not in _QUALITY_NAMES:
        return ""
    points = []
    for row in measured:
        quality: float | None = getattr(row, axis)
        if quality is None and row.target == comparison.baseline and axis != "accuracy":
            quality = 1.0
        latency = row.typical_ms
        if quality is None or not latency or latency < 0:
            continue
        shown = format_cosine(quality) if axis == "cosine" else format_percent(quality)
        points.append(
            Point(
                label=row.title,
                x=latency,
                y=quality,
                whisker=row.accuracy_ci95 if axis == "accuracy" else None,
                color=colors[row.runtime],
                is_float=row.is_float,
                on_front=row.target in verdict["pareto"],
                is_ship=row.target == verdict["ship"],
                tooltip=f"{row.title}: {format_ms(latency)}, {axis} {shown}",
            )
        )
    if len(points) < 2:
        return ""
    # Four samples, or two points: noise in the quality must not look like a cliff.
    span = 0.002 if axis == "cosine" else max(0.02, 4 / (comparison.evaluation_count or 200))
    name = _QUALITY_NAMES[axis]
    # Text in a drawing shrinks with it: a narrow screen gets a drawing of its own width.
    charts = []
    for kind, width in (("wide", 1100), ("narrow", 470)):
        chart = draw_scatter(points, width=width, height=430, quality=name, percent=axis != "cosine", min_span=span)
        charts.append(f"<div class='{kind}'>{chart}</div>\n")
    whiskers = " Faint lines are 95 % intervals of the accuracy." if axis == "accuracy" else ""
    return (
        f"<section>\n<h2>Latency and {escape(axis)}</h2>\n"
        "<p class='soft'>The upper left is best. Nothing is both faster and better than what the dashed line connects; "
        f"differences within noise count as equal.{whiskers}</p>\n"
        f"{_legend(colors)}{''.join(charts)}</section>\n"
    )


def _legend(colors: Mapping[str, int]) -> str:
    marks = [
        (f'<rect class="c{color}" x="1" y="2" width="11" height="10" rx="2"/>', runtime)
        for runtime, color in colors.items()
    ]
    marks += [
        ('<circle class="leader" cx="7" cy="7" r="5"/>', "float"),
        ('<path class="leader" d="M7 1l6 6l-6 6l-6 -6z"/>', "INT8"),
        ('<circle class="ring" cx="7" cy="7" r="5.5"/>', "recommended"),
    ]
    items = "".join(
        f'<span><svg viewBox="0 0 14 14" aria-hidden="true">{shape}</svg>{escape(label, quote=True)}</span>'
        for shape, label in marks
    )
    return f"<div class='legend'>{items}</div>\n"


def _latency_bars(measured: Sequence[Row], colors: Mapping[str, int], ship: str | None) -> str:
    bars = [
        Bar(
            label=row.title,
            value=row.typical_ms,
            upper=row.p99_ms,
            text=_latency_text(row.p50_ms, row.mean_ms, row.p99_ms),
            color=colors[row.runtime],
            is_ship=row.target == ship,
        )
        for row in measured
    ]
    note = "p50, the whisker reaches to p99"
    if any(row.on_gpu for row in measured):
        note += "; from and to host memory"
    return _figure("Latency", note, draw_bars(bars, title="Latency", hatch_id="hatch-l"))


def _computation_bars(on_gpu: Sequence[Row], colors: Mapping[str, int], ship: str | None) -> str:
    """Draws the computation's own latency, a chart of its own: it is not comparable with a latency on a CPU."""
    if all(row.compute_p50_ms is None and row.compute_mean_ms is None for row in on_gpu):
        return ""
    bars = [
        Bar(
            label=row.title,
            value=row.compute_p50_ms if row.compute_p50_ms is not None else row.compute_mean_ms,
            upper=row.compute_p99_ms,
            text=_latency_text(row.compute_p50_ms, row.compute_mean_ms, row.compute_p99_ms),
            color=colors[row.runtime],
            is_ship=row.target == ship,
        )
        for row in on_gpu
    ]
    chart = draw_bars(bars, title="Computation alone", hatch_id="hatch-c")
    return _figure("Computation alone", "p50 to p99, inputs and outputs on the GPU", chart)


def _latency_text(p50_ms: float | None, mean_ms: float | None, p99_ms: float | None) -> str:
    typical_ms = p50_ms if p50_ms is not None else mean_ms
    if typical_ms is None:
        return "not measured"
    mean = "" if p50_ms is not None else " (mean)"
    p99 = "" if p99_ms is None else f" / {format_significant(p99_ms)}"
    return f"{format_significant(typical_ms)}{p99} ms{mean}"


def _energy_figures(
    comparison: Comparison, measured: Sequence[Row], colors: Mapping[str, int], ship: str | None
) -> list[str]:
    """Returns one chart, or one for each scope: bars side by side would compare a board with a processor."""
    scopes = comparison.energy_scopes
    if len(scopes) < 2:
        return [_energy_bars(measured, colors, ship)]
    charts = []
    for index, scope in enumerate(scopes):
        rows = [row for row in measured if row.energy_j is not None and (row.energy_scope or "") == scope]
        charts.append(_energy_bars(rows, colors, ship, covers=scope or "unknown", hatch_id=f"hatch-e{index}"))
    return charts


def _energy_bars(
    measured: Sequence[Row],
    colors: Mapping[str, int],
    ship: str | None,
    *,
    covers: str | None = None,
    hatch_id: str = "hatch-e",
) -> str:
    if all(row.energy_j is None for row in measured):
        reason = next((row.energy_reason for row in measured if row.energy_reason), None) or "no meter"
        return f"<figure><figcaption>Energy</figcaption><p class='soft'>Not measured: {escape(reason)}.</p></figure>\n"
    unit, factor = energy_unit(row.energy_j for row in measured)
    bars = []
    for row in measured:
        text = row.energy_reason or "no meter"
        if row.energy_j is not None:
            text = f"{format_significant(row.energy_j * factor)} {unit}{' (estimate)' if row.energy_estimated else ''}"
        bars.append(
            Bar(
                label=row.title,
                value=row.energy_j,
                text=text,
                color=colors[row.runtime],
                estimated=row.energy_estimated,
                is_ship=row.target == ship,
            )
        )
    note = "for one inference" + (", hatched: estimated" if any(row.energy_estimated for row in measured) else "")
    title = "Energy" if covers is None else f"Energy, {escape(covers)}"
    return _figure(title, note, draw_bars(bars, title="Energy for one inference", hatch_id=hatch_id))


def _plain_bars(
    measured: Sequence[Row], colors: Mapping[str, int], ship: str | None, field: str, title: str, note: str
) -> str:
    values: list[float | None] = [getattr(row, field) for row in measured]
    if all(value is None for value in values):
        return f"<figure><figcaption>{title}</figcaption><p class='soft'>Not measured.</p></figure>\n"
    bars = [
        Bar(
            label=row.title,
            value=value,
            text="not measured" if value is None else format_bytes(value),
            color=colors[row.runtime],
            is_ship=row.target == ship,
        )
        for row, value in zip(measured, values, strict=True)
    ]
    return _figure(title, note, draw_bars(bars, title=title, hatch_id=f"hatch-{field}"))


def _figure(title: str, note: str, chart: str) -> str:
    return f"<figure><figcaption>{title} <small>{escape(note)}</small></figcaption>{chart}</figure>\n"
