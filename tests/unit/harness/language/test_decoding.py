"""An artifact that reads rightly and writes wrongly is found, whatever its perplexity says."""

from __future__ import annotations

import numpy as np
import pytest

from modelwright.core.records.language_artifact import Decoding, Estimate, LongDecoding
from modelwright.harness.language.decoding import (
    HEADS,
    LONG_STEPS,
    STEPS,
    find_fault,
    judge_decoding,
    plan_decoding,
    take_decoding,
)
from modelwright.harness.language.workload import Document
from modelwright.targets.language.contract import Generator, Logits, Tokens

WORDS = 11
NOTHING = Estimate(value=0.0)


class Counting(Generator):
    """The next token depends on all tokens so far: on their sum, where padding counts nothing.

    Args:
        fault: What its cache does: `none`, `forgets` what was prefilled, `padded` counts padding as a token,
            `late` answers with what it knew a token before, `short` has room for 200 tokens, `faint` hears a little of
            what `forgets` would say.
        noise: Added to all logits, as rounded weights do.
    """

    def __init__(self, fault: str = "none", noise: float = 0.0) -> None:
        self._fault, self._noise = fault, noise
        self._lost = np.zeros(0, np.int64)
        self._table = np.random.default_rng(0).normal(0, 2, (WORDS, WORDS)).astype(np.float32)
        self._sums = np.zeros(0, np.int64)

    def _answer(self, sums: Tokens) -> Logits:
        logits = self._table[sums % WORDS]
        return logits + np.float32(self._noise) * self._table[(sums + 1) % WORDS]

    def prefill(self, tokens: Tokens, mask: Tokens | None = None) -> Logits:
        real = np.ones_like(tokens) if mask is None or self._fault == "padded" else mask
        if self._fault == "short":
            tokens, real = tokens[:, -200:], real[:, -200:]
        self._sums = ((tokens + 1) * real).sum(axis=1)
        answer = self._answer(self._sums)
        self._lost = np.zeros_like(self._sums)
        if self._fault == "forgets":
            self._sums = self._lost
        return answer

    def step(self, tokens: Tokens) -> Logits:
        before = self._sums
        self._sums = before + tokens + 1
        if self._fault == "faint":
            self._lost = self._lost + tokens + 1
            return np.float32(0.8) * self._answer(self._sums) + np.float32(0.2) * self._answer(self._lost)
        return self._answer(before if self._fault == "late" else self._sums)

    def score(self, tokens: Tokens) -> Logits:
        return self._answer(np.cumsum(tokens + 1, axis=1))

    def cache_bytes(self) -> int | None:
        return None


def make_documents(tokens: int) -> list[Document]:
    stream = np.random.default_rng(1).integers(0, WORDS, tokens)
    return [Document(tokens=tuple(part.tolist()), size_bytes=len(part)) for part in np.array_split(stream, 3)]


def judge(candidate: Generator, *, tokens: int = 400, context: int = 512) -> Decoding:
    plan = plan_decoding(make_documents(tokens), context)
    return judge_decoding(candidate, plan, take_decoding(Counting(), plan))


def find(fault: str, *, noise: float = 0.0, is_float: bool = True) -> str | None:
    return find_fault(judge(Counting(fault, noise)), is_float=is_float)


def test_rows_take_text_in_order_and_differ_in_length() -> None:
    plan = plan_decoding(make_documents(400), 512)
    stream = [token for part in make_documents(400) for token in part.tokens]
    assert [len(row.head) for row in plan.rows] == list(HEADS)
    assert {len(row.rest) for row in plan.rows} == {STEPS}
    taken = [token for row in plan.rows for token in (*row.head, *row.rest)]
    assert taken == stream[: len(taken)]
    assert plan.long is not None
    assert (*plan.long.head, *plan.long.rest) == tuple(stream)
    assert len(plan.long.rest) == LONG_STEPS


def test_a_long_text_is_longer_than_what_is_read_at_once_elsewhere() -> None:
    long = plan_decoding(make_documents(2048), 4096).long
    assert long is not None
    assert len(long.head) == 1100


@pytest.mark.parametrize(("tokens", "context"), [(65, 512), (400, 8), (3, 8)])
def test_rows_fit_little_text_and_small_contexts(tokens: int, context: int) -> None:
    plan = plan_decoding(make_documents(tokens), context)
    assert plan.rows
    assert all(row.tokens.size <= context and len(row.head) >= 2 for row in plan.rows)
    assert sum(row.tokens.size for row in plan.rows) <= tokens
    assert plan.long is None
    assert find_fault(judge(Counting(), tokens=tokens, context=context), is_float=True) is None


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_what_writes_as_it_reads_is_fine(noise: float) -> None:
    assert find("none", noise=noise, is_float=noise == 0.0) is None


@pytest.mark.parametrize(
    ("fault", "how"), [("forgets", "one prompt alone"), ("late", "alone"), ("padded", "several prompts together")]
)
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4])
def test_what_writes_otherwise_is_found(fault: str, how: str, noise: float) -> None:
    told = find(fault, noise=noise, is_float=noise == 0.0)
    assert told is not None
    assert how in told
    assert "100 tokens at once" in told


def test_weights_that_cost_much_do_not_hide_a_small_fault() -> None:
    noisy = judge(Counting("faint", 0.4))
    assert noisy.alone.value < noisy.divergence_read
    assert find_fault(noisy, is_float=False) is not None


def test_a_cache_that_is_too_short_is_found_after_a_long_text() -> None:
    told = find("short", noise=0.1, is_float=False)
    assert told is not None
    assert "after a text of 360 tokens" in told


def test_fp32_is_held_against_itself_after_a_long_text() -> None:
    plan = plan_decoding(make_documents(400), 512)
    for fault, is_found in (("none", False), ("short", True)):
        fp32 = Counting(fault)
        found = judge_decoding(fp32, plan, take_decoding(fp32, plan), is_reference=True)
        assert (find_fault(found, is_float=True) is not None) == is_found


def test_one_token_that_goes_wrong_is_enough() -> None:
    rare = Estimate(value=0.06, ci95=(-0.01, 0.13))
    assert find_fault(make_decoding(cost=rare, changed=rare), is_float=False) is not None


def test_what_is_other_and_no_worse_is_no_fault() -> None:
    """As where the scale of activations depends on what else is in the batch."""
    changed = Estimate(value=0.5, ci95=(0.4, 0.6))
    for cost, is_found in ((Estimate(value=0.0, ci95=(-0.01, 0.01)), False), (changed, True)):
        assert (find_fault(make_decoding(cost=cost, changed=changed), is_float=False) is not None) == is_found


def test_long_texts_may_cost_what_weights_cost() -> None:
    for divergence, is_found in ((0.05, False), (0.5, True)):
        long = LongDecoding(head=1100, tokens=41, divergence=Estimate(value=divergence))
        assert (find_fault(make_decoding(long=long), is_float=False) is not None) == is_found


def make_decoding(
    *, cost: Estimate = NOTHING, changed: Estimate = NOTHING, long: LongDecoding | None = None
) -> Decoding:
    return Decoding(
        rows=4,
        tokens=100,
        divergence_read=0.1,
        alone=cost,
        together=NOTHING,
        changed_alone=changed,
        changed_together=NOTHING,
        long=long,
    )
