"""The loss that recipes choose by: known answers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelwright.targets.language.perplexity import measure_loss


def test_loss_is_the_mean_surprise_of_all_tokens_but_the_first() -> None:
    # Every text: after the first token the next has a share of 1/2, after that one of 1/4.
    logits = np.log(np.array([[[1.0, 2.0, 1.0], [2.0, 5.0, 1.0], [9.0, 9.0, 9.0]]], np.float32))
    generator: Any = SimpleNamespace(score=lambda tokens: logits)
    loss = measure_loss(generator, np.array([[2, 1, 0], [0, 1, 0]]))
    assert loss == pytest.approx((np.log(2) + np.log(4)) / 2)


def test_large_logits_do_not_overflow() -> None:
    generator: Any = SimpleNamespace(score=lambda tokens: np.array([[[1e4, 0.0], [0.0, 0.0]]], np.float32))
    assert measure_loss(generator, np.array([[0, 1]])) == pytest.approx(1e4)
