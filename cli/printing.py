"""What the commands print: results on standard output, progress on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelwright.core.errors import LimitNotMetError
from modelwright.harness.formatting import clean_text, join_words
from modelwright.harness.progress import Progress

if TYPE_CHECKING:
    from modelwright.harness import Comparison

json_printed = False
_NAME_WIDTH = 18
_LONGEST_VALUE = 400
_BAR_WIDTH = 12
_MARKS = {True: click.style("ok", fg="green"), False: click.style("--", fg="yellow")}


def print_json(value: Any) -> None:
    """Prints a JSON value on standard output: one a command, and nothing beside it."""
    global json_printed
    click.echo(json.dumps(value, indent=2, allow_nan=False))
    json_printed = True


def readable(text: str) -> str:
    """Returns text in which names and messages come from elsewhere: on one line, unable to steer the terminal."""
    return clean_text(click.unstyle(text))


def print_line(text: str) -> None:
    """Prints a line that names what comes from a model or a manifest."""
    click.echo(readable(text))


def print_field(name: str, value: object) -> None:
    """Prints a named value."""
    text = readable(str(value))
    shown = text if len(text) < _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
    print_folded(f"{name:{_NAME_WIDTH}} {shown}", indent=_NAME_WIDTH + 1)


def print_folded(text: str, *, indent: int, mark: str = "", err: bool = False) -> None:
    """Prints a line that names what comes from a model or a manifest: whole for files and pipes, folded on a terminal.

    Args:
        text: To print.
        indent: On a terminal, of all lines but the first.
        mark: Styled; stands before it.
        err: Print on standard error.
    """
    if not (sys.stderr if err else sys.stdout).isatty():
        click.echo(mark + readable(text), err=err)
        return
    from rich.console import Console
    from rich.text import Text

    from modelwright.harness.report.sentences import print_sentence

    print_sentence(Console(stderr=err), Text.from_ansi(mark) + Text(readable(text)), indent=indent)


def open_progress() -> Progress:
    """Returns a live bar when standard error is a terminal, plain lines when not."""
    return LiveProgress() if sys.stderr.isatty() else LineProgress()


def _tell(text: str, mark: str = "") -> None:
    """Prints a line on standard error; work goes on when nobody listens any more."""
    with contextlib.suppress(OSError):
        click.echo(mark + readable(text), err=True)


class LineProgress:
    """One line when a task begins, one when it ends: for logs."""

    def __init__(self) -> None:
        self._quarter: dict[str, int] = {}

    def start(self, task: str, text: str) -> None:
        """Prints what begins."""
        del task
        _tell(f"   {text} ...")

    def say(self, task: str, text: str) -> None:
        """Says nothing: a log has no use for what is over in a moment."""

    def advance(self, task: str, done: int, total: int) -> None:
        """Prints a line every quarter."""
        quarter = 4 * done // total
        if quarter > self._quarter.get(task, 0):
            self._quarter[task] = quarter
            _tell(f"   {done / total:.0%} of the budget" if task == "search" else f"   round {done} of {total}")

    def finish(self, task: str, text: str, *, ok: bool = True) -> None:
        """Prints what came out."""
        del task
        _tell(text, f"{_MARKS[ok]} ")


class LiveProgress:
    """A line that changes in place, and one that stays for every finished task."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True)
        self._progress = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_BAR_WIDTH),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._titles: dict[str, str] = {}

    def start(self, task: str, text: str) -> None:
        """Shows a running task."""
        if not self._tasks:
            self._progress.start()
        self._titles[task] = readable(text)
        self._tasks[task] = self._progress.add_task(self._titles[task], total=None)

    def say(self, task: str, text: str) -> None:
        """Shows what a running task is at."""
        if task in self._tasks:
            width = max(20, self._console.width - _BAR_WIDTH - len("x  0:00:00 "))
            told = f"{self._titles[task]}: {readable(text)}"
            shown = told if len(told) <= width else f"{told[: width - 1]}…"
            self._progress.update(self._tasks[task], description=shown)

    def advance(self, task: str, done: int, total: int) -> None:
        """Moves the bar."""
        if task in self._tasks:
            self._progress.update(self._tasks[task], description=self._titles[task], completed=done, total=total)

    def finish(self, task: str, text: str, *, ok: bool = True) -> None:
        """Replaces the running task by what came out."""
        if task in self._tasks:
            self._progress.remove_task(self._tasks.pop(task))
        from rich.text import Text

        from modelwright.harness.report.sentences import print_sentence

        mark = Text.from_ansi(f"{_MARKS[ok]} ")
        print_sentence(self._progress.console, mark + Text(readable(text)), indent=len(mark))
        if not self._tasks:
            self._progress.stop()

    def close(self) -> None:
        """Takes the live lines off the screen."""
        self._progress.stop()


def close_progress(progress: Progress) -> None:
    """Takes a live line off the screen, whatever happened."""
    if isinstance(progress, LiveProgress):
        progress.close()


def print_comparison(
    comparison: Comparison, *, as_json: bool, details: bool = False, folder: str | None = None
) -> None:
    """Prints a comparison, with what does not fit the table where that is asked for, and where its files lie."""
    if as_json:
        from modelwright.harness.results.file import encode_results

        print_json(encode_results(comparison))
        return
    from rich.console import Console

    from modelwright.harness.report import render_comparison

    render_comparison(comparison, Console(), verbose=details)
    if folder is not None:
        click.echo(f"\n{Path(folder) / 'report.html'}  results.json  results.csv  artifacts/")


@contextlib.contextmanager
def progress_of_a_comparison(*, as_json: bool, details: bool) -> Iterator[Progress]:
    """Yields what shows the progress of a comparison, and takes it off the screen whatever happens.

    Where something fails after everything was measured, what was found is printed before the error.
    """
    from modelwright.harness.writing import UnfinishedError

    progress = open_progress()
    try:
        yield progress
    except UnfinishedError as error:
        close_progress(progress)
        print_comparison(error.comparison, as_json=as_json, details=details)
        raise
    finally:
        close_progress(progress)


def require_limits(comparison: Comparison) -> None:
    """Ends with exit code 7 when the user set limits and nothing measured meets them all.

    The baseline alone is nothing, where other targets were built and lose too much.

    Raises:
        LimitNotMetError: Names the closest misses.
    """
    _require_another(comparison)
    if not comparison.limits or any(not row.limits_missed for row in comparison.measured):
        return
    misses = "; ".join(f"{row.target}: {', '.join(row.limits_missed)}" for row in comparison.measured)
    raise LimitNotMetError(f"no target meets the limits you set: {misses}", hint="relax a limit, or change the model")


def _require_another(comparison: Comparison) -> None:
    """Refuses a comparison in which every target but the baseline loses more than the user allows."""
    over = [row for row in comparison.measurements if row.exit_code == LimitNotMetError.exit_code]
    left = [row for row in comparison.measured if row.target != comparison.baseline and not row.limits_missed]
    if over and not left:
        told = f"what {join_words([row.target for row in over])} would lose is told above"
        raise LimitNotMetError(f"no target but {comparison.baseline} keeps to --max-drop; {told}", hint=over[0].hint)
