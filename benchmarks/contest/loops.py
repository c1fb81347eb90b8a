"""Plain loops over samples: a file in a process of its own, a window of inferences a turn."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from contest.entrants import Entrant
from contest.line_process import LineProcess
from contest.turns import take_turns

from modelwright.harness.run.effort import Effort
from modelwright.harness.run.interleave import Window

SCRIPT = Path(__file__).with_name("plain_loop.py")


class PlainLoop(LineProcess):
    """One process with one file; see `interleave.Runner`.

    Args:
        entrant: The file.
        samples: A `.npz` that it runs on.
        scratch: Folder for what is handed over.
        judged: How many of the samples it answers, at most.
    """

    def __init__(self, entrant: Entrant, samples: Path, scratch: Path, *, judged: int) -> None:
        spec = {
            "runtime": entrant.runtime, "file": str(entrant.file), "settings": dict(entrant.settings),
            "samples": str(samples), "judged": judged,
        }  # fmt: skip
        command = [sys.executable, "-P", str(SCRIPT)]
        super().__init__(entrant.name, command, spec, scratch, {"OMP_NUM_THREADS": "1"})

    def run_window(self, window_s: float) -> Window:
        """Takes a turn."""
        took = json.loads(self.ask(f"run {window_s}"))
        return Window(latencies_ms=took, inferences=len(took), elapsed_s=sum(took) / 1e3)

    def answer(self) -> list[npt.NDArray[np.float64]]:
        """Returns each output for all samples."""
        self.ask(f"answer {self.answers}")
        with np.load(self.answers) as arrays:
            return [arrays[name].astype(np.float64) for name in arrays]


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
    """Runs all files in turns; see `take_turns`.

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
    by_name = {entrant.name: entrant for entrant in entrants}

    def answer_once(launch: int, loop: PlainLoop) -> None:
        if launch == 0:
            on_answers(loop.name, loop.answer())

    return take_turns(
        list(by_name), effort, on_opened=answer_once, on_failure=on_failure, tell=tell,
        open_loop=lambda name: PlainLoop(by_name[name], samples, scratch, judged=judged),
    )  # fmt: skip
