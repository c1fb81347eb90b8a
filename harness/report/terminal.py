"""The comparison on the terminal: a table that fits, then what to ship and what to know.

Three layouts: one line per target where the terminal is wide, and in files and pipes (so that `grep` finds a whole
target), two lines per target at 80 columns, and a block per target where it is narrower still. Nothing is ever cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelwright.core.records.tuned import describe_settings
from modelwright.harness.formatting import MISSING, clean_text
from modelwright.harness.report.columns import ShownColumn, choose_terminal_columns
from modelwright.harness.report.fits import describe_fits, fit_cells, fit_columns
from modelwright.harness.report.fleet import print_fleet
from modelwright.harness.report.gpu_lines import computation_lines
from modelwright.harness.report.operators import print_operators
from modelwright.harness.report.sentences import print_sentence
from modelwright.harness.results.metrics import explain_field, list_details, list_estimated
from modelwright.harness.results.record import Comparison, Measurement, Verdict
from modelwright.harness.verdict.judge import verdict_of
from modelwright.harness.verdict.wording import name_quality

_WIDE = 110
"""Ten figures on one line have room from here on; each further one takes `_WIDER`."""
_WIDE_FIGURES = 10
_WIDER = 13
MEDIUM = 78


def render_comparison(comparison: Comparison, console: Console, verbose: bool = False) -> None:
    """Prints a comparison.

    Args:
        comparison: What was measured.
        console: Where to print. Its width chooses the layout; one that is no terminal gets plain lines.
        verbose: Adds per target what does not fit the table: other percentiles, load and build times, notes.
    """
    verdict = verdict_of(comparison)
    rows = [row for target in verdict.order if (row := comparison.find(target)) is not None]
    measured = [row for row in rows if row.measured]
    with _no_narrower_than_table(console):
        if measured:
            _print_table(measured, comparison, verdict, console)
        _print_legend(comparison, measured, verdict, console)
        _print_fits(measured, console)
        _print_unmeasured([row for row in rows if not row.measured], console)
        if verbose:
            _print_details(measured, comparison.baseline, console)
        print_fleet(comparison, console)
        _say(console, Text(clean_text(verdict.sentence), style="bold green" if verdict.ship else "bold"), above=True)
        warnings = dict.fromkeys(map(clean_text, [*comparison.warnings, *verdict.warnings]))
        for index, warning in enumerate(warnings):
            _say(console, Text.assemble(("warning: ", "yellow"), warning), above=index == 0)


@contextmanager
def _no_narrower_than_table(console: Console) -> Iterator[None]:
    """Lets lines be as long as they are where no screen limits them; rich assumes 80 columns in a pipe."""
    if console.is_terminal:
        yield
        return
    width, console.width = console.width, 10_000
    try:
        yield
    finally:
        console.width = width


def _say(console: Console, text: Text, *, above: bool = False) -> None:
    if above:
        console.print()
    print_sentence(console, text)


def _print_table(rows: list[Measurement], comparison: Comparison, verdict: Verdict, console: Console) -> None:
    columns = choose_terminal_columns(comparison, rows)
    cells = {row.target: {one.metric.key: one.show(row, comparison) for one in columns} for row in rows}
    wide = console.width >= _WIDE + _WIDER * (len(columns) - _WIDE_FIGURES)
    pairs = _pair_columns(columns)
    if console.width < MEDIUM:
        _print_blocks(rows, cells, verdict, console, [one for pair in pairs for one in pair if one is not None])
        return
    if wide:
        pairs = [(one, None) for one in columns]
    table = Table(
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
        padding=(0, 2, 0, 0) if wide else (0, 1, 0, 0),
        show_edge=False,
        header_style="bold",
    )
    names = max(cell_len(clean_text(row.target)) for row in rows)
    # The name gives way: the numbers must stay on their line to be read.
    table.add_column("", width=2, no_wrap=True)
    table.add_column(
        "target" if wide else "target\n",
        max_width=None if not console.is_terminal else (40 if wide else min(names, 21)),
        overflow="fold",
    )
    for upper, lower in pairs:
        table.add_column(upper.head + (f"\n{lower.head}" if lower else ""), justify="right", no_wrap=True)
    for row in rows:
        figures, ship = cells[row.target], row.target == verdict.ship
        line = [Text(_mark(row, verdict)), Text(clean_text(row.target))]
        for upper, lower in pairs:
            text = Text(figures[upper.metric.key])
            if lower is not None:
                text.append(f"\n{figures[lower.metric.key]}", style="" if ship else "dim")
            line.append(text)
        table.add_row(*line, style="bold green" if ship else None)
    console.print(table)


def _pair_columns(columns: Sequence[ShownColumn]) -> list[tuple[ShownColumn, ShownColumn | None]]:
    """Returns what stands on the first line of a target and what under it, in the layout of two lines."""
    keys = {one.metric.key for one in columns}
    lower = {one.column.under: one for one in columns if one.column.under in keys}
    return [(one, lower.get(one.metric.key)) for one in columns if one not in lower.values()]


def _print_blocks(
    rows: list[Measurement],
    cells: Mapping[str, Mapping[str, str]],
    verdict: Verdict,
    console: Console,
    columns: Sequence[ShownColumn],
) -> None:
    for row in rows:
        style = "bold green" if row.target == verdict.ship else "bold"
        _say(console, Text(f"{_mark(row, verdict)} {clean_text(row.target)}", style=style))
        shown = [f"{one.head} {cells[row.target][one.metric.key]}" for one in columns]
        for index in range(0, len(shown), 2):
            _say(console, Text(f"   {f'{shown[index]:<18} '}{''.join(shown[index + 1 : index + 2])}".rstrip()))


def _mark(row: Measurement, verdict: Verdict) -> str:
    ship = ">" if row.target == verdict.ship else " "
    return ship + ("*" if row.target in verdict.pareto else " ")


def _print_legend(comparison: Comparison, measured: list[Measurement], verdict: Verdict, console: Console) -> None:
    if not measured:
        return
    parts = ["> ship this"] if verdict.ship else []
    if verdict.pareto:
        parts.append(f"* on the front of latency and {name_quality(comparison, verdict.quality)}")
    if list_estimated(measured):
        parts.append("~ estimated")
    parts.append(f"speed-up against {clean_text(comparison.baseline)}")
    _say(console, Text("   ".join(parts), style="dim"), above=True)
    for line in gpu_lines(comparison):
        _say(console, Text(line, style="dim"))
    for line in missing_lines(measured):
        _say(console, Text(f"{MISSING} {line}", style="dim"))


def gpu_lines(comparison: Comparison) -> list[str]:
    """Returns what the latencies of a GPU mean, where there are any."""
    if not comparison.on_gpu:
        return []
    return [
        "p50 and p99 are from host memory to host memory; comp(ute) is the p50 of the computation alone, "
        "its inputs and outputs on the GPU"
    ]


def missing_lines(measured: list[Measurement]) -> list[str]:
    """Returns why figures are missing, one line per field and reason: `p99: needs 662 inferences (ort-int8)`."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in measured:
        for field, reason in row.unavailable.items():
            found.setdefault((clean_text(explain_field(field)), clean_text(reason)), []).append(clean_text(row.target))
    lines = []
    for (field, reason), targets in found.items():
        of_targets = "" if len(targets) == len(measured) else f" ({', '.join(targets)})"
        lines.append(f"{field}: {reason}{of_targets}")
    return lines


def _print_fits(rows: list[Measurement], console: Console) -> None:
    """Prints error and R squared of each output that the samples have targets for."""
    columns = fit_columns(rows)
    if not columns:
        return
    _say(console, Text("against the samples' targets: root mean square of the error, R squared under it"), above=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    for name in columns:
        table.add_column(clean_text(name), justify="right", overflow="fold")
    for row in rows:
        cells = [Text(error).append(f"\n{share}", style="dim") for error, share in fit_cells(row, columns)]
        table.add_row(Text(clean_text(row.target)), *cells)
    console.print(table)


def _print_unmeasured(rows: list[Measurement], console: Console) -> None:
    """Prints why rows are missing; targets that miss for the same reason together."""
    reasons: dict[tuple[str, str, str | None], list[str]] = {}
    for row in rows:
        reason = (row.reason or "no reason given").removeprefix(f"{row.target} ").removeprefix(f"{row.target}: ")
        reasons.setdefault((row.status, clean_text(reason), row.hint), []).append(clean_text(row.target))
    for index, ((status, reason, hint), targets) in enumerate(reasons.items()):
        style = "red" if status == "failed" else "yellow"
        line = Text.assemble((status, style), f" {', '.join(targets)}: {reason}")
        _say(console, line, above=index == 0)
        if hint:
            _say(console, Text(f"  hint: {clean_text(hint)}", style="dim"))


def _print_details(rows: list[Measurement], baseline: str, console: Console) -> None:
    for row in rows:
        _say(console, Text(clean_text(f"{row.title} ({row.target})"), style="bold"), above=True)
        for label, value in detail_lines(row, baseline):
            _say(console, Text(f"  {label}: {clean_text(value)}"))
        if row.operators is not None and row.operators.types:
            print_operators(row.operators, console)


def detail_lines(row: Measurement, baseline: str) -> list[tuple[str, str]]:
    """Returns what does not fit the table, as label and value; only what is known.

    Args:
        row: A measured one.
        baseline: Target that speed-ups are over.
    """
    lines = list_details(row, on_device=False)
    if row.energy is not None and row.energy.source:
        scope = "" if row.energy.scope is None else f" ({row.energy.scope})"
        lines.append(("energy", f"{row.energy.source}{scope}"))
    ran = row.settings
    if ran is not None and (ran.options or ran.requests > 1):
        lines.append(("runs with", describe_settings(ran.threads or 1, ran.requests, ran.options)))
    if row.chain is not None:
        lines.append(("fed with its own state", row.chain.describe()))
    if row.fits:
        lines.append(("against the samples' targets", describe_fits(row.fits)))
    if row.labels is not None:
        lines.append(("right answers", row.labels.describe()))
    if row.emulated:
        lines.append(("quality", "of the graph that it was built from, evaluated by ONNX Runtime"))
    return [*lines, *computation_lines(row, baseline), *(("note", note) for note in row.notes)]
