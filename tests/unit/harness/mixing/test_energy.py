"""Estimates of energy against sums by hand, with the constants that were published."""

from __future__ import annotations

import pytest

from modelwright.harness.mixing.energy import estimate, estimate_layer
from modelwright.harness.mixing.work import LayerWork
from modelwright.profiles.technology import HOROWITZ_45NM

CONV = LayerWork(output="y", operator="Conv", macs=1000.0, weights=50.0, activations=150.0)
LSTM = LayerWork(output="h", operator="LSTM", macs=10.0, weights=4.0, activations=6.0)


@pytest.mark.parametrize(
    ("bits", "compute_pj", "memory_pj"),
    [
        (None, 1000 * (3.7 + 0.9), 200 * 640.0),
        (8, 1000 * 0.23, 200 * 160.0),
        (6, 1000 * 0.23 * 36 / 64, 200 * 120.0),
        (4, 1000 * 0.23 / 4, 200 * 80.0),
    ],
)
def test_arithmetic_goes_with_the_square_of_bits_and_memory_with_bits(
    bits: int | None, compute_pj: float, memory_pj: float
) -> None:
    found = estimate_layer(CONV, bits, HOROWITZ_45NM)
    assert found.compute_pj == pytest.approx(compute_pj)
    assert found.memory_pj == pytest.approx(memory_pj)
    assert found.total_j == pytest.approx((compute_pj + memory_pj) * 1e-12)


def test_layers_without_bits_cost_what_fp32_does() -> None:
    found = estimate([CONV, LSTM], {"y": 4}, HOROWITZ_45NM)
    assert found.compute_pj == pytest.approx(57.5 + 10 * 4.6)
    assert found.memory_pj == pytest.approx(16_000 + 10 * 640)
