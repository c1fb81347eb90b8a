"""Holds what an artifact says token by token, with its cache, against FP32 that reads the same text at once.

Perplexity is taken from texts that are read at once; who serves the artifact writes with the cache, often by other
kernels, and several prompts together, padded. A fault there leaves perplexity as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelwright.core.records.language_artifact import Decoding, Estimate
from modelwright.harness.language.generating import pad
from modelwright.harness.language.quality import Floats, divergences, estimate_mean, log_probabilities
from modelwright.harness.language.workload import Document
from modelwright.targets.language.contract import Generator

HEADS = (6, 19, 40, 150)
"""Tokens that are read before the first one is written, of each row: unlike, so that rows together are padded."""
STEPS = 24
_LEAST_HEAD = 2
FLOAT_BOUND, BOUND = 0.01, 0.02
"""Nats a token that writing may cost beyond reading. SmolLM2-135M loses 0.06 without the first token of its text, and
1e-11 by a cache of float32."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A piece of text.

    Attributes:
        head: Tokens that are read at once.
        rest: Tokens that come one by one.
    """

    head: tuple[int, ...]
    rest: tuple[int, ...]

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """All of them, int64 [1, length]."""
        return np.asarray([[*self.head, *self.rest]], dtype=np.int64)


def plan_rows(documents: Sequence[Document], context: int) -> list[Row]:
    """Cuts texts into rows, of which each follows the one before it; fewer or shorter ones where there is little text.

    Args:
        documents: That judge.
        context: Tokens that the model reads at most.
    """
    stream = [token for document in documents for token in document.tokens]
    rows, start = [], 0
    for head in HEADS:
        left = min(context, len(stream) - start)
        steps = min(STEPS, left - _LEAST_HEAD)
        if steps < 1:
            break
        middle = start + min(head, left - steps)
        rows.append(Row(head=tuple(stream[start:middle]), rest=tuple(stream[middle : middle + steps])))
        start = middle + steps
    return rows


def read_rows(generator: Generator, rows: Sequence[Row]) -> list[Floats]:
    """Returns log probabilities of each row's next tokens, read at once: [rest + 1, vocabulary] a row."""
    return [log_probabilities(_read(generator, row)) for row in rows]


def judge_decoding(generator: Generator, rows: Sequence[Row], reference: Sequence[Floats]) -> Decoding:
    """Returns what writing costs an artifact beyond what reading costs it, alone and together.

    Args:
        generator: The artifact.
        rows: From `plan_rows`.
        reference: FP32's `read_rows`.

    Raises:
        ValueError: A logit is not a number.
    """
    read = _hold(reference, (_read(generator, row) for row in rows))
    alone = _hold(reference, (next(_write(generator, [row])) for row in rows))
    together = _hold(reference, _write(generator, rows))
    return Decoding(
        rows=len(rows),
        tokens=len(read),
        divergence_read=float(np.mean(read)),
        alone=estimate_mean(alone - read),
        together=estimate_mean(together - read),
    )


def find_fault(decoding: Decoding, *, is_float: bool) -> str | None:
    """Returns what is wrong with an artifact's way to write; None where it follows its way to read.

    Args:
        decoding: What was found.
        is_float: Whether it computes in floating point; else its weights are allowed to cost as much once more.
    """
    bound = FLOAT_BOUND if is_float else max(BOUND, decoding.divergence_read)
    for how, cost in (("one prompt alone", decoding.alone), ("several prompts together", decoding.together)):
        if _least(cost) > bound:
            return (
                f"with its cache, {how}, its next tokens are {cost.value:.2g} nats further from FP32's than where it "
                f"reads the same {decoding.tokens} tokens at once; {bound:.2g} are usual"
            )
    return None


def _least(cost: Estimate) -> float:
    return cost.value if cost.ci95 is None else cost.ci95[0]


def _read(generator: Generator, row: Row) -> npt.NDArray[np.float32]:
    return generator.score(row.tokens)[0, len(row.head) - 1 :].copy()


def _write(generator: Generator, rows: Sequence[Row]) -> Iterator[npt.NDArray[np.float32]]:
    """Yields each row's logits [rest + 1, vocabulary], all rows written at once with what the text says."""
    longest = max(len(row.rest) for row in rows)
    logits = [generator.prefill(*pad([row.head for row in rows])).copy()]
    for step in range(longest):
        # A row that is over goes on with its last token, and nobody looks.
        tokens = [row.rest[min(step, len(row.rest) - 1)] for row in rows]
        logits.append(generator.step(np.asarray(tokens, dtype=np.int64)).copy())
    for index, row in enumerate(rows):
        yield np.stack([step[index] for step in logits[: len(row.rest) + 1]])


def _hold(reference: Sequence[Floats], logits: Iterator[npt.NDArray[np.float32]]) -> Floats:
    return np.concatenate([divergences(expected, found) for expected, found in zip(reference, logits, strict=True)])
