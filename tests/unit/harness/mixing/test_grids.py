"""Grids of few bits: their numbers by hand, and scales that no other scale beats."""

from __future__ import annotations

import numpy as np
import pytest

from modelwright.harness.mixing.grids import choose_grid, choose_scales, find_ends, round_rows
from modelwright.targets.quantization.statistics import TensorStatistics


def make_statistics(values: np.ndarray, bins: int = 2048) -> TensorStatistics:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    counts, _ = np.histogram(values, bins, (low, high))
    return TensorStatistics(low=low, high=high, counts=counts, size=values.size)


@pytest.mark.parametrize(
    ("bits", "signed", "ends"),
    [(8, True, (-127, 127)), (6, True, (-31, 31)), (4, True, (-7, 7)), (4, False, (0, 15)), (2, True, (-1, 1))],
)
def test_grids_are_the_same_on_both_sides_of_zero(bits: int, signed: bool, ends: tuple[int, int]) -> None:
    assert find_ends(bits, signed=signed) == ends


def test_halves_are_rounded_to_even_and_what_is_beyond_the_end_is_cut() -> None:
    rows = np.array([[0.5, 1.5, -2.5, 6.9, 9.0, -100.0]], np.float32)
    assert round_rows(rows, np.array([1.0], np.float32), 4).tolist() == [[0, 2, -2, 7, 7, -7]]


def test_weights_that_lie_on_a_grid_stay_as_they_are_channel_by_channel() -> None:
    rows = np.array([[-7, 3, 7, 0], [0.07, -0.01, 0.02, 0.0], [0, 0, 0, 0]], np.float32)
    scales = choose_scales(rows, 4, "mse")
    assert scales.tolist() == pytest.approx([1.0, 0.01, 1.0])
    assert np.allclose(round_rows(rows, scales, 4), rows, atol=1e-8)


def test_an_outlier_does_not_cost_the_resolution_of_all_others() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1, 4096)).astype(np.float32)
    rows[0, 0] = 12.0
    chosen = choose_scales(rows, 4, "mse")
    errors = {scale: float(np.square(round_rows(rows, np.array([scale], np.float32), 4) - rows).sum()) for scale in
              (float(chosen[0]), 12 / 7, 0.2, 0.5)}  # fmt: skip
    assert min(errors, key=lambda scale: errors[scale]) == float(chosen[0])
    assert 2.5 < 7 * float(chosen[0]) < 6  # the end that suits normal numbers at 4 bits, a little above it


def test_minmax_ends_at_the_largest_value_seen_outliers_and_all() -> None:
    rows = np.array([[0.5, -12.0, 1.0], [0.1, 0.2, 0.7]], np.float32)
    assert choose_scales(rows, 4, "minmax").tolist() == pytest.approx([12 / 7, 0.1])
    values = np.concatenate((np.random.default_rng(0).standard_normal(100_000), [-12.0]))
    assert choose_grid(make_statistics(values), 4, "minmax").scale == pytest.approx(12 / 7)
    assert choose_grid(make_statistics(values), 4, "mse").scale < 6 / 7
    assert choose_grid(make_statistics(np.abs(values)), 4, "minmax").scale == pytest.approx(12 / 15)


def test_what_is_never_negative_gets_all_numbers_above_zero() -> None:
    grid = choose_grid(make_statistics(np.linspace(0, 3.0, 100_000)), 4, "mse")
    assert (grid.signed, grid.ends) == (False, (0, 15))
    assert grid.scale == pytest.approx(3.0 / 15, rel=0.05)  # of even numbers none is worth cutting
    signed = choose_grid(make_statistics(np.linspace(-0.5, 3.0, 100_000)), 4, "mse")
    assert (signed.signed, signed.ends) == (True, (-7, 7))
    assert signed.scale == pytest.approx(3.0 / 7, rel=0.1)


def test_zeros_of_a_relu_do_not_move_the_end() -> None:
    rng = np.random.default_rng(1)
    positive = np.abs(rng.standard_normal(20_000))
    alone = choose_grid(make_statistics(positive), 4, "mse")
    mostly_zero = choose_grid(make_statistics(np.concatenate((positive, np.zeros(2_000_000)))), 4, "mse")
    assert mostly_zero.scale == pytest.approx(alone.scale, rel=0.03)


def test_a_channel_or_an_activation_of_zeros_only_has_a_scale_all_the_same() -> None:
    for ranges in ("mse", "minmax"):
        assert choose_grid(make_statistics(np.zeros(8)), 8, ranges).scale == 1.0
        assert choose_scales(np.zeros((2, 3), np.float32), 8, ranges).tolist() == [1.0, 1.0]
