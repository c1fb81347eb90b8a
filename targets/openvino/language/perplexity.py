"""Perplexity of a compiled model on tokens: what a recipe chooses by. What judges an artifact is the harness's."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelwright.core.records.language import LanguageModel
from modelwright.targets.language.contract import Tokens
from modelwright.targets.openvino.language.generator import OpenvinoGenerator


def measure_perplexity(compiled: Any, record: LanguageModel, tokens: Tokens) -> float:
    """Returns the perplexity of rows of tokens, each read by itself.

    Args:
        compiled: A stateful model.
        record: Of the exported model.
        tokens: int64 [rows, length].
    """
    generator = OpenvinoGenerator(compiled, {}, record)
    total, count = 0.0, 0
    for row in tokens:
        logits = generator.score(row[None])[0, :-1]
        # In place of a copy in float64 of all logits, which a large vocabulary makes hundreds of megabytes of.
        largest = logits.max(axis=1, keepdims=True)
        sums = np.log(np.exp(logits - largest).sum(axis=1, dtype=np.float64)) + largest[:, 0]
        total += float((sums - logits[np.arange(len(row) - 1), row[1:]]).sum())
        count += len(row) - 1
    return float(np.exp(total / count))
