"""Rows of a batch that differ in length: padding moves from their beginning to their end."""

import numpy as np

from modelwright.targets.ort.language.generator import _shift_left


def test_padding_moves_to_the_end_and_tokens_keep_their_order() -> None:
    tokens = np.array([[0, 0, 7, 8], [1, 2, 3, 4], [0, 0, 0, 9]])
    moved = _shift_left(tokens, np.array([2, 0, 3]))
    assert moved.tolist() == [[7, 8, 0, 0], [1, 2, 3, 4], [9, 0, 0, 0]]
