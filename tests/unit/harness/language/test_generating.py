from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from modelwright.core.errors import MeasurementInvalidError
from modelwright.harness.language.generating import generate, pad
from modelwright.targets.language.contract import Generator, Logits, Tokens

WORDS = 10


class Counting(Generator):
    """Says the number after the last one, and takes a scripted time for each answer."""

    def __init__(self, times_ns: Sequence[int] = ()) -> None:
        self.now_ns = 0
        self.calls: list[tuple[str, list[int]]] = []
        self._times = list(times_ns)

    def prefill(self, tokens: Tokens, mask: Tokens | None = None) -> Logits:
        self.calls.append(("prefill", tokens[:, -1].tolist()))
        return self._answer(tokens[:, -1])

    def step(self, tokens: Tokens) -> Logits:
        self.calls.append(("step", tokens.tolist()))
        return self._answer(tokens)

    def score(self, tokens: Tokens) -> Logits:
        raise NotImplementedError

    def cache_bytes(self) -> int | None:
        return None

    def clock(self) -> int:
        return self.now_ns

    def _answer(self, last: Tokens) -> Logits:
        self.now_ns += self._times.pop(0) if self._times else 1
        return np.eye(WORDS, dtype=np.float32)[(last + 1) % WORDS]


def test_the_likeliest_token_is_fed_back_until_there_are_enough() -> None:
    generator = Counting()
    found = generate(generator, [[1, 2]], 4)
    assert found.tokens.tolist() == [[3, 4, 5, 6]]
    assert generator.calls == [("prefill", [2]), ("step", [3]), ("step", [4]), ("step", [5])]


def test_the_first_token_and_each_further_one_have_their_own_times() -> None:
    generator = Counting([100, 7, 8, 9])
    found = generate(generator, [[5]], 4, clock=generator.clock)
    assert found.first_ns == 100
    assert found.step_ns == (7, 8, 9)
    assert found.total_ns == 124


def test_one_token_takes_no_step() -> None:
    found = generate(Counting([3]), [[5]], 1)
    assert found.tokens.tolist() == [[6]]
    assert found.step_ns == ()


def test_a_batch_of_unequal_prompts_is_padded_on_the_left() -> None:
    tokens, mask = pad([[1, 2, 3], [7]])
    assert tokens.tolist() == [[1, 2, 3], [0, 0, 7]]
    assert mask is not None
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert generate(Counting(), [[1, 2, 3], [7]], 2).tokens.tolist() == [[4, 5], [8, 9]]


def test_equal_prompts_need_no_mask() -> None:
    assert pad([[1, 2], [3, 4]])[1] is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    class Broken(Counting):
        def _answer(self, last: Tokens) -> Logits:
            logits = super()._answer(last)
            logits[0, 3] = bad
            return logits

    with pytest.raises(MeasurementInvalidError, match="not numbers"):
        generate(Broken(), [[1]], 2)
