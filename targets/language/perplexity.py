"""How well a model predicts texts: what a recipe chooses by."""

from __future__ import annotations

import numpy as np

from modelwright.targets.language.contract import Generator, Logits, Tokens


def measure_loss(generator: Generator, tokens: Tokens) -> float:
    """Returns the mean negative log-likelihood of each token after its text's first, in nats.

    Args:
        generator: A loaded artifact.
        tokens: int64 [rows, length]: each row a text of its own.
    """
    return float(np.mean([_score_text(generator.score(row[None])[0], row) for row in tokens]))


def measure_divergence(expected: Logits, found: Logits) -> float:
    """Returns the mean Kullback-Leibler divergence of predictions from those expected, in nats.

    Args:
        expected: float32 [tokens, vocabulary].
        found: The same tokens' by another model.
    """
    # Of differences: where models hardly differ, two sums of their own would not tell.
    weights = np.exp(expected - expected.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, dtype=np.float64, keepdims=True)
    between = np.sum(weights * (expected - found), axis=1, dtype=np.float64)
    return float(np.mean(between + _sum_up(found) - _sum_up(expected)))


def _sum_up(logits: Logits) -> Logits:
    """Returns the logarithm of the sum of each row's exponentials."""
    # Sums alone are float64: a copy of all logits would be hundreds of megabytes with a large vocabulary.
    highest = logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(logits - highest).sum(axis=1, dtype=np.float64)) + highest[:, 0])


def _score_text(logits: Logits, row: Tokens) -> float:
    before = logits[:-1]
    return float(np.mean(_sum_up(before) - before[np.arange(len(before)), row[1:]]))
