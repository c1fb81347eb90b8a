"""From raw windows to figures: percentiles that enough inferences support, ratios with their intervals.

Raw latencies are kept by the caller; everything here is derived, and returns None where the data do not carry it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.records.codec import Record
from modelwright.harness.kinds import Figure, Ratio

Floats = npt.NDArray[np.float64]

PERCENTILE_FLOORS = {50: 11, 90: 64, 95: 130, 99: 662}
"""Independent inferences that a percentile needs: the smallest n with which, at 99 % confidence, at least two of n lie
above it, p^n + n (1 - p) p^(n-1) <= 0.01. These are the floors of MLPerf LoadGen's early stopping."""

SAME_SPEED = 1.02
"""Ratios within 2 % of 1 are the same speed even where the rounds can tell them apart: no user could."""

_SUMMARIES: Mapping[str, Callable[[Floats], Any]] = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max}
"""Of all inferences, however many there are."""

MIN_ROUNDS = 5
"""Under this, the rounds of a launch say nothing about their spread, and the launch is left out."""

PROCESS_EFFECT = 0.005
"""Standard deviation of how much faster or slower a process is than others of the same artifact for as long as it
lives (memory layout), as a share: with one launch each, two copies of an artifact differed beyond the scatter of their
rounds in 17 of 20 comparisons on a quiet machine, by 0.36 % in the median and 2.5 % at most."""

PRIOR_LAUNCHES = 2
"""What `PROCESS_EFFECT` weighs against the few launches of a run, in degrees of freedom: their own scatter decides
where it is larger, and three launches that happen to agree promise nothing that five would not keep."""

T_975 = (3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t at 97.5 % for 3 to 10 degrees of freedom, by any table of it; more count as 10."""


class Latency(Record, kw_only=True):
    """Milliseconds of one inference, from inputs to outputs; null where too few inferences support a figure.

    Attributes:
        mean: Over all measured inferences.
        std: Over all measured inferences; disturbances are in it.
        min: Of all measured inferences.
        max: Of all measured inferences.
        p50: The median.
        p90: Nine of ten inferences are as fast.
        p95: 95 of 100 are.
        p99: 99 of 100 are.
    """

    mean: Figure | None = None
    std: Figure | None = None
    min: Figure | None = None
    max: Figure | None = None
    p50: Figure | None = None
    p90: Figure | None = None
    p95: Figure | None = None
    p99: Figure | None = None

    @property
    def typical(self) -> float | None:
        """The median, or the mean where too few inferences support a median."""
        return self.p50 if self.p50 is not None else self.mean


class SpeedRatio(Record, kw_only=True):
    """How many times as fast one target is as another; above 1 it is faster.

    Attributes:
        ratio: The median over the rounds of a launch, in the mean over launches (of logarithms).
        ci95: Both ends of the 95 % interval; null where the rounds do not support one.
    """

    ratio: Ratio
    ci95: tuple[Ratio, Ratio] | None = None

    @property
    def is_same(self) -> bool:
        """Whether the two cannot be told apart: the interval contains 1, or all of it lies within 2 % of 1."""
        if self.ci95 is None:
            return 1 / SAME_SPEED <= self.ratio <= SAME_SPEED
        low, high = self.ci95
        return low <= 1 <= high or (low >= 1 / SAME_SPEED and high <= SAME_SPEED)

    @property
    def is_faster(self) -> bool:
        return not self.is_same and self.ratio > 1

    @property
    def inverted(self) -> SpeedRatio:
        """The same pair, seen from the other one."""
        interval = None if self.ci95 is None else (1 / self.ci95[1], 1 / self.ci95[0])
        return SpeedRatio(ratio=1 / self.ratio, ci95=interval)


def summarize_latencies(windows_ms: Sequence[Sequence[float]]) -> tuple[Latency, dict[str, str]]:
    """Summarises the latencies of one artifact.

    Args:
        windows_ms: One sequence of latencies in milliseconds a window.

    Returns:
        The figures, None where too few inferences support one, and the reasons by name.
    """
    flat = np.asarray([value for window in windows_ms for value in window], dtype=np.float64)
    figures: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, summarize in _SUMMARIES.items():
        if flat.size:
            figures[name] = float(summarize(flat))
        else:
            reasons[name] = "no inference was measured"
    effective = count_effective(windows_ms)
    for percent, floor in PERCENTILE_FLOORS.items():
        name = f"p{percent}"
        # A disturbance that lasts is one event in the tail, however many inferences it slows; the middle hardly moves.
        supported = flat.size if percent == 50 else effective
        if supported >= floor:
            figures[name] = float(np.percentile(flat, percent))
        else:
            reasons[name] = f"needs {floor} independent inferences; a higher --effort gives more"
    return Latency(**figures), reasons


def count_effective(windows_ms: Sequence[Sequence[float]]) -> float:
    """Returns how many independent inferences the windows are worth.

    Successive latencies are correlated: a disturbance lasts longer than one inference. With the lag-1
    autocorrelation r of the ranks, n inferences are worth n (1 - r) / (1 + r) (the AR(1) formula, Bayley and
    Hammersley 1946); ranks, so that one outlier does not decide.
    """
    total = sum(len(window) for window in windows_ms)
    if total < 3:
        return float(total)
    flat = np.asarray([value for window in windows_ms for value in window], dtype=np.float64)
    # Tied latencies share the mean of their ranks: by order of time instead, equal ones would seem to rise.
    _, places, counts = np.unique(flat, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    ranks -= ranks.mean()
    variance = float(np.mean(ranks**2))
    if variance == 0.0:
        return float(total)
    within = np.ones(total - 1, dtype=bool)
    borders = np.cumsum([len(window) for window in windows_ms])[:-1] - 1
    within[borders[(borders >= 0) & (borders < total - 1)]] = False
    if not within.any():
        return float(total)
    correlation = float(np.mean((ranks[:-1] * ranks[1:])[within])) / variance
    correlation = min(max(correlation, 0.0), 0.999)
    return total * (1.0 - correlation) / (1.0 + correlation)


def round_log_ratios(
    baseline_ms: Mapping[int, Sequence[float]], other_ms: Mapping[int, Sequence[float]]
) -> dict[int, float]:
    """Returns log(baseline median / other median) of every round that both have, in order of rounds.

    Args:
        baseline_ms: Round -> latencies in milliseconds.
        other_ms: Likewise.
    """
    shared = [index for index in sorted(baseline_ms) if index in other_ms and baseline_ms[index] and other_ms[index]]
    return {
        index: math.log(float(np.median(baseline_ms[index])) / float(np.median(other_ms[index]))) for index in shared
    }


def estimate_ratio(log_ratios: Mapping[int, float], launches: Mapping[int, int]) -> SpeedRatio | None:
    """Returns the ratio and its 95 % interval; None without a launch of at least 5 rounds.

    Two processes of one artifact differ for as long as they live, which their rounds cannot see: launches are the
    independent observations, and rounds only make each of them exact. The estimate is the mean over launches of the
    median over rounds. Its variance is that between the launches, drawn towards what is known of processes because
    launches are few, never less than the rounds alone would give; the width is Student's t with the degrees of
    freedom of both. A single launch has the known effect only, and the width of its rounds.

    Args:
        log_ratios: Round -> log ratio.
        launches: Round -> its launch; 0 where it is not said.
    """
    by_launch: dict[int, list[float]] = {}
    for index, value in log_ratios.items():
        by_launch.setdefault(launches.get(index, 0), []).append(value)
    samples = [np.asarray(values) for values in by_launch.values() if len(values) >= MIN_ROUNDS]
    if not samples:
        return None
    count = len(samples)
    medians = [float(np.median(values)) for values in samples]
    estimate = statistics.fmean(medians)
    within = statistics.fmean(_median_variance(values) for values in samples)
    expected = 2 * PROCESS_EFFECT**2 + within
    between = statistics.variance(medians) if count > 1 else 0.0
    weight = count - 1 + PRIOR_LAUNCHES
    variance = max(((count - 1) * between + PRIOR_LAUNCHES * expected) / weight, within)
    freedom = weight if count > 1 else samples[0].size - 1
    half = T_975[min(freedom - 3, len(T_975) - 1)] * math.sqrt(variance / count)
    return SpeedRatio(ratio=math.exp(estimate), ci95=(math.exp(estimate - half), math.exp(estimate + half)))


def _median_variance(values: Floats) -> float:
    """Returns the variance of the median: 1.2533^2 that of the mean, for a spread by the median absolute deviation.

    1.2533 is sqrt(pi / 2) and 1.4826 is 1 / the normal's 75 % quantile: both hold for normal scatter, and outliers
    move neither the median nor the deviation.
    """
    spread = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    return (1.2533 * spread) ** 2 / values.size


def wilson_interval(correct: int, count: int) -> tuple[float, float] | None:
    """Returns the 95 % interval of a share (Wilson 1927), which stays within 0 and 1 for shares near 1."""
    if count == 0:
        return None
    z = 1.959964
    share = correct / count
    denominator = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / denominator
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / denominator
    return max(0.0, centre - half), min(1.0, centre + half)
