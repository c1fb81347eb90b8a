"""How answers come up to the samples' targets, as a table: a row a target, a column an output."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.harness.formatting import MISSING, format_significant
from modelwright.harness.results.record import Measurement, TargetFit

MOST_COLUMNS = 8


def fit_columns(rows: Sequence[Measurement]) -> list[str]:
    """Returns the outputs that rows have figures for; none where there are more than a table has room for."""
    names = list(dict.fromkeys(fit.name for row in rows for fit in row.fits))
    return names if len(names) <= MOST_COLUMNS else []


def fit_cells(row: Measurement, columns: Sequence[str]) -> list[tuple[str, str]]:
    """Returns error and R squared of a row, in the order of the columns."""
    fits = {fit.name: fit for fit in row.fits}
    return [(MISSING, "") if name not in fits else _show(fits[name]) for name in columns]


def _show(fit: TargetFit) -> tuple[str, str]:
    return format_significant(fit.rmse), MISSING if fit.r2 is None else format_r2(fit.r2)


def format_r2(value: float) -> str:
    """Returns an R squared with as many decimals as tell it from 1."""
    return f"{value:.6f}" if value > 0.99 else f"{value:.4f}" if value > -10 else format_significant(value)


def describe_fits(fits: Sequence[TargetFit]) -> str:
    """Returns all figures of a row on one line."""
    return "; ".join(f"{fit.name} RMSE {rmse}, R2 {r2}" for fit in fits for rmse, r2 in [_show(fit)])
