"""Holds what an artifact says token by token, with its cache, against FP32 that reads the same text at once.

Perplexity is taken from texts that are read at once; who serves the artifact writes with the cache, often by other
kernels, and several prompts together, padded, or long ones. A fault there leaves perplexity as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.records.language_artifact import Decoding, LongDecoding
from modelwright.harness.language.generating import pad
from modelwright.harness.language.quality import Floats, divergences, estimate_mean, log_probabilities
from modelwright.harness.language.workload import Document
from modelwright.targets.language.contract import Generator

HEADS = (6, 19, 40, 150)
"""Tokens that are read before the first one is written, of each row: unlike, so that rows together are padded."""
STEPS = 24
LONG_HEAD, LONG_STEPS = 1100, 40
"""Beyond the windows of 512 and 1,024 tokens that caches, tables and attention have."""
_LEAST_HEAD, _LEAST_LONG = 2, 200
FLOAT_BOUND, BOUND = 0.01, 0.03
"""Nats a token that writing may part from reading. SmolLM2-135M parts by 0.06 without the first token of its text; with
a cache of float32 by 1e-11, in BF16 by 0.0009, and with weights of 8 and of 4 bits by 0.003 to 0.006."""
_LONG_TIMES = 3
"""What an artifact may part from FP32 after a long text, as a multiple of what it does in short ones; 0.7 to 0.9 is
usual."""


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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is read and written.

    Attributes:
        rows: Short pieces, each after the one before it.
        long: A long one; None where there is little text.
    """

    rows: tuple[Row, ...]
    long: Row | None


def plan_decoding(documents: Sequence[Document], context: int) -> Plan:
    """Cuts texts into rows; fewer or shorter ones where there is little text.

    Args:
        documents: That judge.
        context: Tokens that the model reads at most.
    """
    stream = [token for document in documents for token in document.tokens]
    return Plan(rows=tuple(_plan_rows(stream, context)), long=_plan_long(stream, context))


def _plan_rows(stream: Sequence[int], context: int) -> Iterator[Row]:
    start = 0
    for head in HEADS:
        left = min(context, len(stream) - start)
        steps = min(STEPS, left - _LEAST_HEAD)
        if steps < 1:
            break
        middle = start + min(head, left - steps)
        yield Row(head=tuple(stream[start:middle]), rest=tuple(stream[middle : middle + steps]))
        start = middle + steps


def _plan_long(stream: Sequence[int], context: int) -> Row | None:
    head = min(LONG_HEAD, min(context, len(stream)) - LONG_STEPS)
    if head < _LEAST_LONG:
        return None
    return Row(head=tuple(stream[:head]), rest=tuple(stream[head : head + LONG_STEPS]))


def take_decoding(generator: Generator, plan: Plan) -> list[Floats]:
    """Returns FP32's log probabilities, [rest + 1, vocabulary] a row: of those that it read at once, then the long one.

    The long one is written: the logits of all its positions would take a gigabyte.
    """
    logs = [log_probabilities(_read(generator, row)) for row in plan.rows]
    return logs if plan.long is None else [*logs, log_probabilities(next(_write(generator, [plan.long])))]


def judge_decoding(
    generator: Generator, plan: Plan, reference: Sequence[Floats], *, is_reference: bool = False
) -> Decoding:
    """Returns what writing costs an artifact beyond what reading costs it, alone, together and after a long text.

    Args:
        generator: The artifact.
        plan: What is read and written.
        reference: FP32's `take_decoding`.
        is_reference: Whether it is FP32 itself.

    Raises:
        ValueError: A logit is not a number.
    """
    rows = plan.rows
    own = [log_probabilities(_read(generator, row)) for row in rows]
    read = _hold(reference, own)
    found = {}
    for way, logits in (
        ("alone", [next(_write(generator, [row])) for row in rows]),
        ("together", list(_write(generator, rows))),
    ):
        found[way] = estimate_mean(_hold(reference, logits) - read)
        found[f"changed_{way}"] = estimate_mean(_hold(own, logits))
    long = None if plan.long is None else _judge_long(generator, plan.long, reference[-1], is_reference=is_reference)
    return Decoding(rows=len(rows), tokens=len(read), divergence_read=float(np.mean(read)), long=long, **found)


def _judge_long(generator: Generator, row: Row, reference: Floats, *, is_reference: bool) -> LongDecoding:
    if is_reference:
        parted = divergences(reference[-1:], generator.prefill(row.tokens))
    else:
        parted = divergences(reference, next(_write(generator, [row])))
    return LongDecoding(head=len(row.head), tokens=len(row.rest) + 1, divergence=estimate_mean(parted))


def find_fault(decoding: Decoding, *, is_float: bool) -> str | None:
    """Returns what is wrong with an artifact's way to write; None where it follows its way to read.

    What it writes is held against what it reads itself, so that what its weights cost hides nothing. Such a divergence
    is never below zero, so that few tokens that go wrong count, too. It is a fault only where most of it leads away
    from FP32: what is rounded by another scale in a batch is other, and no worse.

    Args:
        decoding: What was found.
        is_float: Whether it computes in floating point.
    """
    bound = FLOAT_BOUND if is_float else BOUND
    for how, cost, changed in (
        ("one prompt alone", decoding.alone, decoding.changed_alone),
        ("several prompts together", decoding.together, decoding.changed_together),
    ):
        if changed is not None and changed.value > bound and cost.value > changed.value / 2:
            return (
                f"with its cache, {how}, its next tokens are {changed.value:.2g} nats from its own where it reads the "
                f"same {decoding.tokens} tokens at once, and {cost.value:.2g} nats further from FP32's; {bound:.2g} "
                "are usual at most"
            )
    long = decoding.long
    usual = max(bound, _LONG_TIMES * decoding.divergence_read)
    if long is not None and long.divergence.value > usual:
        return (
            f"after a text of {long.head:,} tokens its next ones are {long.divergence.value:.2g} nats from FP32's, and "
            f"{decoding.divergence_read:.2g} in short texts; {usual:.2g} are usual at most"
        )
    return None


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


def _hold(reference: Sequence[Floats], found: Sequence[npt.NDArray[Any]]) -> Floats:
    """Returns divergences of all positions, of as many rows as were found."""
    return np.concatenate([divergences(expected, logits) for expected, logits in zip(reference, found, strict=False)])
