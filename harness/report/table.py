"""`results.csv`: one row per target, in columns that other energy and deployment benchmarks use too."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping

from modelwright.harness.formatting import format_number
from modelwright.harness.results.metrics import METRICS
from modelwright.harness.results.places import Csv, Metric
from modelwright.harness.results.record import Comparison, Measurement

_Cell = Callable[[Measurement, Comparison], str]
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def render_csv(comparison: Comparison) -> str:
    """Returns the text of `results.csv`: one row per target, in the comparison's order; skipped and failed ones too.

    What was not measured is an empty cell. `inference_time_ms` is the median.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in comparison.measurements:
        writer.writerow([cell(row, comparison) for cell in COLUMNS.values()])
    return text.getvalue()


def _device_name(row: Measurement, comparison: Comparison) -> str:
    """Returns the GPU of a row that ran on one, else the machine."""
    environment = comparison.environment
    return environment.accelerators[0].name if row.on_gpu and environment.accelerators else environment.device


def _text(read: Callable[[Measurement, Comparison], str | None]) -> _Cell:
    """Returns a text cell that a spreadsheet will not run as a formula (OWASP's advice: a leading quote)."""

    def cell(row: Measurement, comparison: Comparison) -> str:
        text = (read(row, comparison) or "").replace("\x00", "")
        return f"'{text}" if text.startswith(_FORMULA_STARTS) else text

    return cell


def _number(metric: Metric, column: Csv) -> _Cell:
    def cell(row: Measurement, comparison: Comparison) -> str:
        value = column.value(metric, row, comparison) if column.value else metric.read(row)
        return format_number(None if value is None else value / column.per)

    return cell


def _count_parameters(row: Measurement, comparison: Comparison) -> str:
    """Returns those of the row's model: one of several, or the only one."""
    return format_number(row.num_parameters if comparison.variants else comparison.source.num_parameters)


def _arrange_columns() -> Mapping[str, _Cell]:
    """Returns name -> cell: facts and metrics at their places, then the metrics that have none."""
    facts: dict[int, tuple[str, _Cell]] = {
        1: ("run_id", _text(lambda _row, comparison: comparison.run_id)),
        2: ("model_variant", _text(lambda row, _comparison: row.target)),
        3: ("timestamp", _text(lambda _row, comparison: comparison.timestamp)),
        4: ("num_parameters", _count_parameters),
        16: ("device", _text(_device_name)),
        17: ("energy_source", _text(lambda row, _comparison: row.energy.source if row.energy else None)),
    }
    metrics = [(column, (column.name, _number(metric, column))) for metric in METRICS for column in metric.csv]
    placed = facts | {column.place: named for column, named in metrics if column.place is not None}
    return dict([placed[place] for place in sorted(placed)] + [named for column, named in metrics if not column.place])


COLUMNS = _arrange_columns()
