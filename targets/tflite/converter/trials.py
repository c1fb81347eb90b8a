"""Runs converted files on samples: whether they follow ONNX, what they answer, how fast they are beside each other."""

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


def measure_cosine(file: Path, binding: Mapping[str, Any], samples: Samples) -> dict[str, float]:
    """Returns output name -> mean likeness to the samples' own FP32 outputs; at most 32 of them are used.

    Outputs of one value are held against each other over all samples: one of them alone may be near 0.
    """
    runner = TfliteRunner(file, binding)
    likeness: dict[str, list[float]] = {}
    single: dict[str, list[tuple[Array, Array]]] = {}
    for index, feeds in enumerate(samples.feeds(_SAMPLE_LIMIT)):
        expected = samples.outputs(index)
        for name, value in runner.run(feeds).items():
            if value.size == 1 and value.shape == expected[name].shape:
                single.setdefault(name, []).append((value.ravel(), expected[name].ravel()))
            else:
                likeness.setdefault(name, []).append(compare(value, expected[name]))
    pooled = {name: compare(*map(np.concatenate, zip(*pairs, strict=True))) for name, pairs in single.items()}
    return {name: statistics.fmean(values) for name, values in likeness.items()} | pooled


def run_samples(file: Path, binding: Mapping[str, Any], samples: Samples) -> list[dict[str, Array]]:
    """Returns the file's outputs, sample by sample."""
    runner = TfliteRunner(file, binding)
    return [runner.run(feeds) for feeds in samples.feeds()]


def measure_batched(file: Path, binding: Mapping[str, Any], samples: Samples, batch: int) -> dict[str, float]:
    """Returns output name -> smallest likeness of a batched inference with the samples' own FP32 outputs."""
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
