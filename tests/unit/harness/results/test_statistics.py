from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from modelwright.harness.results.statistics import (
    PERCENTILE_FLOORS,
    PROCESS_EFFECT,
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


def test_tied_latencies_are_no_trend() -> None:
    assert count_effective([[1.0] * 1000]) == 1000
    clock = np.round(np.asarray(independent(2000, seed=4)), 0)  # a coarse clock: a handful of values
    assert count_effective([clock.tolist()]) > 1800


def test_correlation_is_not_taken_across_windows() -> None:
    windows = [[float(level)] * 1 for level in range(100)]
    assert count_effective(windows) == 100


def test_ratio_of_known_rounds() -> None:
    baseline = {index: [10.0 * disturbance] for index, disturbance in enumerate([1, 2, 5, 1, 3, 1])}
    twice_as_fast = {index: [5.0 * disturbance] for index, disturbance in enumerate([1, 2, 5, 1, 3, 1])}
    ratio = estimate_ratio(round_log_ratios(baseline, twice_as_fast), {})
    assert ratio is not None
    assert ratio.ratio == pytest.approx(2.0)
    half = 2.571 * math.sqrt(2) * PROCESS_EFFECT  # rounds without scatter: what two single processes differ by is left
    assert ratio.ci95 == pytest.approx((2.0 * math.exp(-half), 2.0 * math.exp(half)))


def test_only_shared_rounds_count() -> None:
    logs = round_log_ratios({0: [1.0], 1: [1.0], 2: [1.0]}, {1: [math.e], 2: [1.0], 3: [9.0]})
    assert logs == pytest.approx({1: -1.0, 2: 0.0})
    assert estimate_ratio(logs, {}) is None


def simulate(
    rng: np.random.Generator,
    *,
    launches: int = 3,
    rounds: int = 10,
    process: float = PROCESS_EFFECT,
    noise: float = 0.003,
    log_ratio: float = 0.0,
    heavy: bool = False,
) -> tuple[dict[int, float], dict[int, int]]:
    """A comparison of two artifacts: each process has a speed of its own, and every round scatters."""
    launch_of = {index: index // rounds for index in range(launches * rounds)}
    offsets = rng.normal(0.0, process, launches) - rng.normal(0.0, process, launches)
    scatter = rng.standard_t(2, launches * rounds) if heavy else rng.standard_normal(launches * rounds)
    logs = {index: log_ratio + offsets[launch] + noise * scatter[index] for index, launch in launch_of.items()}
    return {index: float(value) for index, value in logs.items()}, launch_of


def count_excluded(times: int, **how: Any) -> int:
    """How often two copies of one artifact are said to differ."""
    rng = np.random.default_rng(20)
    found = [estimate_ratio(*simulate(rng, **how)) for _ in range(times)]
    return sum(not ratio.ci95[0] <= 1 <= ratio.ci95[1] for ratio in found if ratio is not None and ratio.ci95)


@pytest.mark.parametrize("launches", [1, 3, 5])
@pytest.mark.parametrize("process", [0.001, 0.0025, 0.005])
@pytest.mark.parametrize(("noise", "heavy"), [(0.003, False), (0.02, False), (0.02, True)])
def test_two_copies_of_one_artifact_differ_at_most_once_in_twenty(
    launches: int, process: float, noise: float, heavy: bool
) -> None:
    """With 30 rounds of one launch, resampled, it was 17 of 20: rounds cannot see what a process is faster by."""
    excluded = count_excluded(300, launches=launches, process=process, noise=noise, heavy=heavy)
    assert excluded <= 15


def test_processes_that_differ_more_than_is_known_widen_the_interval() -> None:
    """Twice the known effect, 300 times: the prior alone would exclude 1 in 28 % of them."""
    assert count_excluded(300, process=2 * PROCESS_EFFECT) <= 45
    assert count_excluded(300, process=2 * PROCESS_EFFECT, launches=5) <= 30


@pytest.mark.parametrize(("launches", "noise", "heavy"), [(3, 0.003, False), (3, 0.02, False), (5, 0.02, True)])
def test_three_percent_slower_is_found_19_times_of_20(launches: int, noise: float, heavy: bool) -> None:
    rng = np.random.default_rng(3)
    found = [
        estimate_ratio(*simulate(rng, launches=launches, noise=noise, heavy=heavy, log_ratio=math.log(0.97)))
        for _ in range(300)
    ]
    assert sum(ratio is not None and not ratio.is_same and ratio.ratio < 1 for ratio in found) >= 285


def test_the_error_of_two_copies_is_below_a_third_of_a_percent() -> None:
    rng = np.random.default_rng(9)
    errors = [abs(estimate_ratio(*simulate(rng)).ratio - 1) for _ in range(300)]
    assert np.median(errors) < 0.0033


def test_an_interval_by_hand() -> None:
    """Launches at 0.01, 0.02 and 0.03 without scatter: variance (2 * 1e-4 + 2 * 5e-5) / 4, Student's t of 4."""
    logs = {index: 0.01 * (1 + index // 5) for index in range(15)}
    found = estimate_ratio(logs, {index: index // 5 for index in range(15)})
    half = 2.776 * math.sqrt((2 * 1e-4 + 2 * 5e-5) / 4 / 3)
    assert found.ratio == pytest.approx(math.exp(0.02))
    assert found.ci95 == pytest.approx((math.exp(0.02 - half), math.exp(0.02 + half)))


def test_a_launch_with_few_rounds_is_left_out() -> None:
    logs, launches = simulate(np.random.default_rng(1), log_ratio=math.log(2))
    missing = {index: value for index, value in logs.items() if index < 20} | {20: 9.0, 21: 9.0, 22: 9.0, 23: 9.0}
    found = estimate_ratio(missing, launches)
    assert found == estimate_ratio({index: logs[index] for index in range(20)}, launches)
    assert found.ratio == pytest.approx(2, rel=0.02)


def test_rounds_that_scatter_decide_where_launches_happen_to_agree() -> None:
    scatter = [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3]
    logs = {index: scatter[index % 7] for index in range(21)}
    low, high = estimate_ratio(logs, {index: index // 7 for index in range(21)}).ci95
    within = (1.2533 * 1.4826 * 0.2) ** 2 / 7
    assert math.log(high) == pytest.approx(-math.log(low))
    assert math.log(high) == pytest.approx(2.776 * math.sqrt(within / 3))


def test_wilson_interval_of_textbook_values() -> None:
    low, high = wilson_interval(95, 100) or (0, 0)
    assert low == pytest.approx(0.8882, abs=1e-3)
    assert high == pytest.approx(0.9785, abs=1e-3)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert wilson_interval(0, 0) is None


def test_spread_and_ends_of_the_latency_are_of_all_inferences() -> None:
    latency, reasons = summarize_latencies([[1.0, 2.0], [3.0, 6.0]])
    assert (latency.mean, latency.min, latency.max) == (3.0, 1.0, 6.0)
    assert latency.std == pytest.approx(3.5**0.5)
    nothing, reasons = summarize_latencies([])
    assert (nothing.std, nothing.min, nothing.max) == (None, None, None)
    assert reasons["std"] == "no inference was measured"
