"""What a text costs an artifact, token by token, and what that makes of perplexity: as `modelwright compare` has it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.records.language_artifact import Estimate
from modelwright.harness.language.judging import WINDOW
from modelwright.harness.language.quality import estimate_increase, estimate_share, perplexity, plan_spans
from modelwright.harness.language.workload import Document


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Of all tokens that judge.

    Attributes:
        costs: -log p of each, in nats.
        tops: The likeliest token in the place of each.
    """

    costs: npt.NDArray[np.float64]
    tops: npt.NDArray[np.int64]

    @property
    def perplexity(self) -> float:
        """Of all of them."""
        return perplexity(self.costs)

    def increase_over(self, reference: Scores) -> Estimate:
        """Returns by what share perplexity is above another's on the same tokens."""
        return estimate_increase(self.costs, reference.costs)

    def agreement_with(self, reference: Scores) -> Estimate:
        """Returns the share of places with the same likeliest token."""
        return estimate_share(self.tops == reference.tops)


def write_windows(documents: Iterable[Document], context: int, path: Path) -> str:
    """Writes what is read at once and counts, such that each token but a text's first counts once; returns its hash.

    Args:
        documents: Texts that judge.
        context: Tokens that the model reads at most.
        path: The file.
    """
    window = min(WINDOW, context)
    windows: list[dict[str, Any]] = []
    for document in documents:
        for span in plan_spans(len(document.tokens), window, max(1, window // 2)):
            tokens = list(document.tokens[span.start : span.stop])
            windows.append({"tokens": tokens, "first": span.first - span.start})
    text = json.dumps(windows)
    path.write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def read_scores(path: Path) -> Scores:
    """Reads what `plain_generation` wrote."""
    with np.load(path) as arrays:
        return Scores(costs=arrays["costs"], tops=arrays["tops"])
