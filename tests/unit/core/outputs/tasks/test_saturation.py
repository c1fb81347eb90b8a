"""A range that was chosen too small: named by where it stops, and where FP32 goes on."""

from __future__ import annotations

import numpy as np
import pytest
from answers import (
    Array,
    compare,
    make_constant,
    make_embedding,
    make_logits,
    make_map,
    make_units,
    make_waveform,
    rng,
    softmax,
)


def stop_at(values: Array, share: float) -> Array:
    """Clips every channel (axis 1) at a share of its largest size."""
    others = tuple(axis for axis in range(values.ndim) if axis != 1)
    most = np.abs(values).max(axis=others, keepdims=True)
    return np.clip(values, -share * most, share * most)


def make_depth() -> Array:
    return np.abs(rng().normal(3, 2, (48, 1, 24, 32)))


@pytest.mark.parametrize("values", [make_units() - [5000, 0, 0.5], make_map(), make_depth()])
def test_numbers_that_stop_short_are_broken(values: Array) -> None:
    seen = compare(values, stop_at(values, 0.6), "depth")
    assert seen.is_broken
    assert seen.worst is not None
    assert "saturates at" in seen.worst.text
    assert "where FP32 reaches" in seen.worst.text
    assert compare(values, stop_at(values, 0.96), "depth").severity <= 1.0


def test_it_says_where() -> None:
    values = np.linspace(0, 10, 160)[:, None]
    seen = compare(values, np.minimum(values, 6.0))
    assert seen.worst is not None
    assert seen.worst.text == "it saturates at 6 where FP32 reaches 10"
    assert seen.worst.value == pytest.approx(0.8)  # 4 of the 5 between the mean and the end
    values = -values
    assert "saturates at -6 where FP32 reaches -10" in compare(values, np.maximum(values, -6.0)).checks[0].text


@pytest.mark.parametrize("values", [make_logits(), softmax(make_logits()), make_embedding()])
def test_where_answers_are_chosen_it_is_not_good_and_said(values: Array) -> None:
    low, high = values.min(), values.max()
    seen = compare(values, np.minimum(values, low + 0.6 * (high - low)))
    assert seen.severity > 1.0
    assert any("saturates at" in check.text and check.severity > 1.0 for check in seen.checks)


def test_outliers_that_are_cut_off_and_ends_that_noise_moves_are_none() -> None:
    values = rng().normal(0, 1, (48, 1, 50, 50))
    values[::12, 0, 0, 0] = 30.0
    assert "range" not in {check.measure for check in compare(values, np.minimum(values, 8.0), "depth").checks}
    for steady in (make_constant(0.0), make_waveform()):
        noisy = steady + np.random.default_rng(1).normal(0, 1e-6, steady.shape)
        assert compare(steady, noisy).severity < 0.1
