"""Grids of a model's matrices: what is described is what layers have."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from modelwright.targets.language.grids import BlockFormat, NearestGrids
from modelwright.targets.language.portable import LinearLayer

EIGHT, FOUR = (BlockFormat(bits=bits, size=32, symmetric=True) for bits in (8, 4))
LAYER = LinearLayer(name="up", weight="up.weight", reads="x", gives="y", rows=32, columns=1)


def make_grids(matrix: Any, **formats: BlockFormat) -> NearestGrids:
    model: Any = SimpleNamespace(read_matrix=lambda layer: matrix)
    return NearestGrids(model, formats)


def test_values_that_lie_on_levels_are_these_levels() -> None:
    matrix = np.arange(-8, 8, dtype=np.float32).repeat(2)[:, None] * 0.5
    rounded = make_grids(matrix, up=FOUR).round_layer(LAYER)
    # The largest value has the lowest level; its scale is 0.5.
    assert rounded.values.ravel().tolist() == np.arange(16).repeat(2).tolist()
    assert rounded.scales.tolist() == [[0.5]]


def test_formats_are_described_with_how_many_layers_have_them() -> None:
    found = make_grids(None, a=FOUR, b=EIGHT, c=EIGHT).describe()
    assert found == [
        {"bits": 8, "block_size": 32, "symmetric": True, "layers": 2},
        {"bits": 4, "block_size": 32, "symmetric": True, "layers": 1},
    ]
