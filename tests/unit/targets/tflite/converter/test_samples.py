from __future__ import annotations

import numpy as np
import pytest

from modelwright.targets.tflite.converter.samples import compare


def test_scalars_are_compared_by_value() -> None:
    """A cosine of scalars is 1 whatever they are."""
    assert compare(np.float32([3.0]), np.float32([300.0])) == pytest.approx(2 * 900 / (9 + 90_000))
    assert compare(np.float32([-3.0]), np.float32([3.0])) == pytest.approx(-1)
    assert compare(np.float32([3.0]), np.float32([3.0])) == 1
    assert compare(np.float32([0.0]), np.float32([0.0])) == 1
    assert compare(np.float32([0.0]), np.float32([5.0])) == 0


def test_a_vector_of_the_right_direction_and_the_wrong_length_is_not_alike() -> None:
    vector = np.arange(1, 9, dtype=np.float32)
    assert compare(10 * vector, vector) == pytest.approx(20 / 101)
    assert compare(1.001 * vector, vector) == pytest.approx(1, abs=1e-6)


def test_what_is_not_finite_is_not_alike() -> None:
    assert compare(np.float32([np.nan, 1.0]), np.float32([1.0, 1.0])) == 0
    assert compare(np.float32([np.inf, 1.0]), np.float32([np.inf, 1.0])) == 1
