"""Matrices in blocks: those beside each other keep their columns, scales and zero points."""

import numpy as np
import pytest

from modelwright.targets.ort.language.matrices import join_blocks
from modelwright.targets.quantization.blocks import round_blocks


@pytest.mark.parametrize("symmetric", [True, False])
def test_joined_blocks_are_the_matrices_beside_each_other(symmetric: bool) -> None:
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=(48, columns)).astype(np.float32) for columns in (3, 1, 5)]
    parts = [round_blocks(matrix, bits=8, size=32, symmetric=symmetric) for matrix in matrices]
    joined = join_blocks(parts)
    assert joined.values.shape == (9, 2, 32)
    assert (joined.zero_points is None) is symmetric
    assert np.array_equal(joined.restore(), np.concatenate([part.restore() for part in parts], axis=1))
    assert np.abs(joined.restore() - np.concatenate(matrices, axis=1)).max() < 0.02
