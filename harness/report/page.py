"""`report.html`: one file that opens anywhere, without network. Turns a comparison into the values of its template."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

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
    format_number,
    format_percent,
    format_percent_number,
    format_ratio,
    format_significant,
)
from modelwright.harness.report.figures import draw_bar_figures, draw_scatter_figure
from modelwright.harness.report.terminal import (
    detail_lines,
    format_speedup_interval,
    gpu_lines,
    missing_lines,
)
from modelwright.harness.results.record import Comparison, Row, read_comparison
from modelwright.harness.results.values import mapping_of, sequence_of, text_of
from modelwright.harness.verdict.judge import verdict_of

if TYPE_CHECKING:
    from jinja2 import Template

_EFFORTS = {
    "quick": "quick: few rounds, for a first look",
    "standard": "standard: enough rounds to tell a few percent apart",
    "strict": "strict: enough rounds to tell about one percent apart",
}
_SETTING_NAMES = {"seed": "seed of the order of turns", "window_s": "seconds a window"}
_GPU_SETTINGS = ("device", "cuda_graph", "spin", "streams")
_MANY_COLUMNS = 10
"""With more, the table needs its columns narrower to show the last ones beside the first."""


def render_html(document: Mapping[str, Any]) -> str:
    """Returns the report as one HTML page with inline style, script and SVG.

    Args:
        document: A results document as in results.json.
    """
    comparison = read_comparison(document)
    verdict = verdict_of(document)
    rows = [row for target in verdict["order"] if (row := comparison.find(target)) is not None]
    measured = [row for row in rows if row.measured]
    ship = comparison.find(verdict["ship"])
    columns = _choose_columns(comparison, measured)
    return _load_template().render(
        title=f"{comparison.model_name}: which target to ship",
        subtitle=_describe_run(comparison),
        verdict=verdict,
        ship=ship,
        tiles=_choose_tiles(ship, comparison) if ship else [],
        warnings=list(dict.fromkeys(map(clean_text, [*document.get("warnings", ()), *verdict["warnings"]]))),
        columns=columns,
        many_columns=_MANY_COLUMNS,
        table=[(row, [column.cell(row) for column in columns]) for row in measured],
        notes=_table_notes(comparison, measured),
        scatter=draw_scatter_figure(comparison, measured, verdict),
        figures=draw_bar_figures(comparison, measured, verdict),
        unmeasured=[row for row in rows if not row.measured],
        measuring=_known(_measuring_facts(comparison)),
        environment=_known(_environment_facts(comparison)),
        details=[(row.title, detail_lines(row, comparison.baseline)) for row in measured],
        run_id=document.get("run_id"),
    )


@cache
def _load_template() -> Template:
    """Returns the page's template, compiled once. Jinja2 is imported when a page is rendered, not before."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["source_hash"] = _source_hash
    return environment.get_template("page.html.j2")


def _finalize(value: object) -> object:
    """Returns what the template prints: markup as it is, everything else as clean text that is escaped after this."""
    if isinstance(value, Markup):
        return value
    return MISSING if value is None else clean_text(value)


def _source_hash(content: str) -> str:
    """Returns the hash that lets a browser run an inline style or script, and no other."""
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


def _describe_run(comparison: Comparison) -> list[str]:
    """Returns where and when it was measured, in parts."""
    raw = comparison.raw
    environment = mapping_of(raw.get("environment"))
    gpus = sequence_of(environment.get("accelerators"))
    parts = [f"on {text_of(environment.get('device')) or MISSING}"]
    if gpus and any(row.on_gpu for row in comparison.rows):
        parts.append(text_of(mapping_of(gpus[0]).get("name")) or MISSING)
    parts.append(f"profile {text_of(raw.get('profile')) or MISSING}")
    if raw.get("timestamp"):
        parts.append(f"{str(raw['timestamp'])[:19].replace('T', ' ')} UTC")
    return parts


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


def _table_notes(comparison: Comparison, measured: Sequence[Row]) -> list[str]:
    """Returns what stands under the table: how to read its figures, and why some are missing."""
    estimated = ["~ estimated, not measured"] if any(row.energy_estimated for row in measured) else []
    return [*estimated, *gpu_lines(comparison), *missing_lines(list(measured))]


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A figure in the table.

    Attributes:
        key: The number to sort by; empty where there is none.
        text: The figure as people read it.
        note: Under the figure, smaller.
    """

    key: str
    text: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column of numbers.

    Attributes:
        unit: The unit, or what the numbers compare with.
    """

    name: str
    unit: str
    cell: Callable[[Row], _Cell]


def _choose_columns(comparison: Comparison, measured: Sequence[Row]) -> list[_Column]:
    """Returns the columns behind the name; those of a GPU and the cosine only where a row has them."""
    gpu = any(row.on_gpu for row in measured)

    def plain(name: str, unit: str, field: str, render: Callable[[float | None], str]) -> _Column:
        def cell(row: Row) -> _Cell:
            value = getattr(row, field)
            return _Cell(key=format_number(value), text=render(value))

        return _Column(name=name, unit=unit, cell=cell)

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
            name="speed-up",
            unit=f"of {comparison.baseline}",
            cell=lambda row: _Cell(
                key=format_number(row.speedup),
                text=format_ratio(row.speedup),
                note=format_speedup_interval(row, comparison.baseline),
            ),
        ),
    ]


def _energy_columns(comparison: Comparison, measured: Sequence[Row]) -> list[_Column]:
    """Returns a column for each scope of the energies: a column can be sorted, and scopes must not be ranked."""
    unit, factor = energy_unit(row.energy_j for row in measured)
    scopes = comparison.energy_scopes

    def render(row: Row, scope: str | None) -> _Cell:
        if row.energy_j is None or (scope is not None and (row.energy_scope or "") != scope):
            return _Cell(key="", text=MISSING)
        joules = format_significant(row.energy_j * factor)
        return _Cell(key=format_number(row.energy_j), text=f"~{joules}" if row.energy_estimated else joules)

    if len(scopes) < 2:
        return [_Column(name="energy", unit=f"{unit} each", cell=partial(render, scope=None))]
    return [
        _Column(name="energy", unit=f"{unit}, {scope or 'unknown'}", cell=partial(render, scope=scope))
        for scope in scopes
    ]


def _known(facts: Iterable[tuple[str, object]]) -> list[tuple[str, object]]:
    """Returns the facts that have a value."""
    return [(name, value) for name, value in facts if value is not None and value != ""]


def _measuring_facts(comparison: Comparison) -> list[tuple[str, object]]:
    raw, settings = comparison.raw, mapping_of(comparison.raw.get("settings"))
    effort = str(raw.get("effort") or "")
    samples = mapping_of(raw.get("samples"))
    facts: list[tuple[str, object]] = [
        ("effort", _EFFORTS.get(effort, effort) or None),
        ("baseline", raw.get("baseline")),
        *((f"limit, {name.replace('_', ' ')}", value) for name, value in mapping_of(raw.get("limits")).items()),
        *_settings_facts(settings, on_gpu=any(row.on_gpu for row in comparison.measured)),
        ("calibration", _describe_samples(mapping_of(samples.get("calibration")))),
        ("evaluation", _describe_samples(mapping_of(samples.get("evaluation")))),
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
    environment, source = mapping_of(comparison.raw.get("environment")), mapping_of(comparison.raw.get("source"))
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
        *((name, version) for name, version in mapping_of(environment.get("versions")).items()),
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
