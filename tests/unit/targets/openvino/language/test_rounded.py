"""Matrices that are rounded for what they make of inputs lie on the grids that NNCF lays, and lose less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelwright.targets.openvino.language.rounded import Floats, round_matrix
from modelwright.targets.quantization.rounding import find_exchange

GROUP = 8


def lay_grid(weights: Floats) -> tuple[Any, Any, Any]:
    """Returns integers, zero points and scales as NNCF takes them from float weights: 4 bits, asymmetric."""
    groups = weights.reshape(len(weights), -1, GROUP)
    low, high = groups.min(axis=2, keepdims=True), groups.max(axis=2, keepdims=True)
    scales = (high - low) / 15
    zeros = np.clip(np.rint(-low / scales), 0, 15)
    return np.clip(np.rint(groups / scales) + zeros, 0, 15), zeros, scales


@pytest.fixture
def case() -> tuple[Floats, Floats]:
    random = np.random.default_rng(3)
    mixed = random.standard_normal((256, 6)) @ random.standard_normal((6, 32))  # inputs that go together
    inputs = (mixed + 0.1 * random.standard_normal((256, 32))).astype(np.float32)
    return random.standard_normal((16, 32)).astype(np.float32), inputs


def test_the_grid_of_the_rounded_matrix_is_its_own(case: tuple[Floats, Floats]) -> None:
    weights, inputs = case
    rounded = round_matrix(weights, find_exchange((inputs.T @ inputs)[None]), GROUP)
    steps, zeros, scales = lay_grid(rounded)
    assert np.allclose(((steps - zeros) * scales).reshape(rounded.shape), rounded, atol=1e-5)
    _, before_zeros, before_scales = lay_grid(weights)
    assert np.array_equal(zeros, before_zeros)
    assert np.allclose(scales, before_scales, rtol=1e-5)


def test_outputs_change_less_than_by_rounding_to_the_nearest(case: tuple[Floats, Floats]) -> None:
    weights, inputs = case
    steps, zeros, scales = lay_grid(weights)
    nearest = ((steps - zeros) * scales).reshape(weights.shape)
    rounded = round_matrix(weights, find_exchange((inputs.T @ inputs)[None]), GROUP)
    exact = inputs @ weights.T
    lost = [float(np.linalg.norm(inputs @ one.T - exact)) for one in (rounded, nearest)]
    assert lost[0] < 0.6 * lost[1]


def test_inputs_that_have_nothing_in_common_change_nothing() -> None:
    weights = np.random.default_rng(5).standard_normal((4, 32)).astype(np.float32)
    steps, zeros, scales = lay_grid(weights)
    rounded = round_matrix(weights, find_exchange(np.eye(32)[None]), GROUP)
    assert np.allclose(rounded, ((steps - zeros) * scales).reshape(weights.shape), atol=1e-5)
