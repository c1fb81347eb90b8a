"""`report.html`: one file that opens anywhere, without network. Every text from the document is escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from modelwright.harness.report.document import Comparison, Row, read_comparison, verdict_of
from modelwright.harness.report.figures import draw_figures
from modelwright.harness.report.formatting import (
    MISSING,
    clean_text,
    energy_unit,
    format_bytes,
    format_cosine,
    format_count,
    format_interval,
    format_megabytes,
    format_ms,
    format_percent,
    format_percent_number,
    format_ratio,
    format_significant,
)
from modelwright.harness.report.terminal import detail_lines, format_speedup_interval, missing_lines

_EFFORTS = {
    "quick": "quick: few rounds, for a first look",
    "standard": "standard: enough rounds to tell a few percent apart",
    "strict": "strict: enough rounds to tell about one percent apart",
}
_HOW = (
    "All artifacts were alive together, each in a process of its own, and took turns in short windows in random order, "
    "so that whatever disturbed the machine disturbed all. Speed-ups are medians of the ratios within each round; "
    "their 95 % intervals are bootstrapped over rounds."
)


def render_html(document: Mapping[str, Any]) -> str:
    """Returns the report as one HTML page with inline style, script and SVG.

    Args:
        document: A results document as in results.json.
    """
    comparison = read_comparison(document)
    verdict = verdict_of(document)
    rows = [row for target in verdict["order"] if (row := comparison.find(target)) is not None]
    measured = [row for row in rows if row.measured]
    title = f"{comparison.model_name}: which target to ship"
    body = "".join(
        (
            _render_head(comparison, title),
            _render_verdict(comparison, verdict),
            _render_warnings([*document.get("warnings", ()), *verdict["warnings"]]),
            _render_table(comparison, measured, verdict),
            draw_figures(comparison, measured, verdict),
            _render_unmeasured([row for row in rows if not row.measured]),
            _render_facts("How it was measured", _measuring_facts(comparison), note=_HOW),
            _render_facts("Environment", _environment_facts(comparison)),
            _render_details(measured),
        )
    )
    here = Path(__file__)
    style, script = (here.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".css", ".js"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}"
        f"<footer>modelwright, run {text(document.get('run_id'))}</footer>\n</main>\n"
        f"<script>\n{script}</script>\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Returns anything as text that is safe in HTML, in attributes too."""
    return MISSING if value is None else escape(clean_text(value), quote=True)


def _render_head(comparison: Comparison, title: str) -> str:
    raw = comparison.raw
    when = str(raw.get("timestamp") or "")[:19].replace("T", " ")
    parts = [
        f"on {text(part(raw, 'environment').get('device'))}",
        f"profile {text(raw.get('profile'))}",
        f"{text(when)} UTC" if when else "",
    ]
    return f"<h1>{text(title)}</h1>\n<p class='meta'>{' &middot; '.join(item for item in parts if item)}</p>\n"


def _render_verdict(comparison: Comparison, verdict: Mapping[str, Any]) -> str:
    row = comparison.find(verdict["ship"])
    heading = f"Ship {text(row.title)}" if row else "No recommendation"
    tiles = [] if row is None else _choose_tiles(row, comparison)
    shown = "".join(
        f"<div><dt>{text(label)}</dt><dd>{text(value)}<small>{text(note)}</small></dd></div>"
        for label, value, note in tiles
    )
    state = "verdict" if row else "verdict open"
    return (
        f"<section class='{state}'>\n<h2>{heading}</h2>\n<p>{text(verdict['sentence'])}</p>\n"
        + (f"<dl class='tiles'>{shown}</dl>\n" if shown else "")
        + "</section>\n"
    )


def _choose_tiles(row: Row, comparison: Comparison) -> list[tuple[str, str, str]]:
    """Returns the figures of the recommended target that were measured: label, figure, what it compares with."""
    base = comparison.find(comparison.baseline)
    base = None if base is row else base

    def beside(value: float | None, render: Callable[[float | None], str]) -> str:
        return "" if base is None or value is None else f"{render(value)} for {base.title}"

    tiles = []
    if base is not None and row.speedup is not None:
        interval = "" if row.speedup_ci95 is None else format_interval(*row.speedup_ci95, separator=" to ")
        tiles.append(("speed-up", format_ratio(row.speedup), f"95 % interval {interval}" if interval else ""))
    if row.p50_ms is not None:
        tiles.append(("median latency", format_ms(row.p50_ms), beside(base.p50_ms if base else None, format_ms)))
    if row.accuracy is not None:
        tiles.append(
            ("accuracy", format_percent(row.accuracy), beside(base.accuracy if base else None, format_percent))
        )
    if row.agreement is not None and base is not None:
        count = comparison.evaluation_count
        note = f"on {count} samples" if count else ""
        tiles.append(("agreement with FP32", format_percent(row.agreement), note))
    if row.size_bytes is not None:
        tiles.append(("size", format_bytes(row.size_bytes), beside(base.size_bytes if base else None, format_bytes)))
    return tiles


def _render_warnings(warnings: Sequence[object]) -> str:
    unique = dict.fromkeys(clean_text(warning) for warning in warnings)
    if not unique:
        return ""
    items = "".join(f"<li>{text(warning)}</li>\n" for warning in unique)
    return f"<section class='warnings'>\n<h2>Before you rely on it</h2>\n<ul>\n{items}</ul>\n</section>\n"


def _render_table(comparison: Comparison, measured: Sequence[Row], verdict: Mapping[str, Any]) -> str:
    if not measured:
        return ""
    unit, factor = energy_unit(row.energy_j for row in measured)
    cosines = any(row.cosine is not None for row in measured)
    headers = [
        ("target", ""),
        ("size", "MB"),
        ("p50", "ms"),
        ("p99", "ms"),
        ("throughput", "per s"),
        ("peak memory", "MB"),
        ("energy", f"{unit} each"),
        ("accuracy", "%"),
        ("agreement", "%"),
        *([("cosine", "with FP32")] if cosines else []),
        ("speed-up", f"of {comparison.baseline}"),
    ]
    head = "".join(
        f"<th scope='col'><button type='button'>{text(name)}</button><small>{text(note)}</small></th>"
        for name, note in headers
    )
    body = []
    for row in measured:
        joules = MISSING if row.energy_j is None else format_significant(row.energy_j * factor)
        cells = [
            _name_cell(row, verdict),
            _cell(row.size_bytes, format_megabytes(row.size_bytes)),
            _cell(row.p50_ms, format_significant(row.p50_ms)),
            _cell(row.p99_ms, format_significant(row.p99_ms)),
            _cell(row.throughput_per_s, format_significant(row.throughput_per_s)),
            _cell(row.peak_memory_bytes, format_megabytes(row.peak_memory_bytes)),
            _cell(row.energy_j, f"~{joules}" if row.energy_estimated else joules),
            _cell(row.accuracy, format_percent_number(row.accuracy)),
            _cell(row.agreement, format_percent_number(row.agreement)),
            *([_cell(row.cosine, format_cosine(row.cosine))] if cosines else []),
            _cell(row.speedup, format_ratio(row.speedup), format_speedup_interval(row, comparison.baseline)),
        ]
        kind = " class='ship'" if row.target == verdict["ship"] else ""
        body.append(f"<tr{kind}>{''.join(cells)}</tr>\n")
    notes = [*missing_lines(list(measured))]
    if any(row.energy_estimated for row in measured):
        notes.insert(0, "~ estimated, not measured")
    shown = "".join(f"<li>{text(note)}</li>" for note in notes)
    return (
        "<section>\n<h2>Side by side</h2>\n<div class='scroll'><table class='results'>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(body)}</tbody>\n</table></div>\n"
        + (f"<ul class='notes'>{shown}</ul>\n" if shown else "")
        + "</section>\n"
    )


def _name_cell(row: Row, verdict: Mapping[str, Any]) -> str:
    tags = "<span class='tag good'>ship</span>" if row.target == verdict["ship"] else ""
    if row.target in verdict["pareto"]:
        tags += "<span class='tag front'>front</span>"
    return f"<td data-value='{text(row.target)}'>{text(row.title)}{tags}<small>{text(row.target)}</small></td>"


def _cell(value: float | None, shown: str, note: str = "") -> str:
    key = "" if value is None else f"{value:.10g}"
    small = f"<small>{text(note)}</small>" if note else ""
    return f"<td data-value='{key}'>{text(shown)}{small}</td>"


def _render_unmeasured(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lines = []
    for row in rows:
        kind = "bad" if row.status == "failed" else "warn"
        hint = f"<br><span class='soft'>{text(row.hint)}</span>" if row.hint else ""
        lines.append(
            f"<tr><td>{text(row.title)} <span class='tag {kind}'>{text(row.status)}</span></td>"
            f"<td>{text(row.reason or 'no reason given')}{hint}</td></tr>\n"
        )
    return f"<section>\n<h2>Not measured</h2>\n<table class='plain absent'>\n{''.join(lines)}</table>\n</section>\n"


def _measuring_facts(comparison: Comparison) -> list[tuple[str, object]]:
    raw, settings = comparison.raw, part(comparison.raw, "settings")
    effort = str(raw.get("effort") or "")
    samples = part(raw, "samples")
    facts: list[tuple[str, object]] = [
        ("effort", _EFFORTS.get(effort, effort) or None),
        ("baseline", raw.get("baseline")),
        *((f"limit, {name.replace('_', ' ')}", value) for name, value in part(raw, "limits").items()),
        *((key.replace("_", " "), value) for key, value in settings.items()),
        ("calibration", _describe_samples(part(samples, "calibration"))),
        ("evaluation", _describe_samples(part(samples, "evaluation"))),
    ]
    return facts


def _describe_samples(samples: Mapping[str, Any]) -> str | None:
    if not samples:
        return None
    digest = str(samples.get("sha256") or "")[:12]
    labels = ", with labels" if samples.get("labels") else ""
    hashed = f" (SHA-256 {digest}...)" if digest else ""
    return f"{samples.get('count')} samples{labels}, {samples.get('path')}{hashed}"


def _environment_facts(comparison: Comparison) -> list[tuple[str, object]]:
    environment, source = part(comparison.raw, "environment"), part(comparison.raw, "source")
    memory, parameters = environment.get("memory_bytes"), source.get("num_parameters")
    sets, meters = environment.get("instruction_sets"), environment.get("meters")
    virtual = {True: "yes", False: "no"}.get(bool(environment.get("virtual_machine")))
    facts: list[tuple[str, object]] = [
        ("device", environment.get("device")),
        ("processor", environment.get("cpu_model")),
        ("cores", environment.get("cores")),
        ("memory", format_bytes(memory) if isinstance(memory, int | float) else None),
        ("instruction sets", ", ".join(map(str, sets)) if isinstance(sets, list) else None),
        ("virtual machine", None if environment.get("virtual_machine") is None else virtual),
        ("energy meters", (", ".join(map(str, meters)) or "none") if isinstance(meters, list) else None),
        ("system", environment.get("os")),
        ("Python", environment.get("python")),
        *((name, version) for name, version in part(environment, "versions").items()),
        ("model", source.get("path")),
        ("parameters", format_count(parameters) if isinstance(parameters, int | float) else None),
        ("opset", source.get("opset")),
        ("model SHA-256", source.get("sha256")),
    ]
    return facts


def _render_facts(title: str, facts: Sequence[tuple[str, object]], note: str = "") -> str:
    lines = "".join(
        f"<tr><th scope='row'>{text(name)}</th><td>{text(value)}</td></tr>\n"
        for name, value in facts
        if value is not None and value != ""
    )
    intro = f"<p class='soft'>{text(note)}</p>\n" if note else ""
    return f"<section>\n<h2>{text(title)}</h2>\n{intro}<table class='plain'>\n{lines}</table>\n</section>\n"


def _render_details(measured: Sequence[Row]) -> str:
    if not measured:
        return ""
    blocks = []
    for row in measured:
        lines = "".join(
            f"<tr><th scope='row'>{text(label)}</th><td>{text(value)}</td></tr>" for label, value in detail_lines(row)
        )
        blocks.append(f"<h3>{text(row.title)}</h3>\n<table class='plain'>{lines}</table>\n")
    return f"<section><details><summary>Every target in detail</summary>\n{''.join(blocks)}</details></section>\n"


def part(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Returns a part of a record, empty when it is absent or something else."""
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}
