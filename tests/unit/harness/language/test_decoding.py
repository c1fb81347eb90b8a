"""An artifact that reads rightly and writes wrongly is found, whatever its perplexity says."""

from __future__ import annotations

import numpy as np
import pytest

from modelwright.core.records.language_artifact import Decoding, Estimate
from modelwright.harness.language.decoding import HEADS, STEPS, find_fault, judge_decoding, plan_rows, read_rows
from modelwright.harness.language.workload import Document
from modelwright.targets.language.contract import Generator, Logits, Tokens

WORDS = 11


class Counting(Generator):
    """The next token depends on all tokens so far: on their sum, where padding counts nothing.

    Args:
        fault: What its cache does: `none`, `forgets` what was prefilled, `padded` counts padding as a token,
            `late` answers with what it knew a token before.
        noise: Added to all logits, as rounded weights do.
    """

    def __init__(self, fault: str = "none", noise: float = 0.0) -> None:
        self._fault, self._noise = fault, noise
        self._table = np.random.default_rng(0).normal(0, 2, (WORDS, WORDS)).astype(np.float32)
        self._sums = np.zeros(0, np.int64)

    def _answer(self, sums: Tokens) -> Logits:
        logits = self._table[sums % WORDS]
        return logits + np.float32(self._noise) * self._table[(sums + 1) % WORDS]

    def prefill(self, tokens: Tokens, mask: Tokens | None = None) -> Logits:
        real = np.ones_like(tokens) if mask is None or self._fault == "padded" else mask
        self._sums = ((tokens + 1) * real).sum(axis=1)
        answer = self._answer(self._sums)
        if self._fault == "forgets":
            self._sums = np.zeros_like(self._sums)
        return answer

    def step(self, tokens: Tokens) -> Logits:
        before = self._sums
        self._sums = before + tokens + 1
        return self._answer(before if self._fault == "late" else self._sums)

    def score(self, tokens: Tokens) -> Logits:
        return self._answer(np.cumsum(tokens + 1, axis=1))

    def cache_bytes(self) -> int | None:
        return None


def make_documents(tokens: int) -> list[Document]:
    stream = np.random.default_rng(1).integers(0, WORDS, tokens)
    return [Document(tokens=tuple(part.tolist()), size_bytes=len(part)) for part in np.array_split(stream, 3)]


def find(fault: str, *, noise: float = 0.0, is_float: bool = True) -> str | None:
    rows = plan_rows(make_documents(400), 512)
    found = judge_decoding(Counting(fault, noise), rows, read_rows(Counting(), rows))
    return find_fault(found, is_float=is_float)


def test_rows_take_text_in_order_and_differ_in_length() -> None:
    rows = plan_rows(make_documents(400), 512)
    assert [len(row.head) for row in rows] == list(HEADS)
    assert {len(row.rest) for row in rows} == {STEPS}
    taken = [token for row in rows for token in (*row.head, *row.rest)]
    assert taken == [token for part in make_documents(400) for token in part.tokens][: len(taken)]


@pytest.mark.parametrize(("tokens", "context"), [(65, 512), (400, 8), (3, 8)])
def test_rows_fit_little_text_and_small_contexts(tokens: int, context: int) -> None:
    rows = plan_rows(make_documents(tokens), context)
    assert rows
    assert all(row.tokens.size <= context and len(row.head) >= 2 for row in rows)
    assert sum(row.tokens.size for row in rows) <= tokens
    assert find_fault(judge_decoding(Counting(), rows, read_rows(Counting(), rows)), is_float=True) is None


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_what_writes_as_it_reads_is_fine(noise: float) -> None:
    assert find("none", noise=noise, is_float=noise == 0.0) is None


@pytest.mark.parametrize(
    ("fault", "how"), [("forgets", "one prompt alone"), ("late", "alone"), ("padded", "several prompts together")]
)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_what_writes_otherwise_is_found(fault: str, how: str, noise: float) -> None:
    told = find(fault, noise=noise, is_float=noise == 0.0)
    assert told is not None
    assert how in told
    assert "100 tokens at once" in told


def test_chance_of_few_tokens_is_no_fault() -> None:
    unsure = Estimate(value=0.03, ci95=(-0.01, 0.07))
    found = Decoding(rows=1, tokens=30, divergence_read=0.0, alone=unsure, together=unsure)
    assert find_fault(found, is_float=True) is None


def test_reading_that_costs_more_lets_writing_cost_more() -> None:
    cost = Estimate(value=0.05, ci95=(0.04, 0.06))
    close, far = (
        Decoding(rows=4, tokens=100, divergence_read=read, alone=cost, together=Estimate(value=0.0))
        for read in (0.001, 0.08)
    )
    assert find_fault(close, is_float=False) is not None
    assert find_fault(far, is_float=False) is None
