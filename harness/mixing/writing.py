"""The files of a mix: `mix.json`, `mix.csv`, `plan.json`, and the plot."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from modelwright.core.files import require_writable, write_bytes, write_json, write_text
from modelwright.core.records.codec import encode
from modelwright.core.records.plan import PLAN_FILE, BitPlan, write_plan
from modelwright.harness.formatting import format_number
from modelwright.harness.mixing.plot import draw_pareto
from modelwright.harness.mixing.record import Mixture

RESULT, TABLE, PLOTS = "mix.json", "mix.csv", ("pareto.png", "pareto.svg")
_COLUMNS = (
    *("name", "kind", "granularity", "rank_aware", "chosen", "runs", "energy_j_estimated", "compute_j_estimated"),
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


def write_mixture(folder: Path, mixture: Mixture, plan: BitPlan | None) -> None:
    """Writes all files; without a plan an earlier one is taken away, which would be taken for this one's.

    Raises:
        BadInputError: The folder is not writable.
        BuildFailedError: The disk is full.
        ToolchainMissingError: matplotlib is not installed.
    """
    write_json(folder / RESULT, encode(mixture))
    write_text(folder / TABLE, render_rows(mixture))
    if plan is None:
        (folder / PLAN_FILE).unlink(missing_ok=True)
    else:
        write_plan(folder / PLAN_FILE, plan)
    for name in PLOTS:
        write_bytes(folder / name, draw_pareto(mixture, Path(name).suffix[1:]))


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
                *(row.name, row.kind, row.granularity or "", str(row.rank_aware).lower(), str(row.chosen).lower()),
                row.runs,
                *map(format_number, (row.energy_j, row.compute_j, row.memory_j, row.weight_bytes)),
                row.quality.measure,
                *map(format_number, (row.quality.value, low, high, row.quality.samples)),
                *map(format_number, (None if over is None else over.points, points_low, points_high, row.answer_error)),
            ]
        )
    return out.getvalue()
