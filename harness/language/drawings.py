"""The drawings of a comparison of language artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from markupsafe import Markup

from modelwright.harness.formatting import clean_text, format_bytes, format_percent, format_significant
from modelwright.harness.language.figures import FIGURES, LanguageFigure
from modelwright.harness.language.limits import format_change
from modelwright.harness.language.record import LanguageRow
from modelwright.harness.report.charts import Bar, Point, draw_bars, draw_scatter
from modelwright.harness.report.figures import ScatterFigure
from modelwright.harness.report.line_charts import Line, draw_lines

_COLORS = 6
_BY_KEY = {figure.key: figure for figure in FIGURES}
_BARS = {
    "token_ms.p50": ("Time per token", "ms, median; the whisker reaches to p95"),
    "peak_memory_mb": ("Memory", "MB, peak of the whole process"),
    "size_mb": ("Files", "MB"),
    "energy_per_token_j": ("Energy", "J a token; hatched: estimated"),
}
"""Key of a figure -> caption and note of its bars."""
Drawing = tuple[str, str, Markup]
"""Caption, note and drawing."""


def choose_colors(rows: Sequence[LanguageRow]) -> dict[str, int]:
    """Returns the index of each runtime's colour."""
    return {runtime: index % _COLORS for index, runtime in enumerate(dict.fromkeys(row.runtime for row in rows))}


def name_row(row: LanguageRow, rows: Sequence[LanguageRow]) -> str:
    """Returns what a drawing calls a row: its title, or its name where that says which of several it is."""
    alike = sum(other.title == row.title for other in rows)
    return clean_text(row.title if alike == 1 else row.target)


def draw_front(rows: Sequence[LanguageRow], ship: str | None) -> ScatterFigure | None:
    """Returns time per token against agreement with FP32; None where fewer than two targets have both."""
    colors = choose_colors(rows)
    placed = [
        (row, row.token_ms.typical, row.quality.agreement)
        for row in rows
        if row.token_ms is not None and row.token_ms.typical and row.quality is not None
    ]
    if len(placed) < 2:
        return None
    points = [
        Point(
            label=name_row(row, rows),
            x=time_ms,
            y=share.value,
            whisker=share.ci95,
            color=colors[row.runtime],
            is_float=row.is_float,
            on_front=not any(
                other_ms <= time_ms and other.value >= share.value and (other_ms, other.value) != (time_ms, share.value)
                for _, other_ms, other in placed
            ),
            is_ship=row.target == ship,
            tooltip=_describe_point(row, time_ms),
        )
        for row, time_ms, share in placed
        if time_ms is not None
    ]

    def draw(width: int) -> Markup:
        name = "next token is FP32's"
        return draw_scatter(
            points, width=width, height=380, quality=name, percent=True, min_span=0.02, time="median time per token, ms"
        )

    return ScatterFigure(axis="quality", whiskers=True, colors=colors, wide=draw(1100), narrow=draw(470))


def _describe_point(row: LanguageRow, time_ms: float) -> str:
    parts = [f"{row.title}: {format_significant(time_ms)} ms a token"]
    if row.quality is not None:
        parts.append(f"next token is FP32's in {format_percent(row.quality.agreement.value)}")
        parts.append(f"perplexity {format_change(row.quality.increase.value)}")
    if row.peak_memory_bytes is not None:
        parts.append(f"{format_bytes(row.peak_memory_bytes)} of memory")
    return clean_text(", ".join(parts))


def draw_all(rows: Sequence[LanguageRow], ship: str | None) -> Iterator[Drawing]:
    """Yields lines over the length of answer and prompt, and bars."""
    colors = choose_colors(rows)
    by_position = _list_lines({row.target: list(_list_positions(row)) for row in rows}, rows, colors, ship)
    if by_position:
        note = "each token after the first, median over the answers"
        drawing = draw_lines(by_position, title=note, x_name="number of the token", y_name="ms")
        yield "Time per token as the answer grows", note, drawing
    by_length = _list_lines({row.target: list(_list_openings(row)) for row in rows}, rows, colors, ship)
    if by_length:
        note = "from the prompt to its first token, median (of fewer than 11 the mean)"
        drawing = draw_lines(by_length, title=note, x_name="tokens of the prompt", y_name="ms")
        yield "First token by length of the prompt", note, drawing
    for key, (caption, note) in _BARS.items():
        figure = _BY_KEY[key]
        if any(figure.read(row) is not None for row in rows):
            bars = [_make_bar(figure, row, rows, ship) for row in rows]
            yield caption, note, draw_bars(bars, title=caption, hatch_id=f"hatch-{key.replace('.', '-')}")


def _list_lines(
    points: Mapping[str, Sequence[tuple[float, float]]],
    rows: Sequence[LanguageRow],
    colors: Mapping[str, int],
    ship: str | None,
) -> list[Line]:
    return [
        Line(
            label=name_row(row, rows),
            points=points[row.target],
            color=colors[row.runtime],
            is_float=row.is_float,
            is_ship=row.target == ship,
        )
        for row in rows
        if points[row.target]
    ]


def _list_positions(row: LanguageRow) -> Iterator[tuple[float, float]]:
    """Yields the number of a token in its answer, counted from 1, and its median time in ms."""
    steps = [turn.token_ms for turn in row.turns if turn.token_ms]
    for index in range(min(map(len, steps), default=0)):
        yield index + 2.0, float(np.median([times[index] for times in steps]))


def _list_openings(row: LanguageRow) -> Iterator[tuple[float, float]]:
    for opening in row.openings:
        if opening.latency_ms.typical is not None:
            yield float(opening.prompt_tokens), opening.latency_ms.typical


def _make_bar(figure: LanguageFigure, row: LanguageRow, rows: Sequence[LanguageRow], ship: str | None) -> Bar:
    upper = row.token_ms.p95 if figure.key == "token_ms.p50" and row.token_ms is not None else None
    return Bar(
        label=name_row(row, rows),
        value=figure.read(row),
        text=figure.cell(row),
        color=choose_colors(rows)[row.runtime],
        upper=upper,
        estimated=figure.estimated(row),
        is_ship=row.target == ship,
    )
