"""The comparison of language artifacts on the terminal: two lines a target, and nothing wider than 80 columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelwright.harness.formatting import MISSING, clean_text, count_noun
from modelwright.harness.language.figures import FIGURES, LanguageFigure, describe_interval
from modelwright.harness.language.record import LanguageComparison, LanguageRow
from modelwright.harness.report.sentences import keep_together, print_sentence
from modelwright.harness.results.statistics import Latency

_WIDTH = 80
_NAME_WIDTH = 16


def render_language(comparison: LanguageComparison, console: Console, *, verbose: bool = False) -> None:
    """Prints a comparison.

    Args:
        comparison: What was measured.
        console: Where to print; a pipe gets lines as wide as a terminal of 80 columns or more.
        verbose: Adds per target what does not fit the table.
    """
    verdict = comparison.verdict
    order = [row.target for row in comparison.rows] if verdict is None else list(verdict.order)
    rows = [row for name in order if (row := comparison.find(name)) is not None]
    measured = [row for row in rows if row.measured]
    if measured:
        _print_table(measured, comparison, console)
        _print_legend(measured, comparison, console)
    for index, row in enumerate(row for row in rows if not row.measured):
        style = "red" if row.status == "failed" else "yellow"
        reason = (row.reason or "no reason given").removeprefix(f"{row.target} ").removeprefix(f"{row.target}: ")
        _say(console, Text.assemble((row.status, style), f" {row.target}: {clean_text(reason)}"), above=index == 0)
        if row.hint:
            _say(console, Text(f"  hint: {clean_text(row.hint)}", style="dim"))
    if verbose:
        for row in measured:
            _say(console, Text(f"{row.title} ({row.target})", style="bold"), above=True)
            for label, value in detail_lines(row):
                _say(console, Text(f"  {label}: {clean_text(value)}"))
    if verdict is not None:
        style = "bold green" if verdict.ship else "bold"
        _say(console, Text(clean_text(verdict.sentence), style=style), above=True)
    warnings = dict.fromkeys([*comparison.warnings, *(verdict.warnings if verdict else ())])
    for index, warning in enumerate(warnings):
        _say(console, Text.assemble(("warning: ", "yellow"), clean_text(warning)), above=index == 0)


def _say(console: Console, text: Text, *, above: bool = False) -> None:
    if above:
        console.print()
    print_sentence(console, text)


def pair_figures() -> list[tuple[LanguageFigure, LanguageFigure | None]]:
    """Returns what stands on a target's first line, and what under it."""
    shown = [figure for figure in FIGURES if figure.head is not None]
    lower = {figure.under: figure for figure in shown if figure.under is not None}
    return [(figure, lower.get(figure.key)) for figure in shown if figure.under is None]


def _print_table(rows: Sequence[LanguageRow], comparison: LanguageComparison, console: Console) -> None:
    ship = None if comparison.verdict is None else comparison.verdict.ship
    table = Table(
        box=None,  # a line under the head would cost a column between every two
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
        header_style="bold",
    )
    table.add_column("target", max_width=_NAME_WIDTH, min_width=_NAME_WIDTH, overflow="fold")
    pairs = pair_figures()
    for upper, lower in pairs:
        head = upper.head or ""
        table.add_column(f"{head}\n{lower.head}" if lower else head, justify="right", no_wrap=True)
    for row in rows:
        chosen = row.target == ship
        line = [Text(_fold_name(row.target, "> " if chosen else "  "))]
        for upper, lower in pairs:
            cell = Text(upper.cell(row))
            if lower is not None:
                cell.append(f"\n{lower.cell(row)}", style="" if chosen else "dim")
            line.append(cell)
        table.add_row(*line, style="bold green" if chosen else None)
    with _at_least(console, _WIDTH):
        console.print(table)


@contextmanager
def _at_least(console: Console, width: int) -> Iterator[None]:
    """Gives a pipe, whose width is nobody's, room for the table."""
    before = console.width
    if not console.is_terminal:
        console.width = max(before, width)
    try:
        yield
    finally:
        console.width = before


def _fold_name(name: str, mark: str) -> str:
    """Returns a target's name on lines that fit its column, parted at hyphens where it can be."""
    lines = [mark]
    for part in re.findall(r"[^-]*-|[^-]+$", name):
        if len(lines[-1]) > len(mark) and len(lines[-1]) + len(part) > _NAME_WIDTH:
            lines.append(" " * len(mark))
        lines[-1] += part
    return "\n".join(lines)


def _print_legend(rows: Sequence[LanguageRow], comparison: LanguageComparison, console: Console) -> None:
    settings = comparison.settings
    parts = ["> ship this"] if comparison.verdict is not None and comparison.verdict.ship else []
    if any(figure.estimated(row) and figure.read(row) is not None for figure in FIGURES for row in rows):
        parts.append("~ estimated")
    parts += [
        f"speed-up per token against {comparison.baseline}",
        f"answers of {settings.new_tokens} tokens, {count_noun(settings.threads, 'thread')}",
        "cache: keys and values after one",
    ]
    _say(console, Text("   ".join(map(keep_together, parts)), style="dim"), above=True)
    for line in quality_lines(rows):
        _say(console, Text(line, style="dim"))
    for line in missing_lines(rows):
        _say(console, Text(f"{MISSING} {line}", style="dim"))


def quality_lines(rows: Sequence[LanguageRow]) -> Iterator[str]:
    """Yields what the quality was taken on."""
    found = next((row.quality for row in rows if row.quality is not None), None)
    if found is None:
        return
    yield (
        f"quality on {found.tokens:,} tokens of the text that judges; ppl perplexity, top-1 and KL: "
        "next tokens against FP32's"
    )
    for task in found.tasks:
        asked = f"{task.count:,}" + (f" of {task.total:,}" if task.total > task.count else "")
        yield f"{task.name}: {asked} questions, of which FP32 answers {task.whole.correct_fp32:,} rightly"


def missing_lines(rows: Sequence[LanguageRow]) -> Iterator[str]:
    """Yields why figures of the table are missing, one line a figure and reason."""
    shown = {figure.key: figure for figure in FIGURES if figure.head is not None}
    aliases = {"energy": "energy_per_token_j", "peak_memory_bytes": "peak_memory_mb", "cache_bytes": "cache_mb"}
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for key, reason in row.unavailable.items():
            figure = shown.get(aliases.get(key, key))
            if figure is not None and figure.read(row) is None:
                found.setdefault((figure.head or "", reason), []).append(row.target)
    for (head, reason), targets in found.items():
        yield f"{head}: {reason}" + ("" if len(targets) == len(rows) else f" ({', '.join(targets)})")


def detail_lines(row: LanguageRow) -> Iterator[tuple[str, str]]:
    """Yields what does not fit the table: every known figure with its interval, and where it comes from."""
    for figure in FIGURES:
        if figure.read(row) is not None:
            interval = describe_interval(figure, row)
            yield figure.title, figure.cell(row) + (f" (95 % interval {interval})" if interval else "")
    for opening in row.openings:
        yield f"first token of {opening.prompt_tokens} tokens (ms)", _describe_latency(opening.latency_ms)
    if row.answer_speedup is not None:
        yield "whole answers", f"{row.answer_speedup.ratio:.2f}x"
    if row.energy is not None and row.energy.source:
        yield "energy", row.energy.source + ("" if row.energy.scope is None else f" ({row.energy.scope})")
    if row.precision_executed.describe():
        yield "executed", str(row.precision_executed.describe())
    for note in row.notes:
        yield "note", note


def _describe_latency(latency: Latency) -> str:
    return f"{MISSING if latency.typical is None else f'{latency.typical:.4g}'}"
