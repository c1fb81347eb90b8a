"""The files of a search: `tune.json`, `trials.csv` and `report.html`."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from modelwright.core.files import write_json, write_text
from modelwright.core.records.codec import encode
from modelwright.harness.formatting import clean_text, format_number
from modelwright.harness.tuning.page import render_tuning
from modelwright.harness.tuning.record import Tuning
from modelwright.harness.tuning.wording import mark_estimate

RESULT, TABLE, PAGE = "tune.json", "trials.csv", "report.html"
_COLUMNS = (
    *("trial", "artifact", "threads", "requests", "settings", "outcome", "incumbent", "ratio", "ratio_low"),
    *("ratio_high", "score", "cost", "unit", "rounds", "elapsed_s", "reason"),
)


def write_tuning(folder: Path, found: Tuning) -> None:
    """Writes all of them.

    Raises:
        BadInputError: The folder is not writable.
        BuildFailedError: The disk is full.
    """
    write_json(folder / RESULT, encode(found))
    write_text(folder / TABLE, render_trials(found))
    write_text(folder / PAGE, render_tuning(found))


def render_trials(found: Tuning) -> str:
    """Returns all trials as CSV, one a line."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(_COLUMNS)
    for trial in found.trials:
        how, gain = trial.configuration, trial.gain
        low, high = (None, None) if gain is None or gain.ci95 is None else gain.ci95
        table.writerow(
            [
                trial.number,
                _as_text(how.artifact),
                how.threads,
                how.requests,
                _as_text(" ".join(f"{name}={_typed(value)}" for name, value in how.options.items())),
                trial.outcome,
                "" if trial.incumbent is None else trial.incumbent,
                *(format_number(value) for value in (gain.ratio if gain else None, low, high, trial.score, trial.cost)),
                found.unit + mark_estimate(found),
                trial.rounds,
                format_number(trial.elapsed_s),
                _as_text(trial.reason or ""),
            ]
        )
    return out.getvalue()


def _typed(value: bool | int | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_text(text: str) -> str:
    """Returns text that no spreadsheet takes for a formula."""
    cleaned = clean_text(text)
    return f"'{cleaned}" if cleaned[:1] in ("=", "+", "-", "@") else cleaned
