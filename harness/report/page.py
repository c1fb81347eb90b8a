"""`report.html`: one file that opens anywhere, without network. Every text from the document is escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from modelwright.harness.formatting import (
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
from modelwright.harness.report.figures import draw_figures
from modelwright.harness.report.terminal import (
    detail_lines,
    format_speedup_interval,
    gpu_lines,
    missing_lines,
)
from modelwright.harness.results.record import Comparison, Row, read_comparison
from modelwright.harness.results.values import mapping_of, sequence_of
from modelwright.harness.verdict.judge import verdict_of

_EFFORTS = {
    "quick": "quick: few rounds, for a first look",
    "standard": "standard: enough rounds to tell a few percent apart",
    "strict": "strict: enough rounds to tell about one percent apart",
}
_SETTING_NAMES = {"seed": "seed of the order of turns", "window_s": "seconds a window"}
_GPU_SETTINGS = ("device", "cuda_graph", "spin", "streams")
_MANY_COLUMNS = 10
"""With more, the table needs its columns narrower to show the last ones beside the first."""

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
            _render_details(measured, comparison.baseline),
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
    gpus = sequence_of(part(raw, "environment").get("accelerators"))
    used = [mapping_of(gpus[0]).get("name")] if gpus and any(row.on_gpu for row in comparison.rows) else []
    parts = [
        f"on {text(part(raw, 'environment').get('device'))}",
        *map(text, used),
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
    columns = _choose_columns(comparison, measured)
    head = "".join(
        f"<th scope='col'><button type='button'>{text(name)}</button><small>{text(note)}</small></th>"
        for name, note in (("target", ""), *(column.header for column in columns))
    )
    body = []
    for row in measured:
        cells = "".join(column.cell(row) for column in columns)
        kind = " class='ship'" if row.target == verdict["ship"] else ""
        body.append(f"<tr{kind}>{_name_cell(row, verdict)}{cells}</tr>\n")
    notes = [*gpu_lines(comparison), *missing_lines(list(measured))]
    if any(row.energy_estimated for row in measured):
        notes.insert(0, "~ estimated, not measured")
    shown = "".join(f"<li>{text(note)}</li>" for note in notes)
    kinds = "results dense" if len(columns) > _MANY_COLUMNS else "results"
    return (
        f"<section>\n<h2>Side by side</h2>\n<div class='scroll'><table class='{kinds}'>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(body)}</tbody>\n</table></div>\n"
        + (f"<ul class='notes'>{shown}</ul>\n" if shown else "")
        + "</section>\n"
    )


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column of numbers.

    Attributes:
        header: Its name, and the unit or what it compares with.
        cell: Returns a row's cell as HTML.
    """

    header: tuple[str, str]
    cell: Callable[[Row], str]


def _choose_columns(comparison: Comparison, measured: Sequence[Row]) -> list[_Column]:
    """Returns the columns behind the name; those of a GPU and the cosine only where a row has them."""
    gpu = any(row.on_gpu for row in measured)

    def plain(name: str, unit: str, field: str, render: Callable[[float | None], str]) -> _Column:
        def cell(row: Row) -> str:
            value = getattr(row, field)
            return _cell(value, render(value))

        return _Column(header=(name, unit), cell=cell)

    return [
        plain("size", "MB", "size_bytes", format_megabytes),
        plain("p50", "ms", "p50_ms", format_significant),
        plain("p99", "ms", "p99_ms", format_significant),
        *([plain("compute p50", "ms", "compute_p50_ms", format_significant)] if gpu else []),
        plain("throughput", "per s", "throughput_per_s", format_significant),
        plain("peak memory", "MB", "peak_memory_bytes", format_megabytes),
        *([plain("GPU memory", "MB", "gpu_memory_bytes", format_megabytes)] if gpu else []),
        *_energy_columns(comparison, measured),
        plain("accuracy", "%", "accuracy", format_percent_number),
        plain("agreement", "%", "agreement", format_percent_number),
        *(
            [plain("cosine", "with FP32", "cosine", format_cosine)]
            if any(row.cosine is not None for row in measured)
            else []
        ),
        _Column(
            header=("speed-up", f"of {comparison.baseline}"),
            cell=lambda row: _cell(
                row.speedup, format_ratio(row.speedup), format_speedup_interval(row, comparison.baseline)
            ),
        ),
    ]


def _energy_columns(comparison: Comparison, measured: Sequence[Row]) -> list[_Column]:
    """Returns a column for each scope of the energies: a column can be sorted, and scopes must not be ranked."""
    unit, factor = energy_unit(row.energy_j for row in measured)
    scopes = comparison.energy_scopes

    def render(row: Row, scope: str | None) -> str:
        if row.energy_j is None or (scope is not None and (row.energy_scope or "") != scope):
            return _cell(None, MISSING)
        joules = format_significant(row.energy_j * factor)
        return _cell(row.energy_j, f"~{joules}" if row.energy_estimated else joules)

    if len(scopes) < 2:
        return [_Column(header=("energy", f"{unit} each"), cell=partial(render, scope=None))]
    return [
        _Column(header=("energy", f"{unit}, {scope or 'unknown'}"), cell=partial(render, scope=scope))
        for scope in scopes
    ]


def _name_cell(row: Row, verdict: Mapping[str, Any]) -> str:
    tags = "<span class='tag good'>ship</span>" if row.target == verdict["ship"] else ""
    if row.on_gpu:
        tags += f"<span class='tag device'>{text(row.device.upper())}</span>"
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
        *_settings_facts(settings, on_gpu=any(row.on_gpu for row in comparison.measured)),
        ("calibration", _describe_samples(part(samples, "calibration"))),
        ("evaluation", _describe_samples(part(samples, "evaluation"))),
    ]
    return facts


def _settings_facts(settings: Mapping[str, Any], *, on_gpu: bool) -> Iterator[tuple[str, object]]:
    """Yields the settings that had a say: those of a GPU only where something ran on one."""
    for key, value in settings.items():
        if key == "effort" or (key in _GPU_SETTINGS and not on_gpu):
            continue
        shown = ("yes" if value else "no") if isinstance(value, bool) else value
        yield _SETTING_NAMES.get(key, key.replace("_", " ")), shown


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
    gpus = [mapping_of(item) for item in sequence_of(environment.get("accelerators"))]
    virtual = {True: "yes", False: "no"}.get(bool(environment.get("virtual_machine")))
    facts: list[tuple[str, object]] = [
        ("device", environment.get("device")),
        ("processor", environment.get("cpu_model")),
        ("cores", environment.get("cores")),
        *(("GPU", _describe_gpu(gpu)) for gpu in gpus),
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


def _describe_gpu(gpu: Mapping[str, Any]) -> str:
    memory = gpu.get("memory_bytes")
    facts = (
        ("compute capability", gpu.get("compute_capability")),
        ("memory", format_bytes(memory) if isinstance(memory, int | float) else None),
        ("driver", gpu.get("driver_version")),
        ("CUDA", gpu.get("cuda_version")),
    )
    known = ", ".join(f"{name} {value}" for name, value in facts if value is not None)
    return f"{gpu.get('name')}{', ' + known if known else ''}"


def _render_facts(title: str, facts: Sequence[tuple[str, object]], note: str = "") -> str:
    lines = "".join(
        f"<tr><th scope='row'>{text(name)}</th><td>{text(value)}</td></tr>\n"
        for name, value in facts
        if value is not None and value != ""
    )
    intro = f"<p class='soft'>{text(note)}</p>\n" if note else ""
    return f"<section>\n<h2>{text(title)}</h2>\n{intro}<table class='plain'>\n{lines}</table>\n</section>\n"


def _render_details(measured: Sequence[Row], baseline: str) -> str:
    if not measured:
        return ""
    blocks = []
    for row in measured:
        lines = "".join(
            f"<tr><th scope='row'>{text(label)}</th><td>{text(value)}</td></tr>"
            for label, value in detail_lines(row, baseline)
        )
        blocks.append(f"<h3>{text(row.title)}</h3>\n<table class='plain'>{lines}</table>\n")
    return f"<section><details><summary>Every target in detail</summary>\n{''.join(blocks)}</details></section>\n"


def part(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Returns a part of a record, empty when it is absent or something else."""
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}
