"""The files of a mix: `mix.json`, `mix.csv`, `plan.json`, and the plot."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path

from modelwright.core.errors import BadInputError
from modelwright.core.files import require_writable, write_bytes, write_json, write_text
from modelwright.core.records.codec import encode, read_record
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.plan import PLAN_FILE, BitPlan, write_plan
from modelwright.harness.formatting import format_number
from modelwright.harness.mixing.plot import draw_pareto
from modelwright.harness.mixing.record import Mixture

RESULT, TABLE, PLOTS = "mix.json", "mix.csv", ("pareto.png", "pareto.svg")
_COLUMNS = (
    *(
        "name",
        "kind",
        "granularity",
        "ranges",
        "rank_aware",
        "chosen",
        "runs",
        "energy_j_estimated",
        "compute_j_estimated",
    ),
    *("memory_j_estimated", "weight_bytes", "measure", "quality", "quality_low", "quality_high", "samples"),
    *("points_over_lowest", "points_low", "points_high", "answer_error_estimated"),
)


def require_places(folder: Path) -> None:
    """Refuses a folder in which a file of a mix cannot be written, before anything is measured.

    Raises:
        BadInputError: The folder is not writable, or something else than a file has that name.
        BuildFailedError: The disk is full.
    """
    for name in (RESULT, TABLE, PLAN_FILE, *PLOTS):
        require_writable(folder / name)


def require_no_other_mix(folder: Path, exported: ExportedModel) -> None:
    """Refuses to put a model beside the mix of another one.

    Raises:
        BadInputError: There is one.
    """
    earlier = _read_earlier(folder)
    if earlier is not None and earlier.onnx_sha256 != exported.sha256:
        raise BadInputError(
            f"{folder} holds the mix of another model than {exported.source.path}: of {earlier.model} as it was then",
            hint="choose another --out, or add --overwrite to replace that model and its mix",
        )


def discard_other_mix(folder: Path, exported: ExportedModel) -> None:
    """Takes away the mix of a model that another one has replaced."""
    earlier = _read_earlier(folder)
    if earlier is not None and earlier.onnx_sha256 != exported.sha256:
        for name in (PLAN_FILE, TABLE, *PLOTS, RESULT):  # the one that tells whose they are comes last
            (folder / name).unlink(missing_ok=True)


def discard_plan(folder: Path) -> None:
    """Takes away an earlier plan where a mix has found none: it would be taken for this one's."""
    (folder / PLAN_FILE).unlink(missing_ok=True)


def _read_earlier(folder: Path) -> Mixture | None:
    with contextlib.suppress(BadInputError):  # none, damaged, or of another version: nothing says what it is of
        return read_record(Mixture, folder / RESULT, what="a mix")
    return None


def write_mixture(folder: Path, mixture: Mixture, plan: BitPlan | None) -> None:
    """Writes all files; without a plan an earlier one is taken away. Nothing is written before all is drawn.

    Raises:
        BadInputError: The folder is not writable.
        BuildFailedError: The disk is full.
        ToolchainMissingError: matplotlib is not installed.
    """
    table, plots = render_rows(mixture), {name: draw_pareto(mixture, Path(name).suffix[1:]) for name in PLOTS}
    discard_plan(folder)
    write_json(folder / RESULT, encode(mixture))
    write_text(folder / TABLE, table)
    for name, plot in plots.items():
        write_bytes(folder / name, plot)
    if plan is not None:
        write_plan(folder / PLAN_FILE, plan)


def render_rows(mixture: Mixture) -> str:
    """Returns all rows as CSV."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(_COLUMNS)
    for row in mixture.rows:
        low, high = row.quality.ci95 or (None, None)
        over = row.over_lowest
        points_low, points_high = (over.ci95 if over is not None else None) or (None, None)
        table.writerow(
            [
                *(row.name, row.kind, row.granularity or "", mixture.settings.ranges if row.granularity else ""),
                *(str(row.rank_aware).lower(), str(row.chosen).lower()),
                row.runs,
                *map(format_number, (row.energy_j, row.compute_j, row.memory_j, row.weight_bytes)),
                row.quality.measure,
                *map(format_number, (row.quality.value, low, high, row.quality.samples)),
                *map(format_number, (None if over is None else over.points, points_low, points_high, row.answer_error)),
            ]
        )
    return out.getvalue()
