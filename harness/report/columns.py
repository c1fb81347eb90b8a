"""Which metrics have a column in the tables, and what stands in its cells: the same on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from modelwright.harness.formatting import MISSING
from modelwright.harness.results.metrics import METRICS
from modelwright.harness.results.places import Column, Metric
from modelwright.harness.results.record import Comparison, Measurement


@dataclass(frozen=True, kw_only=True)
class ShownColumn:
    """A column of a table.

    Attributes:
        unit: Of its figures, where the column chose one.
        factor: To that unit.
        scope: The figures that it holds cover this; None for all.
    """

    metric: Metric
    column: Column
    unit: str = ""
    factor: float = 1.0
    scope: str | None = None

    @property
    def head(self) -> str:
        """Its head on the terminal."""
        return self.column.head.format(unit=self.unit)

    def read(self, row: Measurement) -> float | None:
        """Returns a row's number, None where it has none or one that belongs elsewhere."""
        if self.scope is not None and self.metric.scope is not None and self.metric.scope(row) != self.scope:
            return None
        value: float | None = self.metric.read(row)
        return value

    def show(self, row: Measurement, comparison: Comparison) -> str:
        """Returns a row's figure as text, marked where it is an estimate."""
        if self.column.of_baseline is not None and row.target == comparison.baseline:
            return self.column.of_baseline
        value = self.read(row)
        if value is None:
            return MISSING
        mark = "~" if self.metric.estimated is not None and self.metric.estimated(row) else ""
        return mark + self.column.show(value if self.column.scale is None else value * self.factor)


def choose_terminal_columns(comparison: Comparison, rows: Sequence[Measurement]) -> list[ShownColumn]:
    """Returns the terminal's columns, in the order of the table of metrics."""
    return list(
        _scale(((metric, column) for metric, column in _list_columns() if column.on_terminal(comparison)), rows)
    )


def choose_page_columns(comparison: Comparison, rows: Sequence[Measurement]) -> list[ShownColumn]:
    """Returns the page's columns; one for each scope, because they can be sorted, and scopes must not be ranked."""
    shown = []
    for one in _scale(((metric, column) for metric, column in _list_columns() if column.on_page(comparison)), rows):
        scopes = comparison.energy_scopes if one.metric.scope is not None else ()
        shown += [replace(one, scope=scope) for scope in scopes] if len(scopes) > 1 else [one]
    return shown


def _list_columns() -> Iterator[tuple[Metric, Column]]:
    return ((metric, metric.column) for metric in METRICS if metric.column is not None)


def _scale(columns: Iterable[tuple[Metric, Column]], rows: Sequence[Measurement]) -> Iterator[ShownColumn]:
    for metric, column in columns:
        if column.scale is None:
            yield ShownColumn(metric=metric, column=column)
        else:
            unit, factor = column.scale(map(metric.read, rows))
            yield ShownColumn(metric=metric, column=column, unit=unit, factor=factor)
