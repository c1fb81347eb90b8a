"""Which channels share a factor: those that one key and value head gives to several query heads."""

import numpy as np

from modelwright.targets.language.smoothing import Smoothable

PLAIN = Smoothable(reads="x", layers=[], divided=["norm.weight"])
GROUPED = Smoothable(reads="x", layers=[], divided=["v_proj.weight"], heads=(2, 3, 2))
"""Two key and value heads of two channels, each read by three query heads."""


def test_channels_of_their_own_keep_what_they_have() -> None:
    values = np.array([3.0, 1.0, 2.0], np.float32)
    assert PLAIN.gather(values) is values
    assert PLAIN.spread(values) is values


def test_heads_that_share_keys_and_values_share_the_largest_value_and_the_factor() -> None:
    values = np.array([1, 2, 7, 3, 4, 5, 6, 0, 8, 9, 0, 1], np.float32)
    assert GROUPED.gather(values).tolist() == [7, 5, 8, 9]
    factors = np.array([10, 20, 30, 40], np.float32)
    assert GROUPED.spread(factors).tolist() == [10, 20] * 3 + [30, 40] * 3
