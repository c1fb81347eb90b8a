"""Rounding weights for what they make of inputs: on the grid, and closer where inputs go together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelwright.targets.quantization import rounding
from modelwright.targets.quantization.blocks import Blocks, round_blocks
from modelwright.targets.quantization.formats import quantize_weight
from modelwright.targets.quantization.rounding import find_exchange, round_in_blocks, split_columns

RNG = np.random.default_rng(0)


def make_inputs(groups: int, rows: int, columns: int) -> Any:
    """Inputs that go together, as neighbouring pixels and channels do."""
    mixed = RNG.standard_normal((groups, columns, columns)) / np.sqrt(columns) + np.eye(columns)
    shared = RNG.standard_normal((groups, rows, 1))
    return (RNG.standard_normal((groups, rows, columns)) @ mixed + shared).astype(np.float32)


def round_weights(weights: Any, inputs: Any) -> Any:
    parts = [inputs[:, :, part] for part in split_columns(weights.shape[2])]
    return rounding.round_weights(weights, [find_exchange(part.transpose(0, 2, 1) @ part) for part in parts])


def round_to_nearest(weights: Any) -> Any:
    scales = np.abs(weights).max(axis=2, keepdims=True) / 127
    return np.rint(weights / scales) * scales


def measure_error(weights: Any, found: Any, inputs: Any) -> Any:
    return np.linalg.norm(inputs @ (found - weights).transpose(0, 2, 1), axis=(1, 2))


@pytest.mark.parametrize(("groups", "channels", "columns"), [(1, 16, 40), (1, 8, 200), (12, 1, 9), (3, 4, 27)])
def test_outputs_stay_closer_than_with_the_nearest_integers(
    monkeypatch: pytest.MonkeyPatch, groups: int, channels: int, columns: int
) -> None:
    monkeypatch.setattr(rounding, "BLOCK", 150)
    weights = RNG.standard_normal((groups, channels, columns)).astype(np.float32)
    inputs = make_inputs(groups, 4 * columns, columns)
    others = inputs + 0.1 * make_inputs(groups, 4 * columns, columns)  # of the same kind, and not what it was fitted to
    found = round_weights(weights, inputs)
    for seen in (inputs, others):
        assert (
            measure_error(weights, found, seen).mean()
            < 0.8 * measure_error(weights, round_to_nearest(weights), seen).mean()
        )


@pytest.mark.parametrize(("groups", "channels", "columns"), [(1, 16, 40), (12, 1, 9)])
def test_a_quantizer_finds_these_integers_again(groups: int, channels: int, columns: int) -> None:
    weights = RNG.standard_normal((groups, channels, columns)).astype(np.float32)
    found = round_weights(weights, make_inputs(groups, 100, columns))
    rows = found.reshape(-1, columns)
    integers, scales = quantize_weight(rows, 0, 127)
    np.testing.assert_allclose(integers * scales[:, None], rows, rtol=0, atol=1e-5 * np.abs(rows).max())
    largest = np.abs(weights).max(axis=2).reshape(-1)
    np.testing.assert_allclose(scales * 127, largest, rtol=1e-6)


def test_inputs_that_share_nothing_leave_the_nearest_integers() -> None:
    weights = RNG.standard_normal((1, 4, 6)).astype(np.float32)
    inputs = np.eye(6, dtype=np.float32)[None]
    np.testing.assert_allclose(round_weights(weights, inputs), round_to_nearest(weights), atol=1e-6)


def test_two_inputs_that_are_one_share_their_error() -> None:
    # Both weights lie four tenths of a step above an integer: the sum wants one of them rounded up.
    weights = np.array([[[127.0, 3.4, 5.4]]])
    inputs = np.array([[[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]])
    assert round_weights(weights, inputs).tolist() in ([[[127.0, 3.0, 6.0]]], [[[127.0, 4.0, 5.0]]])


def test_channels_of_zeros_and_inputs_never_seen_are_no_trouble() -> None:
    weights = np.zeros((1, 2, 4), np.float32)
    weights[0, 1] = [1, -0.5, 0.25, 0.1]
    found = round_weights(weights, np.zeros((1, 3, 4), np.float32))
    np.testing.assert_allclose(found, np.where(weights == 0, 0, round_to_nearest(weights[:, 1:])), atol=1e-6)


def test_integers_in_blocks_make_up_for_errors_in_what_goes_together() -> None:
    # Two rows that are always the same: 0.4 in each is 0.8 together, which one level of 1 comes closest to.
    grid = Blocks(
        bits=4,
        rows=2,
        values=np.full((1, 1, 16), 8, np.uint8),
        scales=np.ones((1, 1), np.float32),
        zero_points=None,
    )
    exchange = find_exchange(np.ones((1, 2, 2)))
    rounded = round_in_blocks(np.full((2, 1), 0.4, np.float32), [exchange], grid)
    assert sorted(rounded.restore().ravel()) == [0, 1]
    assert rounded.scales is grid.scales


@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_leave_less_error_in_products_than_the_nearest_integers(symmetric: bool) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(500, 12)) @ rng.normal(size=(12, 80)) + 0.3 * rng.normal(size=(500, 80))
    matrix = rng.normal(size=(80, 7)).astype(np.float32)
    nearest = round_blocks(matrix, bits=4, size=32, symmetric=symmetric)
    parts = [inputs[:, :48], inputs[:, 48:]]
    rounded = round_in_blocks(matrix, [find_exchange((part.T @ part)[None]) for part in parts], nearest)
    assert rounded.values.max() <= 15
    errors = [np.linalg.norm(inputs @ (found.restore() - matrix)) for found in (rounded, nearest)]
    assert errors[0] < 0.7 * errors[1]
