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


def _score_text(logits: Logits, row: Tokens) -> float:
    before = logits[:-1]
    # Sums alone are float64: a copy of all logits would be hundreds of megabytes with a large vocabulary.
    highest = before.max(axis=1, keepdims=True)
    total = np.log(np.exp(before - highest).sum(axis=1, dtype=np.float64)) + highest[:, 0]
    return float(np.mean(total - before[np.arange(len(before)), row[1:]]))
