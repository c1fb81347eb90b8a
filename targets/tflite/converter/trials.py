"""Runs converted files on samples: what they answer, how fast they are beside each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..session import Array, TfliteRunner
from .samples import Samples

_WINDOW_S = 0.02


def run_samples(file: Path, binding: Mapping[str, Any], samples: Samples) -> list[dict[str, Array]]:
    """Returns the file's outputs, sample by sample."""
    runner = TfliteRunner(file, binding)
    return [runner.run(feeds) for feeds in samples.feeds()]


def measure_times(
    files: Sequence[tuple[Path, Mapping[str, Any]]], feeds: Mapping[str, Array], rounds: int
) -> list[list[float]]:
    """Returns the CPU time of one inference in ms, on one thread: a row a round, in which files take turns.

    CPU time, because on a busy machine the clock on the wall goes on while others have the core.
    """
    calls = [TfliteRunner(file, binding).bind(feeds) for file, binding in files]
    for call in calls:
        call()
    return [[_time_window(call) for call in calls] for _ in range(rounds)]


def _time_window(call: Callable[[], object]) -> float:
    started, runs = time.process_time(), 0
    while time.process_time() - started < _WINDOW_S:
        call()
        runs += 1
    return (time.process_time() - started) / runs * 1e3
