"""How an artifact's text follows FP32's: pure functions of logits and tokens, each figure with its interval.

Natural logarithms throughout; perplexity is e to the mean, bits per byte are by base 2. Tokens of one text depend on
each other, so an interval is over blocks of them, with Student's t (the method of batch means).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.records.language_artifact import Estimate
from modelwright.harness.results.statistics import T_975, wilson_interval

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BLOCKS = 32
"""An interval is over so many blocks of successive tokens at most."""
LEAST_BLOCKS, LEAST_BLOCK = 5, 8
"""Fewer blocks, or shorter ones, carry no interval."""
_ROWS = 32
"""Positions whose distributions are in double precision at a time: a vocabulary has up to 260,000 words."""
_LARGEST_EXPONENT = 700.0
"""Under the one where e to it is no number any more."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A window over a text, and what of it counts.

    Attributes:
        start: First token that is read.
        stop: Token after the last one that is read.
        first: First token whose prediction counts: what lies before it was counted in an earlier window.
    """

    start: int
    stop: int
    first: int


def plan_spans(length: int, window: int, stride: int) -> Iterator[Span]:
    """Yields windows that slide over a text, such that every token but the first is predicted once.

    A token is predicted from at least `window - stride` tokens before it, where the text has so many.

    Args:
        length: Tokens of the text.
        window: Tokens that are read at once at most.
        stride: Tokens from one window's start to the next one's; less than `window`.
    """
    start, first = 0, 1
    while first < length:
        stop = min(start + window, length)
        yield Span(start=start, stop=stop, first=first)
        first = stop
        start += stride


def log_probabilities(logits: npt.NDArray[Any]) -> Floats:
    """Returns the natural logarithms of the probabilities that logits stand for, in double precision.

    Args:
        logits: [positions, vocabulary].

    Raises:
        ValueError: One is not a number, or infinite upwards.
    """
    values = np.asarray(logits, dtype=np.float64)
    peaks = values.max(axis=-1, keepdims=True)
    if not np.all(np.isfinite(peaks)) or np.isnan(values).any():
        raise ValueError("its logits are not numbers")
    shifted = values - peaks
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def score_tokens(logits: npt.NDArray[Any], tokens: Integers) -> tuple[Floats, Integers]:
    """Returns what each token costs in nats, -log p(token), and the token that is the most likely in its place.

    Args:
        logits: [positions, vocabulary], each for the token after its position.
        tokens: int64 [positions]: those tokens.

    Raises:
        ValueError: A logit is not a number.
    """
    costs, tops = np.empty(len(tokens)), np.empty(len(tokens), dtype=np.int64)
    for start in range(0, len(tokens), _ROWS):
        rows = slice(start, start + _ROWS)
        logs = log_probabilities(logits[rows])
        costs[rows] = -logs[np.arange(len(logs)), tokens[rows]]
        tops[rows] = logs.argmax(axis=-1)
    return costs, tops


def divergences(reference: npt.NDArray[Any], logits: npt.NDArray[Any]) -> Floats:
    """Returns the Kullback-Leibler divergence of each distribution from FP32's, in nats: sum p (log p - log q).

    Args:
        reference: FP32's log probabilities, [positions, vocabulary].
        logits: The artifact's, [positions, vocabulary].

    Raises:
        ValueError: A logit is not a number.
    """
    found = np.empty(len(reference))
    for start in range(0, len(reference), _ROWS):
        rows = slice(start, start + _ROWS)
        logs = np.asarray(reference[rows], dtype=np.float64)
        chances = np.exp(logs)
        others = np.maximum(log_probabilities(logits[rows]), -_LARGEST_EXPONENT)
        # What has no chance adds nothing, whatever its logarithm: 0 log 0 is 0.
        gaps = np.where(chances > 0, logs, others) - others
        found[rows] = np.maximum((chances * gaps).sum(axis=-1), 0.0)
    return found


def perplexity(costs: Floats) -> float:
    """Returns e to the mean cost of a token."""
    return math.exp(min(float(np.mean(costs)), _LARGEST_EXPONENT))


def bits_per_byte(costs: Floats, size_bytes: int) -> float:
    """Returns what a byte of the text costs in bits: unlike perplexity it compares models of different tokenizers."""
    return float(np.sum(costs)) / math.log(2) / size_bytes


def estimate_increase(costs: Floats, reference: Floats) -> Estimate:
    """Returns by what share perplexity is above FP32's on the same tokens, with its interval.

    The ratio of two perplexities is e to the mean difference of the costs, token by token: what is hard for both
    cancels out.
    """
    mean = estimate_mean(costs - reference)
    interval = None if mean.ci95 is None else (_grow(mean.ci95[0]), _grow(mean.ci95[1]))
    return Estimate(value=_grow(mean.value), ci95=interval)


def _grow(exponent: float) -> float:
    return math.expm1(min(exponent, 34.0))


def estimate_mean(values: Floats) -> Estimate:
    """Returns the mean of what successive tokens gave, with an interval over blocks of them.

    Args:
        values: One a token, in the order of the text. Blocks of several follow each other, so that what one token
            owes to its neighbour lies within a block and not between two.
    """
    mean = float(np.mean(values))
    count = min(BLOCKS, len(values) // LEAST_BLOCK)
    if count < LEAST_BLOCKS:
        return Estimate(value=mean)
    means = [float(block.mean()) for block in np.array_split(values, count)]
    width = _t_of(count - 1) * float(np.std(means, ddof=1)) / math.sqrt(count)
    return Estimate(value=mean, ci95=(mean - width, mean + width))


def estimate_share(hits: npt.NDArray[np.bool_]) -> Estimate:
    """Returns the share of hits, with the wider of two intervals: over blocks, and Wilson's of single tokens.

    Blocks that all hit say nothing of the next one that does not; Wilson's interval does.
    """
    share = estimate_mean(hits.astype(np.float64))
    single = wilson_interval(int(hits.sum()), len(hits))
    ends = [interval for interval in (share.ci95, single) if interval is not None]
    if not ends:
        return share
    low, high = max(0.0, min(low for low, _ in ends)), min(1.0, max(high for _, high in ends))
    return Estimate(value=share.value, ci95=(low, high))


def estimate_of_few(values: Sequence[float]) -> Estimate:
    """Returns the mean of independent values, such as answers to prompts, with Student's t; none for under five."""
    mean = float(np.mean(values))
    if len(values) < LEAST_BLOCKS:
        return Estimate(value=mean)
    width = _t_of(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Estimate(value=mean, ci95=(mean - width, mean + width))


def _t_of(freedom: int) -> float:
    return T_975[min(freedom - 3, len(T_975) - 1)]


def similarity(answer: Sequence[int], reference: Sequence[int]) -> float:
    """Returns how alike two token sequences are: 1 less the edits that part them, as a share of the longer one.

    Edits are insertions, deletions and replacements of a token (Levenshtein 1966).
    """
    longest = max(len(answer), len(reference))
    if longest == 0:
        return 1.0
    row = list(range(len(reference) + 1))
    for i, token in enumerate(answer, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(reference, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (token != other))
    return 1.0 - row[-1] / longest
