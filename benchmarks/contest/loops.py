"""Plain loops that take turns: each file in a process of its own, windows in random order, round after round."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from contest.entrants import Entrant

from modelwright.harness.run.effort import Effort
from modelwright.harness.run.interleave import Window, interleave
from modelwright.harness.run.runner import ENVIRONMENT

SCRIPT = Path(__file__).with_name("plain_loop.py")


class LoopFailedError(Exception):
    """A runtime could not load or run a file; says what it printed last."""


class PlainLoop:
    """One process with one file; see `interleave.Runner`.

    Args:
        entrant: The file.
        samples: A `.npz` that it runs on.
        scratch: Folder for what is handed over.
        judged: How many of the samples it answers, at most.
    """

    def __init__(self, entrant: Entrant, samples: Path, scratch: Path, *, judged: int) -> None:
        self.name = entrant.name
        stem = "".join(character if character.isalnum() else "-" for character in entrant.name)
        self._answers = scratch / f"{stem}.npz"
        self._log = scratch / f"{stem}.log"
        spec = scratch / f"{stem}.json"
        spec.write_text(
            json.dumps(
                {
                    "runtime": entrant.runtime, "file": str(entrant.file), "settings": dict(entrant.settings),
                    "samples": str(samples), "judged": judged,
                }
            )
        )  # fmt: skip
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(SCRIPT), str(spec)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env={**ENVIRONMENT, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        try:
            self._read()
        except LoopFailedError:
            self.close()
            raise

    def run_window(self, window_s: float) -> Window:
        """Takes a turn."""
        took = json.loads(self._ask(f"run {window_s}"))
        return Window(latencies_ms=took, inferences=len(took), elapsed_s=sum(took) / 1e3)

    def answer(self) -> list[npt.NDArray[np.float64]]:
        """Returns each output for all samples."""
        self._ask(f"answer {self._answers}")
        with np.load(self._answers) as arrays:
            return [arrays[name].astype(np.float64) for name in arrays]

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def _ask(self, order: str) -> str:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{order}\n")
            self._process.stdin.flush()
        except OSError:
            self._fail()
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        return line

    def _fail(self) -> None:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        raise LoopFailedError(lines[-1][:300] if lines else "it ended without a word")


def run_loops(
    entrants: Sequence[Entrant],
    samples: Path,
    scratch: Path,
    effort: Effort,
    *,
    judged: int,
    on_answers: Callable[[str, list[npt.NDArray[np.float64]]], None],
    on_failure: Callable[[str, str], None],
    tell: Callable[[str], None],
) -> Mapping[str, dict[int, Window]]:
    """Runs all rounds of all launches; what fails once stays out, the others go on.

    Args:
        entrants: With names that differ.
        samples: A `.npz` that all run on.
        scratch: A folder.
        effort: Launches, rounds and windows.
        judged: How many of the samples each answers, at most.
        on_answers: Takes a name and its outputs, once.
        on_failure: Takes a name and why it is out.
        tell: Takes a line on what is going on.

    Returns:
        Name -> round -> window.
    """
    windows: dict[str, dict[int, Window]] = {entrant.name: {} for entrant in entrants}
    out: set[str] = set()
    for launch in range(effort.launches):
        first = launch % len(entrants)
        loops: list[PlainLoop] = []
        with contextlib.ExitStack() as stack:
            for entrant in [*entrants[first:], *entrants[:first]]:
                if entrant.name in out:
                    continue
                try:
                    loop = PlainLoop(entrant, samples, scratch, judged=judged)
                    stack.callback(loop.close)
                    if launch == 0:
                        on_answers(entrant.name, loop.answer())
                    loops.append(loop)
                except LoopFailedError as error:
                    out.add(entrant.name)
                    on_failure(entrant.name, str(error))
            tell(f"launch {launch + 1} of {effort.launches}: {len(loops)} plain loops take turns")
            for name, series in interleave(loops, effort, seed=0, launch=launch).items():
                windows[name] |= series.windows
                if series.failure is not None:
                    out.add(name)
                    on_failure(name, series.failure.message)
    return {name: found for name, found in windows.items() if name not in out}
