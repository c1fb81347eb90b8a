"""The files of a comparison of language artifacts: results.json, results.csv and report.html."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, ModelwrightError
from modelwright.core.faults import as_error
from modelwright.core.files import read_json, render_json, write_text
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.language_artifact import KIND
from modelwright.harness.formatting import clean_text, format_number
from modelwright.harness.language.figures import FIGURES
from modelwright.harness.language.page import render_language_page
from modelwright.harness.language.record import LanguageComparison

RESULTS, TABLE, PAGE = "results.json", "results.csv", "report.html"
_WHAT = "results of a comparison of language artifacts"


def write_language_comparison(folder: Path, comparison: LanguageComparison) -> list[ModelwrightError]:
    """Writes all of them; one that fails does not stop the others.

    Returns:
        What failed.
    """
    renderers: Mapping[str, Callable[[LanguageComparison], str]] = {
        RESULTS: lambda found: render_json(encode(found)),
        TABLE: render_language_table,
        PAGE: render_language_page,
    }
    faults = []
    for name, render in renderers.items():
        try:
            write_text(folder / name, render(comparison))
        except Exception as error:
            faults.append(as_error(error, f"writing {folder / name}"))
    return faults


def render_language_table(comparison: LanguageComparison) -> str:
    """Returns results.csv: a line a target, every figure with its interval."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    ends = [figure.key for figure in FIGURES if any(figure.interval(row) for row in comparison.rows)]
    head = ["target", "status", "reason"]
    for figure in FIGURES:
        head += [figure.key, *([f"{figure.key}_low", f"{figure.key}_high"] if figure.key in ends else [])]
    table.writerow([*head, "energy_source", "model", "threads", "new_tokens"])
    for row in comparison.rows:
        line: list[Any] = [row.target, row.status, _as_text(row.reason or "")]
        for figure in FIGURES:
            line.append(format_number(figure.read(row)))
            if figure.key in ends:
                low, high = figure.interval(row) or (None, None)
                line += [format_number(low), format_number(high)]
        source = "" if row.energy is None else row.energy.source or ""
        settings = comparison.settings
        table.writerow([*line, source, _as_text(comparison.model.source.path), settings.threads, settings.new_tokens])
    return out.getvalue()


def is_language_results(path: Path) -> bool:
    """Whether a file says of itself that it holds results of language artifacts."""
    try:
        return read_json(path, _WHAT).get("kind") == KIND
    except BadInputError:
        return False


def read_language_results(path: Path) -> LanguageComparison:
    """Reads the results.json of a comparison of language artifacts.

    Raises:
        BadInputError: No such file, or not such results; names the file and the key.
    """
    return decode(
        LanguageComparison, read_json(path, _WHAT), where=str(path), hint="if a newer modelwright wrote it, update this"
    )


def _as_text(text: str) -> str:
    """Returns text that no spreadsheet takes for a formula."""
    cleaned = clean_text(text)
    return f"'{cleaned}" if cleaned[:1] in ("=", "+", "-", "@") else cleaned
