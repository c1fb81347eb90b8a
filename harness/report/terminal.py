"""The comparison on the terminal: a table that fits, then what to ship and what to know.

Three layouts: one line per target from 110 columns on (136 with a GPU) and in files and pipes (so that `grep` finds a
whole target), two lines per target at 80 columns, and a block per target where it is narrower still. Nothing is ever
cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelwright.harness.formatting import (
    MISSING,
    clean_text,
    energy_unit,
    format_cosine,
    format_interval,
    format_megabytes,
    format_ms,
    format_percent_number,
    format_ratio,
    format_significant,
    join_words,
)
from modelwright.harness.report.gpu_lines import computation_lines
from modelwright.harness.results.record import Comparison, Row, read_comparison
from modelwright.harness.verdict.judge import verdict_of

WIDE = 110
WIDE_WITH_GPU = 136
MEDIUM = 78

_Values = Mapping[str, str]


def render_comparison(
    document: Mapping[str, Any], console: Console, verbose: bool = False, directory: Path | None = None
) -> None:
    """Prints a comparison.

    Args:
        document: A results document as in results.json.
        console: Where to print. Its width chooses the layout; one that is no terminal gets plain lines.
        verbose: Adds per target what does not fit the table: other percentiles, load and build times, notes.
        directory: The folder of the results, named at the end when given.
    """
    comparison = read_comparison(document)
    verdict = verdict_of(document)
    rows = [row for target in verdict["order"] if (row := comparison.find(target)) is not None]
    measured = [row for row in rows if row.measured]
    with _no_narrower_than_table(console):
        if measured:
            cells = {row.target: _values(row, comparison, _energy_unit(measured)) for row in measured}
            _print_table(measured, cells, verdict, console, _headers(comparison, _energy_unit(measured)[0]))
        _print_legend(comparison, measured, verdict, console)
        _print_unmeasured([row for row in rows if not row.measured], console)
        if verbose:
            _print_details(measured, comparison.baseline, console)
        _say(
            console,
            Text(clean_text(verdict["sentence"]), style="bold green" if verdict["ship"] else "bold"),
            above=True,
        )
        warnings = [*document.get("warnings", ()), *verdict["warnings"]]
        for index, warning in enumerate(dict.fromkeys(clean_text(warning) for warning in warnings)):
            _say(console, Text.assemble(("warning: ", "yellow"), warning), above=index == 0)
        if directory is not None:
            files = f"Files in {clean_text(directory)}: report.html, results.json, results.csv, artifacts/"
            _say(console, Text(files, style="dim"), above=True)


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
    # Highlighting would colour numbers and quotes in sentences at random.
    console.print(text, highlight=False, overflow="fold")


def _energy_unit(rows: list[Row]) -> tuple[str, float]:
    return energy_unit(row.energy_j for row in rows)


def _shows_cosine(comparison: Comparison) -> bool:
    """Whether the agreement's column holds the cosine: all rows or none, never one under the other's name."""
    measured = comparison.measured
    return all(row.agreement is None for row in measured) and any(row.cosine is not None for row in measured)


def _shows_gpu(measured: Iterable[Row]) -> bool:
    """Whether the columns of the computation alone and of the GPU's memory are shown."""
    return any(row.on_gpu for row in measured)


def _headers(comparison: Comparison, energy: str) -> _Values:
    labels = {
        "p50": "p50 ms",
        "p99": "p99 ms",
        "throughput": "per s",
        "size": "size MB",
        "memory": "mem MB",
        "energy": energy,
        "accuracy": "acc %",
        "agreement": "agree %",
        "speedup": "speed-up",
        "interval": "95% int.",
    }
    if _shows_gpu(comparison.measured):
        labels |= {"compute": "comp ms", "gpu_memory": "GPU MB"}
    if _shows_cosine(comparison):
        labels["agreement"] = "cosine"
    return labels


def _values(row: Row, comparison: Comparison, energy: tuple[str, float]) -> _Values:
    joules = MISSING if row.energy_j is None else format_significant(row.energy_j * energy[1])
    on_gpu = {
        "compute": format_significant(row.compute_p50_ms),
        "gpu_memory": format_megabytes(row.gpu_memory_bytes),
    }
    return {
        **(on_gpu if _shows_gpu(comparison.measured) else {}),
        "p50": format_significant(row.p50_ms),
        "p99": format_significant(row.p99_ms),
        "throughput": format_significant(row.throughput_per_s),
        "size": format_megabytes(row.size_bytes),
        "memory": format_megabytes(row.peak_memory_bytes),
        "energy": f"~{joules}" if row.energy_estimated else joules,
        "accuracy": format_percent_number(row.accuracy),
        "agreement": (format_cosine(row.cosine) if _shows_cosine(comparison) else format_percent_number(row.agreement)),
        "speedup": format_ratio(row.speedup),
        "interval": format_speedup_interval(row, comparison.baseline),
    }


def format_speedup_interval(row: Row, baseline: str) -> str:
    """Returns the interval of a row's speed-up for a table; the baseline against itself has none."""
    if row.target == baseline:
        return "baseline"
    return MISSING if row.speedup_ci95 is None else format_interval(*row.speedup_ci95)


def _print_table(
    rows: list[Row], cells: Mapping[str, _Values], verdict: Mapping[str, Any], console: Console, headers: _Values
) -> None:
    width, gpu = console.width, _shows_gpu(rows)
    wide = width >= (WIDE_WITH_GPU if gpu else WIDE)
    if width < MEDIUM:
        _print_blocks(rows, cells, verdict, console, headers)
        return
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
    for upper, lower in _columns(wide=wide, gpu=gpu):
        label = headers[upper] if lower is None else f"{headers[upper]}\n{headers[lower]}"
        table.add_column(label, justify="right", no_wrap=True)
    for row in rows:
        values, ship = cells[row.target], row.target == verdict["ship"]
        line = [Text(_mark(row, verdict)), Text(clean_text(row.target))]
        for upper, lower in _columns(wide=wide, gpu=gpu):
            text = Text(values[upper])
            if lower is not None:
                text.append(f"\n{values[lower]}", style="" if ship else "dim")
            line.append(text)
        table.add_row(*line, style="bold green" if ship else None)
    console.print(table)


def _columns(*, wide: bool, gpu: bool) -> tuple[tuple[str, str | None], ...]:
    """Returns the number columns: what stands on the first line and, in the two-line layout, under it."""
    if wide:
        latencies = ("p50", "p99", "compute") if gpu else ("p50", "p99")
        memories = ("memory", "gpu_memory") if gpu else ("memory",)
        order = ("size", *latencies, "throughput", *memories, "energy", "accuracy", "agreement", "speedup", "interval")
        return tuple((name, None) for name in order)
    return (
        ("p50", "p99"),
        *([("compute", "gpu_memory")] if gpu else []),
        ("throughput", "size"),
        ("memory", "energy"),
        ("accuracy", "agreement"),
        ("speedup", "interval"),
    )


def _print_blocks(
    rows: list[Row], cells: Mapping[str, _Values], verdict: Mapping[str, Any], console: Console, headers: _Values
) -> None:
    for row in rows:
        style = "bold green" if row.target == verdict["ship"] else "bold"
        _say(console, Text(f"{_mark(row, verdict)} {clean_text(row.target)}", style=style))
        pairs = [f"{headers[name]} {value}" for name, value in cells[row.target].items()]
        for index in range(0, len(pairs), 2):
            _say(console, Text(f"   {pairs[index]:<18} {pairs[index + 1]}"))


def _mark(row: Row, verdict: Mapping[str, Any]) -> str:
    ship = ">" if row.target == verdict["ship"] else " "
    return ship + ("*" if row.target in verdict["pareto"] else " ")


def _print_legend(comparison: Comparison, measured: list[Row], verdict: Mapping[str, Any], console: Console) -> None:
    if not measured:
        return
    parts = ["> ship this"] if verdict["ship"] else []
    if verdict["pareto"]:
        parts.append(f"* on the front of latency and {verdict.get('quality') or 'quality'}")
    if any(row.energy_estimated for row in measured):
        parts.append("~ estimated")
    parts.append(f"speed-up against {clean_text(comparison.baseline)}")
    _say(console, Text("   ".join(parts), style="dim"), above=True)
    for line in gpu_lines(comparison):
        _say(console, Text(line, style="dim"))
    for line in missing_lines(measured):
        _say(console, Text(f"{MISSING} {line}", style="dim"))


def gpu_lines(comparison: Comparison) -> list[str]:
    """Returns what the latencies of a GPU mean, where there are any."""
    if not _shows_gpu(comparison.measured):
        return []
    return [
        "p50 and p99 are from host memory to host memory; comp(ute) is the p50 of the computation alone, "
        "its inputs and outputs on the GPU"
    ]


def missing_lines(measured: list[Row]) -> list[str]:
    """Returns why figures are missing, one line per field and reason: `p99: needs 662 inferences (ort-int8)`."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in measured:
        for field, reason in row.unavailable:
            name = field.removeprefix("latency_ms.").replace("compute_latency_ms", "comp").replace("_", " ")
            found.setdefault((name, reason), []).append(clean_text(row.target))
        if row.energy_j is None and row.energy_reason and all(field != "energy" for field, _ in row.unavailable):
            found.setdefault(("energy", row.energy_reason), []).append(clean_text(row.target))
    lines = []
    for (field, reason), targets in found.items():
        of_targets = "" if len(targets) == len(measured) else f" ({', '.join(targets)})"
        lines.append(f"{field}: {reason}{of_targets}")
    return lines


def _print_unmeasured(rows: list[Row], console: Console) -> None:
    """Prints why rows are missing; targets that miss for the same reason together."""
    reasons: dict[tuple[str, str, str | None], list[str]] = {}
    for row in rows:
        reason = (row.reason or "no reason given").removeprefix(f"{row.target} ")
        reasons.setdefault((row.status, reason, row.hint), []).append(clean_text(row.target))
    for index, ((status, reason, hint), targets) in enumerate(reasons.items()):
        style = "red" if status == "failed" else "yellow"
        line = Text.assemble((clean_text(status), style), f" {', '.join(targets)}: {reason}")
        _say(console, line, above=index == 0)
        if hint:
            _say(console, Text(f"  hint: {hint}", style="dim"))


def _print_details(rows: list[Row], baseline: str, console: Console) -> None:
    for row in rows:
        _say(console, Text(f"{row.title} ({clean_text(row.target)})", style="bold"), above=True)
        for label, value in detail_lines(row, baseline):
            _say(console, Text(f"  {label}: {value}"))


def detail_lines(row: Row, baseline: str) -> list[tuple[str, str]]:
    """Returns what does not fit the table, as label and value; only what is known.

    Args:
        row: A measured one.
        baseline: Target that speed-ups are over.
    """
    formats: list[tuple[str, float | None, Callable[[float | None], str]]] = [
        ("mean", row.mean_ms, format_ms),
        ("p90", row.p90_ms, format_ms),
        ("p95", row.p95_ms, format_ms),
        ("load", row.load_ms, format_ms),
        ("first inference", row.first_inference_ms, format_ms),
    ]
    times = [f"{name} {render(value)}" for name, value, render in formats if value is not None]
    lines = [("times", ", ".join(times))] if times else []
    if row.num_inferences is not None:
        lines.append(("inferences", str(row.num_inferences)))
    if row.build_s is not None or row.reused:
        spent = "" if row.build_s is None else f"{format_significant(row.build_s)} s"
        lines.append(("build", join_words([part for part in (spent, "reused" if row.reused else "") if part])))
    if row.executed:
        lines.append(("ran in", row.executed))
    if row.cosine is not None:
        lines.append(("cosine", format_cosine(row.cosine)))
    if row.accuracy is not None and row.accuracy_ci95:
        low, high = (format_percent_number(end) for end in row.accuracy_ci95)
        lines.append(("accuracy 95 % interval", f"{low} to {high} %"))
    if row.model_memory_bytes is not None:
        lines.append(("memory of the model itself", f"{format_megabytes(row.model_memory_bytes)} MB"))
    if row.energy_source:
        scope = "" if row.energy_scope is None else f" ({row.energy_scope})"
        lines.append(("energy", f"{row.energy_source}{scope}"))
    if row.emulated:
        lines.append(("quality", "of the graph that it was built from, evaluated by ONNX Runtime"))
    return [*lines, *computation_lines(row, baseline), *(("note", note) for note in row.notes)]
