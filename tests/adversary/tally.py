"""How many attacks were tried and what came of them; the inputs that got through are kept."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from unittest import mock

from modelwright.cli import main, printing

SCALE = float(os.environ.get("ADVERSARY_SCALE", "0.01"))
"""1 is the number of attacks that were tried by hand; the nightly run takes 10, the tests of every change a few."""
SEED = int(os.environ.get("ADVERSARY_SEED", "8"))
KEPT = Path(tempfile.gettempdir()) / "modelwright-adversary"
DOCUMENTED = frozenset({0, 2, 3, 4, 5, 6, 7})
"""Exit codes that an attack may end with; 1 is a fault of ours."""


class Hung(BaseException):
    """An attack did not end in time."""


@dataclass(kw_only=True)
class Tally:
    """The attacks of one kind.

    Attributes:
        name: Of the kind, as it is printed.
        seed: Of what is random in them.
        counts: `found`, refused in a sentence; `harmless`, accepted with right; `missed`, accepted without; `crashed`.
        failures: A line for each that was missed or crashed, with where its input is kept.
    """

    name: str
    seed: int = SEED
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def scaled(self, full: int, *, least: int = 3) -> range:
        """Returns the numbers of the attacks to try, of so many at scale 1."""
        return range(max(least, round(full * SCALE)))

    def generator(self, number: int) -> random.Random:
        """Returns what is random in one attack; the same for the same number and seed."""
        return random.Random(f"{self.name} {self.seed} {number}")

    def add(self, outcome: str, what: str, *inputs: Path) -> None:
        """Counts an attack, and keeps a copy of its input where it got through."""
        self.counts[outcome] += 1
        if outcome in ("found", "harmless"):
            return
        folder = KEPT / f"{self.name.replace(' ', '-')}-{self.seed}-{self.counts.total()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in inputs:
            (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
        self.failures.append(f"{outcome}: {what[-1500:]} (kept in {folder})")

    def summarize(self) -> str:
        parts = [f"{self.counts[name]} {name}" for name in ("found", "harmless", "missed", "crashed")]
        return f"{self.name}: {self.counts.total()} tried, {', '.join(parts)} (scale {SCALE:g}, seed {self.seed})"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    text: str

    @property
    def crashed(self) -> bool:
        return self.code not in DOCUMENTED or "Traceback" in self.text

    @property
    def outcome(self) -> str:
        """What it means where every attack must be refused."""
        return "crashed" if self.crashed else "missed" if self.code == 0 else "found"


def command(*words: str | Path, seconds: float = 120.0) -> Ended:
    """Runs the command line in this process; a process a command would be most of the time."""
    with (
        tempfile.TemporaryFile("w+") as out,
        mock.patch.object(sys, "argv", ["modelwright", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        printing.json_printed = False
        try:
            with limited(seconds):
                code = main._run()
        except Hung:
            return Ended(-1, "it hung")
        except BaseException as error:  # what escapes `_run` is what a user would see as a traceback
            return Ended(-1, f"{type(error).__name__}: {error}")
        out.seek(0)
        return Ended(code, out.read() + err.getvalue())


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises `Hung` in the block when it takes longer."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def list_hidden(folder: Path) -> list[str]:
    """Returns what is half-made in a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(".modelwright-*"))
