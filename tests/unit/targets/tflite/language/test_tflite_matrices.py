"""Matrices as TFLite stores them: signed integers, packed pairs, and scales in 16 bits that XNNPACK reads as BF16."""

from __future__ import annotations

import numpy as np

from modelwright.targets.quantization.blocks import Blocks
from modelwright.targets.tflite.language.matrices import choose_format, store_blocks


def make_blocks(values: object, scales: object, bits: int) -> Blocks:
    integers = np.asarray(values, np.uint8)
    return Blocks(
        bits=bits,
        rows=integers.shape[1] * integers.shape[2],
        values=integers,
        scales=np.asarray(scales, np.float32),
        zero_points=None,
    )


def test_4_bits_are_for_matrices_that_blocks_fill() -> None:
    assert (choose_format(4, 64).bits, choose_format(4, 64).size) == (4, 32)
    assert (choose_format(4, 40).bits, choose_format(4, 40).size) == (8, 40)
    assert choose_format(4, 64).positive
    assert choose_format(8, 64).positive


def test_8_bits_have_a_scale_a_column() -> None:
    stored = store_blocks(make_blocks([[[0, 128, 255]], [[129, 127, 128]]], [[0.5], [0.25]], 8))
    np.testing.assert_array_equal(stored.values, [[-128, 0, 127], [1, -1, 0]])
    assert (stored.kind, stored.shape) == ("INT8", (2, 3))
    assert stored.scales is not None
    np.testing.assert_array_equal(stored.scales.values, [0.5, 0.25])
    assert stored.scales.block_size is None


def test_4_bits_are_packed_as_complements_low_half_first() -> None:
    """Levels 0, 7, 8, 15 stand for -8, -1, 0, 7: 8, 15, 0, 7 in complements of 4 bits."""
    stored = store_blocks(make_blocks([[[0, 7, 8, 15]]], [[0.5]], 4))
    np.testing.assert_array_equal(stored.values, [[0xF8, 0x70]])
    assert (stored.kind, stored.shape) == ("INT4", (1, 4))
    assert stored.scales is not None
    assert stored.scales.block_size == 4


def test_scales_of_blocks_have_8_bits_of_precision() -> None:
    stored = store_blocks(make_blocks(np.full((1, 2, 4), 15), [[1.0 + 2**-7, 1.0 + 2**-9]], 4))
    assert stored.scales is not None
    np.testing.assert_array_equal(stored.scales.values, [[1.0 + 2**-7, 1.0]])
    np.testing.assert_array_equal(stored.values, np.full((1, 4), 0x77))


def test_a_scale_too_small_to_be_stored_gets_fewer_levels() -> None:
    """A block of 7 steps of 2**-16 is 2 steps of 2**-14, to nearest."""
    stored = store_blocks(make_blocks([[[15, 8]]], [[2.0**-16]], 4))
    assert stored.scales is not None
    assert stored.scales.values[0, 0] == 2.0**-14
    np.testing.assert_array_equal(stored.values, [[0x02]])
