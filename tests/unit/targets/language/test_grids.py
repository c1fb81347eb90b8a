"""Grids of a model's matrices: what is described is what layers have."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from modelwright.targets.language.grids import BlockFormat, NearestGrids, SparedGrids, choose_spared, group_layers
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


def make_layer(name: str, reads: str, columns: int) -> LinearLayer:
    return LinearLayer(name=name, weight=f"{name}.weight", reads=reads, gives=f"{name}.y", rows=10, columns=columns)


def make_layers() -> Any:
    layers = [make_layer("q", "x", 2), make_layer("k", "x", 2), make_layer("up", "y", 4), make_layer("down", "z", 2)]
    model: Any = SimpleNamespace(linear_layers={layer.name: layer for layer in layers})
    return group_layers(model, model.linear_layers)


def test_layers_with_the_most_harm_for_their_size_are_spared_together_with_those_that_read_the_same() -> None:
    harm = {"x": 0.6, "y": 0.2, "z": 0.25}
    groups = make_layers()
    assert choose_spared(groups, harm, 0.0) == frozenset()
    assert choose_spared(groups, harm, 0.4) == {"q", "k"}
    assert choose_spared(groups, harm, 0.65) == {"q", "k", "down"}
    assert choose_spared(groups, harm, 1.0) == {"q", "k", "up", "down"}


def test_a_group_that_is_too_large_for_what_is_left_does_not_keep_a_smaller_one_out() -> None:
    assert choose_spared(make_layers(), {"x": 0.2, "y": 0.9, "z": 0.2}, 0.2) == {"down"}


def test_a_small_matrix_goes_before_a_large_one_with_a_little_more_harm() -> None:
    assert choose_spared(make_layers(), {"x": 0.2, "y": 0.9, "z": 0.5}, 0.4) == {"down"}


def test_spared_layers_and_those_without_few_bits_have_more() -> None:
    matrix = np.arange(-8, 8, dtype=np.float32).repeat(2)[:, None] * 0.5
    layers = {name: LinearLayer(**{**vars(LAYER), "name": name}) for name in ("up", "down", "head")}
    model: Any = SimpleNamespace(read_matrix=lambda layer: matrix, linear_layers=layers)
    few, more = (
        NearestGrids(model, dict.fromkeys(names, found)) for names, found in ((["up", "down"], FOUR), (layers, EIGHT))
    )
    mixed = SparedGrids(few, {"down"}, more)
    assert {name: mixed.round_layer(layer).bits for name, layer in layers.items()} == {"up": 4, "down": 8, "head": 8}
