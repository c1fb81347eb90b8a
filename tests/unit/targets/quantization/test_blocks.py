"""Weights in blocks: known matrices come back, and no block is rounded worse than by its plain range."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from modelwright.targets.quantization.blocks import pack_nibbles, round_blocks, share_scales


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_matrix_on_the_grid_comes_back(bits: int, symmetric: bool) -> None:
    """Every block reaches its lowest and its highest level, each with a scale of its own; 40 rows fill 2.5 blocks."""
    half = 2 ** (bits - 1)
    levels = np.random.default_rng(3).integers(-half, half, (40, 5))
    levels[::16], levels[1::16] = -half, half - 1
    scales = np.float32(2.0) ** np.array([[-3, 0, 2]]).repeat(16, axis=1).reshape(48, 1)[:40]
    matrix = np.asarray(levels * scales, np.float32)
    blocks = round_blocks(matrix, bits=bits, size=16, symmetric=symmetric)
    assert blocks.values.shape == (5, 3, 16)
    np.testing.assert_allclose(blocks.restore(), matrix, rtol=1e-6)


def test_the_largest_value_takes_the_level_that_there_is_one_more_of() -> None:
    """+8 of a symmetric block has no level of its own, -8 has: the scale turns negative."""
    matrix = np.asarray([[8.0], [-7.0], [1.0], [0.0]], np.float32)
    blocks = round_blocks(matrix, bits=4, size=4, symmetric=True)
    assert blocks.scales[0, 0] == -1.0
    np.testing.assert_array_equal(blocks.values[0, 0], [0, 15, 7, 8])
    np.testing.assert_array_equal(blocks.restore(), matrix)


def test_scales_that_must_be_positive_give_the_largest_value_the_end_of_its_side() -> None:
    """+14 is 7 steps of 2, -16 is 8 of them."""
    matrix = np.asarray([[14.0, -16.0], [-14.0, 14.0], [2.0, 2.0], [0.0, 0.0]], np.float32)
    blocks = round_blocks(matrix, bits=4, size=4, symmetric=True, positive=True)
    np.testing.assert_array_equal(blocks.scales, [[2.0], [2.0]])
    np.testing.assert_array_equal(blocks.values[:, 0], [[15, 1, 9, 8], [0, 15, 9, 8]])


def test_values_of_one_sign_use_all_levels() -> None:
    matrix = np.linspace(10.0, 11.5, 16, dtype=np.float32)[:, None] * np.float32(1.0)
    asymmetric = round_blocks(matrix, bits=4, size=16, symmetric=False)
    assert asymmetric.zero_points is not None
    assert asymmetric.zero_points[0, 0] == 0  # zero stays a level: padding and sparsity need it
    assert np.abs(asymmetric.restore() - matrix).max() <= 11.5 / 15 / 2 + 1e-6


def test_a_lone_outlier_does_not_cost_the_others_more_than_it_saves() -> None:
    """Of 127 values near 1 and one of 4, the square error of the best range is below that of the plain one."""
    generator = np.random.default_rng(0)
    matrix = np.asarray(np.r_[generator.normal(0, 1, 127), 4.5], np.float32)[:, None]
    found = round_blocks(matrix, bits=4, size=128, symmetric=True).restore()
    scale = np.float32(-4.5 / 8)
    plain = np.clip(np.rint(matrix / scale) + 8, 0, 15) - 8
    assert np.square(found - matrix).sum() < np.square(plain * scale - matrix).sum()


def test_zeros_are_zeros() -> None:
    for symmetric in (True, False):
        blocks = round_blocks(np.zeros((16, 2), np.float32), bits=4, size=16, symmetric=symmetric)
        np.testing.assert_array_equal(blocks.restore(), 0.0)


def test_pairs_are_packed_low_half_first() -> None:
    packed = pack_nibbles(np.array([[1, 2, 3]], np.uint8))
    np.testing.assert_array_equal(packed, [[0x21, 0x03]])


@pytest.mark.parametrize(("rows", "scales"), [(None, 1), (48, 5), (32, 10), (16, 15)])
def test_scales_for_more_than_a_block_are_repeated(rows: int | None, scales: int) -> None:
    matrix = np.random.default_rng(3).standard_normal((48, 5)).astype(np.float32)
    blocks = share_scales(matrix, bits=4, size=16, rows=rows)
    assert blocks.values.shape == (5, 3, 16)
    assert np.unique(blocks.scales).size == scales
    if rows == 32:
        assert (blocks.scales[:, 0] == blocks.scales[:, 1]).all()
    step = np.abs(np.repeat(blocks.scales, 16, axis=1)).T
    inside = np.abs(matrix) < 7 * step
    assert (np.abs(blocks.restore() - matrix)[inside] <= step[inside] / 2 + 1e-6).all()
    assert inside.mean() > 0.9


def test_a_shared_scale_gives_known_integers() -> None:
    matrix = np.array([[-8.0, 1.0], [4.0, 2.0], [0.0, 3.0]], np.float32)
    blocks = share_scales(matrix, bits=4, size=16, rows=None)
    assert blocks.scales.tolist() == [[1.0], [1.0]]
    assert blocks.values[:, 0, :4].tolist() == [[0, 12, 8, 8], [9, 10, 11, 8]]
    assert (blocks.values[:, 0, 3:] == 8).all(), "what fills a block up is zero"
    np.testing.assert_array_equal(blocks.restore(), matrix)


def test_a_large_matrix_is_rounded_column_by_column_in_little_memory() -> None:
    """Of float copies, of which the search makes several, there is never one of the whole."""
    matrix = np.random.default_rng(0).standard_normal((32, 2**16)).astype(np.float32)
    tracemalloc.start()
    whole = round_blocks(matrix, bits=8, size=32, symmetric=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    held = whole.values.nbytes + whole.scales.nbytes
    assert peak < held + 1.5 * matrix.nbytes
    for place in (0, 2**13 - 1, 2**13, 2**16 - 1):
        alone = round_blocks(matrix[:, place : place + 1], bits=8, size=32, symmetric=False)
        assert np.array_equal(whole.values[place], alone.values[0])
        assert np.array_equal(whole.scales[place], alone.scales[0])
        assert np.array_equal(whole.zero_points[place], alone.zero_points[0])


def test_a_block_whose_largest_value_hardly_counts_is_rounded_for_the_others() -> None:
    """Cutting a lone outlier off by a third costs nothing where its row is silent, and all where it alone is heard."""
    matrix = np.asarray(np.r_[np.random.default_rng(0).normal(0, 1, 31), 6.0], np.float32)[:, None]
    silent, alone = np.ones(32, np.float32), np.zeros(32, np.float32)
    silent[-1], alone[-1] = 0, 1

    def leave(importance: np.ndarray[tuple[int], np.dtype[np.float32]] | None) -> tuple[float, float]:
        found = round_blocks(matrix, bits=4, size=32, symmetric=True, importance=importance).restore()
        errors = np.square(found - matrix)[:, 0]
        return float(errors[:-1].mean()), float(errors[-1])

    assert leave(silent)[0] < 0.6 * leave(None)[0]
    assert leave(alone)[1] == pytest.approx(0, abs=1e-9)
    assert leave(np.full(32, 3.0, np.float32))[0] == leave(np.full(32, 5.0, np.float32))[0]
