"""What a module of `runtimes` gives: an artifact that answers prompts with the likeliest tokens, and scores texts."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
Prompt = Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Tokens, and when they came.

    Attributes:
        tokens: As many as were asked for; tokens that end a text end nothing.
        first_ns: From handing over the prompt until the first token was known.
        step_ns: Of each further one.
    """

    tokens: Sequence[Any]
    first_ns: int
    step_ns: Sequence[int]


class Loaded(Protocol):
    """An artifact in its runtime."""

    def generate(self, prompt: Prompt, count: int) -> Answer:
        """Answers a prompt that nothing is remembered of, with so many tokens."""
        ...

    def score(self, tokens: Prompt) -> Logits:
        """Returns the logits at every position of a text, [positions, vocabulary]."""
        ...


def decode(read: Callable[[Prompt], Logits], step: Callable[[int], Logits], prompt: Prompt, count: int) -> Answer:
    """Answers a prompt in a runtime that returns logits.

    Args:
        read: Takes the prompt into an empty cache; returns the last position's logits.
        step: Takes one token more; likewise.
        prompt: Of tokens.
        count: Of tokens to write.
    """
    times = [time.perf_counter_ns()]
    tokens = [int(read(prompt).argmax())]
    times.append(time.perf_counter_ns())
    for _ in range(count - 1):
        tokens.append(int(step(tokens[-1]).argmax()))
        times.append(time.perf_counter_ns())
    return to_answer(tokens, times)


def to_answer(tokens: Sequence[Any], times: Sequence[int]) -> Answer:
    """Returns an answer from the clock before the prompt and after each token, in nanoseconds."""
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    return Answer(tokens=tokens, first_ns=gaps[0], step_ns=gaps[1:])
