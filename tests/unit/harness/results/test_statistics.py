from __future__ import annotations

import math

import numpy as np
import pytest

from modelwright.harness.results.statistics import (
    PERCENTILE_FLOORS,
    Latency,
    count_effective,
    estimate_ratio,
    round_log_ratios,
    summarize_latencies,
    wilson_interval,
)


def independent(count: int, seed: int = 0) -> list[float]:
    return (10 + np.random.default_rng(seed).standard_normal(count)).tolist()


def test_percentile_floors_are_those_of_the_formula() -> None:
    for percent, floor in PERCENTILE_FLOORS.items():
        p = percent / 100
        assert p**floor + floor * (1 - p) * p ** (floor - 1) <= 0.01
        below = floor - 1
        assert p**below + below * (1 - p) * p ** (below - 1) > 0.01


def test_percentiles_of_known_data() -> None:
    shuffled = np.random.default_rng(1).permutation(np.arange(1.0, 10_002.0))
    summary, reasons = summarize_latencies([shuffled.tolist()])
    assert summary.p50 == pytest.approx(5001)
    assert summary.p99 == pytest.approx(9901)
    assert summary.mean == pytest.approx(5001)
    assert reasons == {}


def test_a_percentile_that_too_few_inferences_support_is_none_with_a_reason() -> None:
    summary, reasons = summarize_latencies([independent(100)])
    assert summary.p50 is not None
    assert summary.p99 is None
    assert "needs 662" in reasons["p99"]


def test_nothing_measured_gives_nothing() -> None:
    summary, reasons = summarize_latencies([])
    assert summary == Latency()
    assert {"mean", "p50", "p90", "p95", "p99"} <= set(reasons)


def test_correlated_inferences_count_less() -> None:
    rng = np.random.default_rng(0)
    walk = [0.0]
    for _ in range(4999):
        walk.append(0.9 * walk[-1] + rng.standard_normal())
    assert count_effective([independent(5000)]) > 4500
    assert count_effective([walk]) == pytest.approx(5000 * 0.1 / 1.9, rel=0.35)


def test_correlation_is_not_taken_across_windows() -> None:
    windows = [[float(level)] * 1 for level in range(100)]
    assert count_effective(windows) == 100


def test_ratio_of_known_rounds() -> None:
    baseline = {index: [10.0 * disturbance] for index, disturbance in enumerate([1, 2, 5, 1, 3, 1])}
    twice_as_fast = {index: [5.0 * disturbance] for index, disturbance in enumerate([1, 2, 5, 1, 3, 1])}
    ratio = estimate_ratio(round_log_ratios(baseline, twice_as_fast))
    assert ratio is not None
    assert ratio.ratio == pytest.approx(2.0)
    assert ratio.ci95 == pytest.approx((2.0, 2.0))


def test_only_shared_rounds_count() -> None:
    logs = round_log_ratios({0: [1.0], 1: [1.0], 2: [1.0]}, {1: [math.e], 2: [1.0], 3: [9.0]})
    np.testing.assert_allclose(logs, [-1.0, 0.0])
    assert estimate_ratio(logs) is None


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        interval = estimate_ratio(rng.normal(math.log(1.5), 0.1, 30))
        assert interval is not None
        covered += interval.ci95[0] <= 1.5 <= interval.ci95[1]
    assert 175 <= covered <= 200


def test_wilson_interval_of_textbook_values() -> None:
    low, high = wilson_interval(95, 100) or (0, 0)
    assert low == pytest.approx(0.8882, abs=1e-3)
    assert high == pytest.approx(0.9785, abs=1e-3)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert wilson_interval(0, 0) is None
