"""The loss that recipes choose by: known answers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelwright.targets.language.perplexity import measure_divergence, measure_loss


def test_loss_is_the_mean_surprise_of_all_tokens_but_the_first() -> None:
    # Every text: after the first token the next has a share of 1/2, after that one of 1/4.
    logits = np.log(np.array([[[1.0, 2.0, 1.0], [2.0, 5.0, 1.0], [9.0, 9.0, 9.0]]], np.float32))
    generator: Any = SimpleNamespace(score=lambda tokens: logits)
    loss = measure_loss(generator, np.array([[2, 1, 0], [0, 1, 0]]))
    assert loss == pytest.approx((np.log(2) + np.log(4)) / 2)


def test_large_logits_do_not_overflow() -> None:
    generator: Any = SimpleNamespace(score=lambda tokens: np.array([[[1e4, 0.0], [0.0, 0.0]]], np.float32))
    assert measure_loss(generator, np.array([[0, 1]])) == pytest.approx(1e4)


def test_divergence_is_that_of_kullback_and_leibler_whatever_is_added_to_logits() -> None:
    expected = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32))
    found = np.log(np.array([[0.25, 0.25, 0.5], [0.1, 0.8, 0.1]], np.float32))
    # 0.5 ln 2 - 0.25 ln 2 for the first token, nothing for the second.
    assert measure_divergence(expected + 7, found - 3) == pytest.approx(0.25 * np.log(2) / 2, abs=1e-6)
    assert measure_divergence(expected, expected + 8) == pytest.approx(0, abs=1e-6)
