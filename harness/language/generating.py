"""Greedy decoding with its times: the one way in which every artifact generates, whatever runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modelwright.core.errors import MeasurementInvalidError
from modelwright.targets.language.contract import Generator, Logits, Tokens

Clock = Callable[[], int]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What came of prompts, and when.

    Attributes:
        tokens: int64 [batch, new tokens].
        first_ns: From handing over the prompts until the first token of each was known.
        step_ns: Of each further token.
    """

    tokens: Tokens
    first_ns: int
    step_ns: tuple[int, ...]

    @property
    def total_ns(self) -> int:
        return self.first_ns + sum(self.step_ns)


def generate(
    generator: Generator,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    *,
    clock: Clock = time.perf_counter_ns,
) -> Generation:
    """Generates a fixed number of tokens, each time the likeliest one; tokens that end a text end nothing.

    Artifacts that stopped where they think that the text ends would be timed on different work.

    Args:
        generator: A loaded artifact.
        prompts: Of one batch; shorter ones are padded on the left.
        new_tokens: Of each prompt, 1 or more.
        clock: Nanoseconds; replaced in tests.
    """
    tokens, mask = pad(prompts)
    out = np.empty((len(prompts), new_tokens), dtype=np.int64)
    steps = []
    started = clock()
    out[:, 0] = choose(generator.prefill(tokens, mask))
    now = clock()
    first_ns = now - started
    for index in range(1, new_tokens):
        out[:, index] = choose(generator.step(out[:, index - 1].copy()))
        then, now = now, clock()
        steps.append(now - then)
    return Generation(tokens=out, first_ns=first_ns, step_ns=tuple(steps))


def choose(logits: Logits) -> Tokens:
    """Returns the likeliest token of each row, the first of equal ones.

    Raises:
        MeasurementInvalidError: Logits are not numbers.
    """
    chosen = logits.argmax(axis=-1)
    # Of a row that holds NaN numpy returns its place, so that one look tells all.
    if not np.all(np.isfinite(logits[np.arange(len(logits)), chosen])):
        raise MeasurementInvalidError(
            "its logits are not numbers: it writes no text", hint="build it again, or leave this target out"
        )
    return np.asarray(chosen, dtype=np.int64)


def pad(prompts: Sequence[Sequence[int]]) -> tuple[Tokens, Tokens | None]:
    """Returns prompts as one array, and a mask where they differ in length.

    Returns:
        int64 [batch, length] and int64 [batch, length]: 1 for a token, 0 for padding, which stands on the left.
    """
    length = max(map(len, prompts))
    tokens, mask = np.zeros((len(prompts), length), dtype=np.int64), np.zeros((len(prompts), length), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, length - len(prompt) :] = prompt
        mask[row, length - len(prompt) :] = 1
    return tokens, None if mask.all() else mask
