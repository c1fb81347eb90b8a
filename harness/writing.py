"""Keeps what a comparison found: its files, in their places or aside, and the comparison itself whatever happens."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from modelwright.core.errors import ModelwrightError
from modelwright.core.faults import as_error
from modelwright.core.files import require_writable, write_text
from modelwright.harness.report import render_csv, render_html
from modelwright.harness.results.file import render_results
from modelwright.harness.results.record import Comparison

_Render = Callable[[Comparison], str]
_FILES = ("results.json", "results.csv", "report.html")


class UnfinishedError(ModelwrightError):
    """Everything was measured, and then something failed: what was found is here.

    Attributes:
        comparison: As far as it came.
    """

    def __init__(self, comparison: Comparison, faults: Sequence[ModelwrightError]) -> None:
        first = faults[0]
        super().__init__(
            "; ".join(fault.message for fault in faults),
            hint=first.hint,
            detail="\n".join(fault.detail for fault in faults if fault.detail) or None,
        )
        self.comparison = comparison
        self.exit_code = first.exit_code


def require_places(folder: Path) -> None:
    """Refuses a folder in which a file of a comparison cannot be written, before anything is measured.

    Raises:
        BadInputError: The folder is not writable, or something else than a file has that name.
        BuildFailedError: The disk is full.
    """
    for name in _FILES:
        require_writable(folder / name)


def write_comparison(folder: Path, comparison: Comparison, *, show_paths: bool) -> list[ModelwrightError]:
    """Writes all files of a comparison; one that fails does not stop the others.

    Args:
        folder: To write into.
        comparison: What was found.
        show_paths: Whether the page says where files lie.

    Returns:
        What failed, in words that say where the results lie all the same.
    """
    renderers: Sequence[_Render] = (render_results, render_csv, partial(render_html, show_paths=show_paths))
    return _write({folder / name: render for name, render in zip(_FILES, renderers, strict=True)}, comparison)


def write_results(path: Path, comparison: Comparison) -> list[ModelwrightError]:
    """Writes a comparison's results.json under a name of its own; returns what failed, as `write_comparison`."""
    return _write({path: render_results}, comparison)


def _write(files: Mapping[Path, _Render], comparison: Comparison) -> list[ModelwrightError]:
    """Writes files of a comparison, and what cannot be written in its place into a new temporary folder.

    Returns:
        What failed, in words that say where the results lie all the same.
    """
    faults = []
    aside: Path | None = None
    for path, render in files.items():
        try:
            text = render(comparison)
        except Exception as error:
            faults.append(as_error(error, f"making {path}"))
            continue
        try:
            write_text(path, text)
        except Exception as error:
            fault = as_error(error, f"writing {path}")
            try:
                aside = aside or Path(tempfile.mkdtemp(prefix="modelwright-results-"))
                write_text(aside / path.name, text)
                fault.hint = f"it lies in {aside / path.name} instead: copy it from there"
            except Exception:
                fault.hint = f"{fault.hint or 'make room'}; nor could it be written to the folder for temporary files"
            faults.append(fault)
    return faults
