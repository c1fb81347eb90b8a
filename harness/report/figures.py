"""Which charts the report shows, and what goes into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from modelwright.harness.formatting import (
    clean_text,
    energy_unit,
    format_cosine,
    format_ms,
    format_percent,
    format_significant,
)
from modelwright.harness.report.charts import Bar, Point, draw_bars, draw_scatter
from modelwright.harness.results.metrics import METRICS
from modelwright.harness.results.places import Chart, Metric
from modelwright.harness.results.record import Comparison, Measurement, Verdict
from modelwright.harness.results.statistics import Latency
from modelwright.harness.verdict.wording import name_quality

_COLORS = 6
_QUALITY_NAMES = {
    "accuracy": "accuracy",
    "agreement": "agreement with FP32",
    "cosine": "cosine with FP32",
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A bar chart and its caption.

    Attributes:
        note: What the bars mean, or why there is no chart.
        chart: None where nothing was measured.
    """

    title: str
    note: str
    chart: Markup | None


@dataclass(frozen=True, kw_only=True)
class ScatterFigure:
    """Latency against quality, drawn twice: text in a drawing shrinks with it, and a narrow screen needs its own.

    Attributes:
        axis: What the quality is, in words.
        whiskers: Whether points have the intervals of their accuracy.
        colors: Runtime to the index of its colour, for the legend.
    """

    axis: str
    whiskers: bool
    colors: Mapping[str, int]
    wide: Markup
    narrow: Markup


def draw_bar_figures(comparison: Comparison, measured: Sequence[Measurement], verdict: Verdict) -> list[Figure]:
    """Returns the bar charts, target by target, in the order to show."""
    if not measured:
        return []
    bars = _Bars(colors=_choose_colors(comparison), ship=verdict.ship)
    on_gpu = [row for row in measured if row.on_gpu]
    figures = [
        _latency_figure(measured, bars),
        *_computation_figures(on_gpu, bars),
        *_energy_figures(comparison, measured, bars),
    ]
    for metric in METRICS:
        rows = on_gpu if metric.chart is not None and metric.chart.on_device else measured
        if metric.chart is not None and rows:
            figures.append(_plain_figure(rows, bars, metric, metric.chart))
    return figures


def draw_scatter_figure(
    comparison: Comparison, measured: Sequence[Measurement], verdict: Verdict
) -> ScatterFigure | None:
    """Returns latency against quality, None where there is no quality or fewer than two targets have it."""
    axis = verdict.quality
    if axis is None:
        return None
    words, colors = name_quality(comparison, axis), _choose_colors(comparison)
    points = []
    for row in measured:
        quality: float | None = getattr(row, axis)
        if quality is None and row.target == comparison.baseline and axis != "accuracy":
            quality = 1.0
        latency = row.typical_ms
        if quality is None or not latency:
            continue
        shown = format_cosine(quality) if axis == "cosine" else format_percent(quality)
        points.append(
            Point(
                label=_name_row(row),
                x=latency,
                y=quality,
                whisker=row.accuracy_ci95 if axis == "accuracy" else None,
                color=colors[row.runtime],
                is_float=row.is_float,
                on_front=row.target in verdict.pareto,
                is_ship=row.target == verdict.ship,
                tooltip=f"{clean_text(row.title)}: {format_ms(latency)}, {words} {shown}",
            )
        )
    if len(points) < 2:
        return None
    # Four samples, or two points: noise in the quality must not look like a cliff.
    span = 0.002 if axis == "cosine" else max(0.02, 4 / (comparison.evaluation_count or 200))

    def draw(width: int) -> Markup:
        name = _QUALITY_NAMES.get(axis, words)
        return draw_scatter(points, width=width, height=430, quality=name, percent=axis != "cosine", min_span=span)

    return ScatterFigure(axis=words, whiskers=axis == "accuracy", colors=colors, wide=draw(1100), narrow=draw(470))


def _name_row(row: Measurement) -> str:
    """Returns what a chart calls a row: of several models by its short name, which says which without being cut."""
    return clean_text(row.title if row.variant is None else row.target)


def _choose_colors(comparison: Comparison) -> dict[str, int]:
    """Returns the index of each runtime's colour."""
    runtimes = dict.fromkeys(row.runtime for row in comparison.measured)
    return {runtime: index % _COLORS for index, runtime in enumerate(runtimes)}


@dataclass(frozen=True, kw_only=True)
class _Bars:
    """What all bar charts of a page have in common: a runtime keeps its colour, one target is recommended."""

    colors: Mapping[str, int]
    ship: str | None

    def make(
        self, row: Measurement, value: float | None, text: str, *, upper: float | None = None, estimated: bool = False
    ) -> Bar:
        """Returns a row's bar."""
        return Bar(
            label=_name_row(row),
            value=value,
            text=text,
            color=self.colors[row.runtime],
            upper=upper,
            estimated=estimated,
            is_ship=row.target == self.ship,
        )


def _latency_figure(measured: Sequence[Measurement], bars: _Bars) -> Figure:
    note = "p50, the whisker reaches to p99"
    if any(row.on_gpu for row in measured):
        note += "; from and to host memory"
    drawn = [_make_latency_bar(bars, row, row.latency_ms) for row in measured]
    return Figure(title="Latency", note=note, chart=draw_bars(drawn, title="Latency", hatch_id="hatch-l"))


def _computation_figures(on_gpu: Sequence[Measurement], bars: _Bars) -> list[Figure]:
    """Returns the computation's own latency, in a chart of its own: it is not comparable with a latency on a CPU."""
    if all(row.compute_latency_ms is None or row.compute_latency_ms.typical is None for row in on_gpu):
        return []
    drawn = [_make_latency_bar(bars, row, row.compute_latency_ms) for row in on_gpu]
    chart = draw_bars(drawn, title="Computation alone", hatch_id="hatch-c")
    return [Figure(title="Computation alone", note="p50 to p99, inputs and outputs on the GPU", chart=chart)]


def _make_latency_bar(bars: _Bars, row: Measurement, latency_ms: Latency | None) -> Bar:
    if latency_ms is None or latency_ms.typical is None:
        return bars.make(row, None, "not measured")
    mean = "" if latency_ms.p50 is not None else " (mean)"
    p99 = "" if latency_ms.p99 is None else f" / {format_significant(latency_ms.p99)}"
    text = f"{format_significant(latency_ms.typical)}{p99} ms{mean}"
    return bars.make(row, latency_ms.typical, text, upper=latency_ms.p99)


def _energy_figures(comparison: Comparison, measured: Sequence[Measurement], bars: _Bars) -> list[Figure]:
    """Returns one chart, or one for each scope: bars side by side would compare a board with a processor."""
    scopes = comparison.energy_scopes
    if len(scopes) < 2:
        return [_energy_figure(measured, bars, "Energy", "hatch-e")]
    figures = []
    for index, scope in enumerate(scopes):
        rows = [row for row in measured if row.energy_j is not None and row.energy_scope == scope]
        figures.append(_energy_figure(rows, bars, f"Energy, {scope or 'unknown'}", f"hatch-e{index}"))
    return figures


def _energy_figure(rows: Sequence[Measurement], bars: _Bars, title: str, hatch_id: str) -> Figure:
    if all(row.energy_j is None for row in rows):
        reason = next((row.energy.reason for row in rows if row.energy and row.energy.reason), None) or "no meter"
        return Figure(title=title, note=f"Not measured: {reason}.", chart=None)
    unit, factor = energy_unit(row.energy_j for row in rows)
    drawn = []
    for row in rows:
        text = clean_text((row.energy and row.energy.reason) or "no meter")
        if row.energy_j is not None:
            text = f"{format_significant(row.energy_j * factor)} {unit}{' (estimate)' if row.energy_estimated else ''}"
        drawn.append(bars.make(row, row.energy_j, text, estimated=row.energy_estimated))
    note = "for one inference" + (", hatched: estimated" if any(row.energy_estimated for row in rows) else "")
    return Figure(title=title, note=note, chart=draw_bars(drawn, title="Energy for one inference", hatch_id=hatch_id))


def _plain_figure(rows: Sequence[Measurement], bars: _Bars, metric: Metric, chart: Chart) -> Figure:
    values: list[float | None] = [metric.read(row) for row in rows]
    if all(value is None for value in values):
        return Figure(title=chart.title, note="Not measured.", chart=None)
    drawn = [
        bars.make(row, value, "not measured" if value is None else chart.show(value))
        for row, value in zip(rows, values, strict=True)
    ]
    drawing = draw_bars(drawn, title=chart.title, hatch_id=f"hatch-{metric.key}")
    return Figure(title=chart.title, note=chart.note, chart=drawing)
