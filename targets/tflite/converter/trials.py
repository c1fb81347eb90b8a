"""Runs converted files on samples: what they answer, how fast they are beside each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..session import Array, TfliteRunner
from .samples import Samples

_TIMED_ROUNDS = 11
_WINDOW_S = 0.02


def run_samples(file: Path, binding: Mapping[str, Any], samples: Samples) -> list[dict[str, Array]]:
    """Returns the file's outputs, sample by sample."""
    runner = TfliteRunner(file, binding)
    return [runner.run(feeds) for feeds in samples.feeds()]


def measure_times(files: Sequence[tuple[Path, Mapping[str, Any]]], feeds: Mapping[str, Array]) -> list[float]:
    """Returns each file's time for one inference in ms: one thread, in turns, median over the rounds."""
    calls = [TfliteRunner(file, binding).bind(feeds) for file, binding in files]
    times: list[list[float]] = [[] for _ in files]
    for call in calls:
        call()
    for _ in range(_TIMED_ROUNDS):
        for position, call in enumerate(calls):
            start, runs = time.perf_counter(), 0
            while time.perf_counter() - start < _WINDOW_S:
                call()
                runs += 1
            times[position].append((time.perf_counter() - start) / runs * 1e3)
    return [statistics.median(values) for values in times]
