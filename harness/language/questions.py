"""Questions with choices, scored as lm-evaluation-harness does: by the likelihood of a choice's tokens after it.

Question and choice are tokenized together, and what lies beyond the question's own number of tokens counts as the
choice, whatever a token that spans both holds. Both tools so give one number, and not only nearly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modelwright.core.errors import BadInputError
from modelwright.core.records.language_artifact import RightAnswers, TaskScores
from modelwright.harness.language.quality import score_tokens
from modelwright.harness.language.task_files import Asked
from modelwright.harness.language.tokenizer import TextTokenizer
from modelwright.harness.language.workload import Choice, Question, Task
from modelwright.harness.results.statistics import wilson_interval
from modelwright.targets.language.contract import Generator

Costs = Sequence[Sequence[float]]
"""Of each question of a task, what each choice costs in nats."""


def encode_pair(tokenizer: TextTokenizer, context: str, continuation: str) -> tuple[tuple[int, ...], int]:
    """Returns the tokens of both, and the number of the first one that is the continuation's.

    White space at the end of the context goes to the continuation, where tokens expect it. Without a context the
    continuation follows the token that begins texts, or ends them where none does.
    """
    if not context:
        tokens = tokenizer.encode(continuation, special=False).tokens
        prefix = tokenizer.prefix_token
        return (tokens if prefix is None or tokens[:1] == (prefix,) else (prefix, *tokens)), 1
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    special = not tokenizer.begins_text(kept)
    whole = tokenizer.encode(kept + continuation, special=special).tokens
    return whole, len(tokenizer.encode(kept, special=special).tokens)


def ask(asked: Asked, tokenizer: TextTokenizer, longest: int) -> Question:
    """Returns a question as tokens.

    Args:
        asked: As text.
        tokenizer: The model's.
        longest: Tokens that the model reads at most.

    Raises:
        BadInputError: It is longer, or a choice has no token of its own.
    """
    choices = []
    for choice in asked.choices:
        tokens, start = encode_pair(tokenizer, asked.context, f"{asked.delimiter}{choice}")
        if len(tokens) > longest:
            raise BadInputError(
                f"{asked.where}: the question has {len(tokens):,} tokens; the model's context holds {longest:,}",
                hint="shorten the question",
            )
        if not 0 < start < len(tokens):
            raise BadInputError(
                f"{asked.where}: the tokenizer leaves no token to the choice {choice!r} or none to its question",
                hint="end the question where a word ends",
            )
        choices.append(Choice(tokens=tokens, start=start, characters=len(choice), size_bytes=len(choice.encode())))
    return Question(choices=tuple(choices), label=asked.label)


def cost_choices(generator: Generator, question: Question) -> tuple[float, ...]:
    """Returns what each choice costs after the question, in nats: -log p of all of its tokens."""
    costs = []
    for choice in question.choices:
        tokens = np.asarray(choice.tokens, dtype=np.int64)
        logits: Any = generator.score(tokens[None, :-1])[0]
        costs.append(float(score_tokens(logits[choice.start - 1 :], tokens[choice.start :])[0].sum()))
    return tuple(costs)


def compare_tasks(tasks: Sequence[Task], costs: Sequence[Costs], reference: Sequence[Costs]) -> tuple[TaskScores, ...]:
    """Returns what an artifact answers rightly, beside FP32."""
    return tuple(
        TaskScores(
            name=task.name,
            count=len(task.questions),
            total=task.total,
            whole=_compare(task, own, fp32, lambda _choice: 1),
            by_character=_compare(task, own, fp32, lambda choice: choice.characters),
            by_byte=_compare(task, own, fp32, lambda choice: choice.size_bytes),
            by_token=_compare(task, own, fp32, lambda choice: len(choice.tokens) - choice.start),
        )
        for task, own, fp32 in zip(tasks, costs, reference, strict=True)
    )


def _compare(task: Task, own: Costs, fp32: Costs, size: Callable[[Choice], int]) -> RightAnswers:
    right, right_fp32 = _find_right(task, own, size), _find_right(task, fp32, size)
    kept = sum(one and other for one, other in zip(right, right_fp32, strict=True))
    return RightAnswers(
        correct=sum(right),
        correct_fp32=sum(right_fp32),
        kept=kept,
        ci95=wilson_interval(sum(right), len(right)),
        kept_ci95=wilson_interval(kept, sum(right_fp32)),
    )


def _find_right(task: Task, costs: Costs, size: Callable[[Choice], int]) -> list[bool]:
    return [
        choose_by_likelihood(told, [size(choice) for choice in question.choices]) == question.label
        for question, told in zip(task.questions, costs, strict=True)
    ]


def choose_by_likelihood(costs: Sequence[float], sizes: Sequence[int]) -> int:
    """Returns the choice that costs the fewest nats for its size; the first of equal ones.

    Args:
        costs: Of each choice.
        sizes: What each is divided by; ones for the plain likelihood, which favours short choices.
    """
    return int(np.argmin(np.asarray(costs) / np.asarray(sizes)))
