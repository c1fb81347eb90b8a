"""Tries converted files on samples: do they follow FP32, and how fast are they next to each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..session import Array, TfliteRunner
from .samples import Samples, compare

_SAMPLE_LIMIT = 32
_TIMED_ROUNDS = 11
_WINDOW_S = 0.02
_CLOSE = 1.1
"""Files whose times differ by less are equally fast; then the smaller one is taken."""


def measure_cosine(
    file: Path, binding: Mapping[str, Any], samples: Samples, reference: Sequence[Mapping[str, Array]] | None = None
) -> dict[str, float]:
    """Returns output name -> mean cosine with the reference over consecutive samples.

    Args:
        file: The `.tflite` file.
        binding: Its binding.
        samples: At most 32 of them are used.
        reference: FP32 outputs a sample; by default the samples' own.
    """
    runner = TfliteRunner(file, binding)
    sums: dict[str, list[float]] = {}
    for index, feeds in enumerate(samples.feeds(_SAMPLE_LIMIT)):
        expected = samples.outputs(index) if reference is None else reference[index]
        for name, value in runner.run(feeds).items():
            sums.setdefault(name, []).append(compare(value, np.asarray(expected[name])))
    return {name: statistics.fmean(values) for name, values in sums.items()}


def run_samples(file: Path, binding: Mapping[str, Any], samples: Samples) -> list[dict[str, Array]]:
    """Returns the file's outputs on at most 32 samples: a reference where the samples bring none."""
    runner = TfliteRunner(file, binding)
    return [runner.run(feeds) for feeds in samples.feeds(_SAMPLE_LIMIT)]


def measure_batched(file: Path, binding: Mapping[str, Any], samples: Samples, batch: int) -> dict[str, float]:
    """Returns output name -> smallest cosine of a batched inference with the samples' own FP32 outputs."""
    runner = TfliteRunner(file, binding)
    count = min(samples.count, _SAMPLE_LIMIT) // batch * batch
    feeds = list(samples.feeds(count))
    worst: dict[str, float] = {}
    for start in range(0, count, batch):
        joined = {name: np.concatenate([feed[name] for feed in feeds[start : start + batch]]) for name in feeds[0]}
        actual = runner.run(joined)
        expected = [samples.outputs(index) for index in range(start, start + batch)]
        for name, value in actual.items():
            cosine = compare(value, np.concatenate([outputs[name] for outputs in expected]))
            worst[name] = min(worst.get(name, 1.0), cosine)
    return worst


def measure_times(files: Sequence[Path], binding: Mapping[str, Any], feeds: Mapping[str, Array]) -> list[float]:
    """Returns each file's time for one inference in ms: one thread, in turns, median over the rounds."""
    calls = [TfliteRunner(file, binding).bind(feeds) for file in files]
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


def choose(trials: Sequence[Mapping[str, Any]], min_cosine: float) -> int:
    """Returns which trial to take: of those that follow FP32 the fastest, of equally fast ones the smallest.

    When none follows FP32, the one that comes closest.
    """
    right = [i for i, trial in enumerate(trials) if trial["min_cosine"] >= min_cosine]
    if not right:
        return max(range(len(trials)), key=lambda i: float(trials[i]["min_cosine"]))
    fastest = min(float(trials[i]["latency_ms"]) for i in right)
    close = [i for i in right if float(trials[i]["latency_ms"]) <= fastest * _CLOSE]
    return min(close, key=lambda i: int(trials[i]["size_bytes"]))
