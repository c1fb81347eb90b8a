"""From raw windows to figures: percentiles that enough inferences support, ratios with their intervals.

Raw latencies are kept by the caller; everything here is derived, and returns None where the data do not carry it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

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

BOOTSTRAP_RESAMPLES = 4000
BOOTSTRAP_SEED = 7


class Latency(Record, kw_only=True):
    """Milliseconds of one inference, from inputs to outputs; null where too few inferences support a figure.

    Attributes:
        mean: Over all measured inferences.
        p50: The median.
        p90: Nine of ten inferences are as fast.
        p95: 95 of 100 are.
        p99: 99 of 100 are.
    """

    mean: Figure | None = None
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
        ratio: The median over rounds.
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
    figures: dict[str, float] = {"mean": float(flat.mean())} if flat.size else {}
    reasons: dict[str, str] = {} if flat.size else {"mean": "no inference was measured"}
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
    ranks = np.argsort(np.argsort(flat, kind="stable"), kind="stable").astype(np.float64)
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


def round_log_ratios(baseline_ms: Mapping[int, Sequence[float]], other_ms: Mapping[int, Sequence[float]]) -> Floats:
    """Returns log(baseline median / other median) of every round that both have, in order of rounds.

    Args:
        baseline_ms: Round -> latencies in milliseconds.
        other_ms: Likewise.
    """
    shared = [index for index in sorted(baseline_ms) if index in other_ms and baseline_ms[index] and other_ms[index]]
    return np.asarray(
        [math.log(float(np.median(baseline_ms[index])) / float(np.median(other_ms[index]))) for index in shared],
        dtype=np.float64,
    )


def estimate_ratio(log_ratios: Floats) -> SpeedRatio | None:
    """Returns the ratio and its 95 % interval from per-round log ratios; None with fewer than 5 rounds.

    The ratio is the exponential of the median over rounds; the interval a percentile bootstrap over rounds, which
    keeps what disturbs a whole round together.
    """
    if log_ratios.size < 5:
        return None
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    draws = rng.integers(0, log_ratios.size, size=(BOOTSTRAP_RESAMPLES, log_ratios.size))
    medians = np.median(log_ratios[draws], axis=1)
    low, high = np.exp(np.percentile(medians, [2.5, 97.5]))
    return SpeedRatio(ratio=float(np.exp(np.median(log_ratios))), ci95=(float(low), float(high)))


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
