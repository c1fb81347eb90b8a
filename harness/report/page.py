"""`report.html`: one file that opens anywhere, without network. Turns a comparison into the values of its template."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup
from msgspec.structs import asdict

from modelwright.core.records.pictures import Pictures
from modelwright.harness.formatting import (
    MISSING,
    clean_text,
    format_bytes,
    format_count,
    format_interval,
    format_number,
)
from modelwright.harness.report.columns import ShownColumn, choose_page_columns
from modelwright.harness.report.figures import draw_bar_figures, draw_scatter_figure
from modelwright.harness.report.fits import fit_cells, fit_columns
from modelwright.harness.report.fleet import fleet_cells, fleet_heads, fleet_notes, fleet_title
from modelwright.harness.report.operators import list_legend, show_operators
from modelwright.harness.report.terminal import detail_lines, gpu_lines, missing_lines
from modelwright.harness.results.metrics import BY_KEY, METRICS, list_estimated
from modelwright.harness.results.paths import drop_paths
from modelwright.harness.results.places import Metric, Tile
from modelwright.harness.results.record import Accelerator, Comparison, Fleet, Measurement, SamplePart
from modelwright.harness.verdict.judge import verdict_of

if TYPE_CHECKING:
    from jinja2 import Template

_EFFORTS = {
    "quick": "quick: few rounds of one launch, for a first look",
    "standard": "standard: enough rounds and launches to tell a few percent apart",
    "strict": "strict: enough rounds and launches to tell about one percent apart",
}
_SETTING_NAMES = {"seed": "seed of the order of turns", "window_s": "seconds a window"}
_GPU_SETTINGS = ("device", "cuda_graph", "spin", "streams")
_MANY_COLUMNS = 10
"""With more, the table needs its columns narrower to show the last ones beside the first."""


def render_html(comparison: Comparison, *, show_paths: bool = False) -> str:
    """Returns the report as one HTML page with inline style, script and SVG.

    Args:
        comparison: What was measured.
        show_paths: Whether to say where files lie; without it they are named.
    """
    if not show_paths:
        comparison = drop_paths(comparison)
    verdict = verdict_of(comparison)
    rows = [row for target in verdict.order if (row := comparison.find(target)) is not None]
    measured = [row for row in rows if row.measured]
    ship = comparison.find(verdict.ship)
    columns = choose_page_columns(comparison, measured)
    operators = [shown for row in measured if (shown := show_operators(row)) is not None]
    return load_template(Path(__file__).parent, "page.html.j2").render(
        title=f"{comparison.model_name}: which target to ship",
        subtitle=_describe_run(comparison),
        verdict=verdict,
        ship=ship,
        tiles=_choose_tiles(ship, comparison) if ship else [],
        warnings=list(dict.fromkeys(map(clean_text, [*comparison.warnings, *verdict.warnings]))),
        columns=[_Column(name=one.column.name, unit=_describe_unit(one, comparison)) for one in columns],
        many_columns=_MANY_COLUMNS,
        table=[(row, [_make_cell(one, row, comparison) for one in columns]) for row in measured],
        notes=_table_notes(comparison, measured),
        scatter=draw_scatter_figure(comparison, measured, verdict),
        figures=draw_bar_figures(comparison, measured, verdict),
        fit_columns=fit_columns(measured),
        fits=[(row, fit_cells(row, fit_columns(measured))) for row in measured],
        fleet=None if comparison.fleet is None else _show_fleet(comparison.fleet, comparison),
        unmeasured=[row for row in rows if not row.measured],
        measuring=_known(_measuring_facts(comparison)),
        environment=_known(_environment_facts(comparison)),
        details=[(row.title, detail_lines(row, comparison.baseline)) for row in measured],
        operators=operators,
        operators_legend=list_legend(operators),
        run_id=comparison.run_id,
    )


@cache
def load_template(folder: Path, name: str) -> Template:
    """Returns a page's template, compiled once. Jinja2 is imported when a page is rendered, not before.

    Args:
        folder: Where it lies; the style sheet and what else it includes may lie here.
        name: Of its file.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["source_hash"] = _source_hash
    return environment.get_template(name)


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
    environment = comparison.environment
    used = environment.accelerators[:1] if comparison.on_gpu else ()
    return [
        f"on {environment.device}",
        *(gpu.name for gpu in used),
        f"profile {comparison.profile}",
        f"{comparison.timestamp[:19].replace('T', ' ')} UTC",
    ]


def _choose_tiles(row: Measurement, comparison: Comparison) -> list[tuple[str, str, str]]:
    """Returns the figures of the recommended target that were measured: label, figure, what it compares with."""
    base = comparison.find(comparison.baseline)
    base = None if base is row else base
    tiles = [(metric, metric.tile) for metric in METRICS if metric.tile is not None]
    shown = []
    for metric, tile in sorted(tiles, key=lambda pair: pair[1].place):
        value = metric.read(row)
        if value is not None and (base is not None or tile.note == "baseline"):
            shown.append((tile.label, tile.show(value), _write_tile_note(metric, tile, row, base, comparison)))
    return shown


def _write_tile_note(
    metric: Metric, tile: Tile, row: Measurement, base: Measurement | None, comparison: Comparison
) -> str:
    if tile.note == "interval":
        ends = row.speedup.ci95 if row.speedup else None
        return "" if ends is None else f"95 % interval {format_interval(*ends, separator=' to ')}"
    if tile.note == "samples":
        return f"on {comparison.evaluation_count} samples" if comparison.evaluation_count else ""
    value = None if base is None else metric.read(base)
    return "" if base is None or value is None else f"{tile.show(value)} for {base.title}"


def _table_notes(comparison: Comparison, measured: Sequence[Measurement]) -> list[str]:
    """Returns what stands under the table: how to read its figures, and why some are missing."""
    estimated = ["~ estimated, not measured"] if list_estimated(measured) else []
    return [*estimated, *gpu_lines(comparison), *missing_lines(list(measured))]


@dataclass(frozen=True, kw_only=True)
class _ShownFleet:
    """What fleets take, as the page shows it.

    Attributes:
        heads: Name and unit of each figure.
        sizes: Title of a fleet, and its rows: title, name, figures.
        notes: How to read it.
    """

    heads: list[tuple[str, str]]
    sizes: list[tuple[str, list[tuple[str, str, list[str]]]]]
    notes: list[str]


def _show_fleet(fleet: Fleet, comparison: Comparison) -> _ShownFleet:
    titles = {row.target: row.title for row in comparison.measured}
    return _ShownFleet(
        heads=fleet_heads(fleet),
        sizes=[
            (
                fleet_title(fleet, devices),
                [
                    (titles.get(row.target, row.target), row.target, fleet_cells(fleet, row, comparison.baseline))
                    for row in fleet.rows
                    if row.devices == devices
                ],
            )
            for devices in fleet.usage.devices
        ],
        notes=fleet_notes(fleet),
    )


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
    """The head of a column of numbers.

    Attributes:
        unit: The unit, or what the numbers compare with.
    """

    name: str
    unit: str


def _describe_unit(shown: ShownColumn, comparison: Comparison) -> str:
    if shown.scope is not None:
        return f"{shown.unit}, {shown.scope or 'unknown'}"
    # The baseline's name comes from the user and may hold braces of its own.
    return shown.column.unit.replace("{unit}", shown.unit).replace("{baseline}", comparison.baseline)


def _make_cell(shown: ShownColumn, row: Measurement, comparison: Comparison) -> _Cell:
    note = ""
    if shown.column.note is not None:
        beside = BY_KEY[shown.column.note]
        assert beside.column is not None
        note = ShownColumn(metric=beside, column=beside.column).show(row, comparison)
    return _Cell(key=format_number(shown.read(row)), text=shown.show(row, comparison), note=note)


def _known(facts: Iterable[tuple[str, object]]) -> list[tuple[str, object]]:
    """Returns the facts that have a value."""
    return [(name, value) for name, value in facts if value is not None and value != ""]


def _measuring_facts(comparison: Comparison) -> list[tuple[str, object]]:
    samples = comparison.samples
    return [
        ("effort", _EFFORTS.get(comparison.effort, comparison.effort)),
        ("baseline", comparison.baseline),
        *((f"limit, {name.replace('_', ' ')}", value) for name, value in comparison.limits.items()),
        *_settings_facts(comparison),
        ("calibration", _describe_samples(samples.calibration)),
        ("evaluation", _describe_samples(samples.evaluation)),
        *_picture_facts(samples.pictures),
    ]


def _picture_facts(pictures: Pictures | None) -> list[tuple[str, object]]:
    if pictures is None:
        return []
    left_out = pictures.unreadable_count + pictures.others_count + pictures.copies
    classes = None if pictures.classes is None else f"{pictures.describe_classes()}, in the order of {pictures.order}"
    return [
        ("pictures", f"{pictures.taken:,} by --preprocess {pictures.preprocess.describe()}"),
        ("classes of pictures", classes),
        ("files left out", left_out or None),
    ]


def _settings_facts(comparison: Comparison) -> Iterator[tuple[str, object]]:
    """Yields the settings that had a say: those of a GPU only where something ran on one."""
    for key, value in asdict(comparison.settings).items():
        if key == "effort" or (key in _GPU_SETTINGS and not comparison.on_gpu):
            continue
        shown = ("yes" if value else "no") if isinstance(value, bool) else value
        yield _SETTING_NAMES.get(key, key.replace("_", " ")), shown


def _describe_samples(samples: SamplePart | None) -> str | None:
    if samples is None:
        return None
    labels = ", with labels" if samples.labels else ""
    hashed = f" (SHA-256 {samples.sha256[:12]}...)" if samples.sha256 else ""
    return f"{samples.count} samples{labels}, {samples.path}{hashed}"


def _environment_facts(comparison: Comparison) -> list[tuple[str, object]]:
    environment, source = comparison.environment, comparison.source
    virtual = environment.virtual_machine
    return [
        ("device", environment.device),
        ("processor", environment.cpu_model),
        ("cores", environment.cores),
        *(("GPU", _describe_gpu(gpu)) for gpu in environment.accelerators),
        ("memory", None if environment.memory_bytes is None else format_bytes(environment.memory_bytes)),
        ("instruction sets", ", ".join(environment.instruction_sets)),
        ("virtual machine", None if virtual is None else "yes" if virtual else "no"),
        ("energy meters", ", ".join(environment.meters) or "none"),
        ("system", environment.os),
        ("Python", environment.python),
        *environment.versions.items(),
        *((f"model {variant.name}", variant.source.path) for variant in comparison.variants[1:]),
        ("model", source.path),
        ("parameters", None if source.num_parameters is None else format_count(source.num_parameters)),
        ("opset", source.opset),
        ("model SHA-256", source.sha256),
    ]


def _describe_gpu(gpu: Accelerator) -> str:
    facts = (
        ("compute capability", gpu.compute_capability),
        ("memory", None if gpu.memory_bytes is None else format_bytes(gpu.memory_bytes)),
        ("driver", gpu.driver_version),
        ("CUDA", gpu.cuda_version),
    )
    return ", ".join([gpu.name, *(f"{name} {value}" for name, value in facts if value is not None)])
