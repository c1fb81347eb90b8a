"""Holds what an artifact writes against what FP32 writes, in the process that has it loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.files import read_json, write_json
from modelwright.core.mapped import create_mapped
from modelwright.core.process.child import Progress
from modelwright.core.records.codec import Amount, Count, Record, decode, encode
from modelwright.core.records.language_artifact import Answers, Decoding, Estimate, TaskScores
from modelwright.harness.language.decoding import judge_decoding, plan_decoding, take_decoding
from modelwright.harness.language.generating import generate
from modelwright.harness.language.quality import (
    Floats,
    Integers,
    bits_per_byte,
    divergences,
    estimate_increase,
    estimate_mean,
    estimate_of_few,
    estimate_share,
    log_probabilities,
    perplexity,
    plan_spans,
    score_tokens,
    similarity,
)
from modelwright.harness.language.questions import compare_tasks, cost_choices
from modelwright.harness.language.workload import Question, Workload
from modelwright.harness.results.statistics import wilson_interval
from modelwright.targets.language.contract import Generator

WINDOW = 512
"""Tokens that are read at once; each is predicted from half as many at least, but at the start of a text."""
_POSITIONS = 1024
_MOST_BYTES = 2**29
"""Of FP32's distributions, which are kept in a file: with 150,000 words, 900 positions."""
_SCORES, _DISTRIBUTIONS, _WRITTEN, _ROWS = "scores.npz", "distributions.npy", "written.json", "rows.npz"


class Written(Record):
    """What an artifact wrote.

    Attributes:
        answers: To each prompt, in tokens.
        costs: Of each task and question, what each choice costs in nats.
    """

    answers: tuple[tuple[Count, ...], ...]
    costs: tuple[tuple[tuple[Amount, ...], ...], ...]


class Judgement(Record):
    """How an artifact's text follows FP32's; see `LanguageProof`."""

    tokens: Count
    text_bytes: Count
    window: Count
    perplexity: float
    perplexity_fp32: float
    increase: Estimate
    bits_per_byte: float
    bits_per_byte_fp32: float
    divergence: Estimate
    divergence_positions: Count
    agreement: Estimate
    decoding: Decoding
    answers: Answers | None
    tasks: tuple[TaskScores, ...]


@dataclass(frozen=True, kw_only=True)
class _Scored:
    costs: Floats
    tops: Integers


def take_reference(generator: Generator, workload: Workload, context: int, folder: Path, tell: Progress) -> Judgement:
    """Writes what FP32 makes of a workload: costs, likeliest tokens, distributions at some positions, answers.

    Args:
        generator: FP32.
        workload: What is judged on.
        context: Tokens that the model reads at most.
        folder: To write into.
        tell: Takes lines.

    Returns:
        What others will be held against, held against itself: it loses nothing.

    Raises:
        BuildFailedError: Its logits are not numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    positions: Integers | None = None
    file: Any = None

    def keep(numbers: Integers, logits: Any) -> None:
        nonlocal positions, file
        if positions is None:
            positions = _choose_positions(workload, logits.shape[-1])
            shape = (len(positions), logits.shape[-1])
            path = folder / _DISTRIBUTIONS
            file = create_mapped(path, np.float32, shape)
        kept, rows = _find_kept(positions, numbers)
        file[kept] = log_probabilities(logits[rows])

    scored = _score(generator, workload, context, keep, tell)
    file.flush()
    plan = plan_decoding(workload.evaluation, context)
    read = take_decoding(generator, plan)
    decoding = judge_decoding(generator, plan, read, is_reference=True)
    written = _write(generator, workload, tell)
    np.savez(folder / _ROWS, *read)
    np.savez(folder / _SCORES, costs=scored.costs, tops=scored.tops)
    write_json(folder / _WRITTEN, encode(written))
    assert positions is not None
    return _conclude(workload, context, (scored, scored), np.zeros(len(positions)), decoding, (written, written))


def judge(generator: Generator, workload: Workload, context: int, folder: Path, tell: Progress) -> Judgement:
    """Compares an artifact with what `take_reference` wrote.

    Args:
        generator: The artifact.
        workload: The same that FP32 was taken on.
        context: Tokens that the model reads at most.
        folder: That `take_reference` wrote into.
        tell: Takes lines.

    Raises:
        BuildFailedError: Its logits are not numbers, or of another vocabulary.
    """
    with np.load(folder / _SCORES) as arrays:
        reference = _Scored(costs=arrays["costs"], tops=arrays["tops"])
    distributions = np.load(folder / _DISTRIBUTIONS, mmap_mode="r")
    positions = _choose_positions(workload, distributions.shape[-1])
    found = np.empty(len(positions))

    def compare(numbers: Integers, logits: Any) -> None:
        if logits.shape[-1] != distributions.shape[-1]:
            raise BuildFailedError(
                f"it has logits of {logits.shape[-1]:,} words, and FP32 has {distributions.shape[-1]:,}",
                hint="report this: the target built another model",
            )
        kept, rows = _find_kept(positions, numbers)
        found[kept] = divergences(distributions[kept], logits[rows])

    scored = _score(generator, workload, context, compare, tell)
    fp32 = decode(Written, read_json(folder / _WRITTEN, "what FP32 wrote"))
    tell("reading token by token")
    with np.load(folder / _ROWS) as arrays:
        decoding = judge_decoding(generator, plan_decoding(workload.evaluation, context), list(arrays.values()))
    written = _write(generator, workload, tell)
    return _conclude(workload, context, (scored, reference), found, decoding, (written, fp32))


def _conclude(
    workload: Workload,
    context: int,
    scored_both: tuple[_Scored, _Scored],
    found: Floats,
    decoding: Decoding,
    written_both: tuple[Written, Written],
) -> Judgement:
    """Returns the figures of an artifact's scores, divergences and answers beside FP32's, which come second."""
    (scored, reference), (written, fp32) = scored_both, written_both
    size_bytes = sum(document.size_bytes for document in workload.evaluation)
    return Judgement(
        tokens=len(scored.costs),
        text_bytes=size_bytes,
        window=_choose_window(context),
        perplexity=perplexity(scored.costs),
        perplexity_fp32=perplexity(reference.costs),
        increase=estimate_increase(scored.costs, reference.costs),
        bits_per_byte=bits_per_byte(scored.costs, size_bytes),
        bits_per_byte_fp32=bits_per_byte(reference.costs, size_bytes),
        divergence=estimate_mean(found),
        divergence_positions=len(found),
        agreement=estimate_share(scored.tops == reference.tops),
        decoding=decoding,
        answers=_compare_answers(written, fp32, workload.asked.new_tokens),
        tasks=compare_tasks(workload.tasks, written.costs, fp32.costs),
    )


def _score(generator: Generator, workload: Workload, context: int, look: Any, tell: Progress) -> _Scored:
    """Scores all texts; `look` gets the number of each predicted token and its logits."""
    costs, tops = [], []
    count = 0
    window = _choose_window(context)
    for index, document in enumerate(workload.evaluation, start=1):
        tell(f"reading text {index} of {len(workload.evaluation)}")
        tokens = np.asarray(document.tokens, dtype=np.int64)
        for span in plan_spans(len(tokens), window, max(1, window // 2)):
            logits = generator.score(tokens[None, span.start : span.stop])[0]
            counted = logits[span.first - span.start - 1 : span.stop - span.start - 1]
            numbers = np.arange(count, count + len(counted), dtype=np.int64)
            try:
                look(numbers, counted)
                span_costs, span_tops = score_tokens(counted, tokens[span.first : span.stop])
            except ValueError as error:
                raise _refuse(error) from error
            costs.append(span_costs)
            tops.append(span_tops)
            count += len(counted)
    return _Scored(costs=np.concatenate(costs), tops=np.concatenate(tops))


def _choose_window(context: int) -> int:
    return min(WINDOW, context)


def _choose_positions(workload: Workload, words: int) -> Integers:
    """Returns the predicted tokens at which whole distributions are compared: evenly spread, as many as fit a file."""
    total = sum(len(document.tokens) - 1 for document in workload.evaluation)
    count = max(1, min(total, _POSITIONS, _MOST_BYTES // (4 * words)))
    return np.unique(np.linspace(0, total - 1, count).astype(np.int64))


def _find_kept(positions: Integers, numbers: Integers) -> tuple[slice, Integers]:
    """Returns which of the chosen positions lie in a run of numbers, and where in it."""
    start, stop = np.searchsorted(positions, [numbers[0], numbers[-1] + 1])
    return slice(int(start), int(stop)), positions[start:stop] - numbers[0]


def _write(generator: Generator, workload: Workload, tell: Progress) -> Written:
    answers = []
    for index, prompt in enumerate(workload.asked.prompts, start=1):
        tell(f"answering prompt {index} of {len(workload.asked.prompts)}")
        answers.append(tuple(generate(generator, [prompt], workload.asked.new_tokens).tokens[0].tolist()))
    costs = []
    for task in workload.tasks:
        tell(f"answering {len(task.questions)} questions of {task.name}")
        costs.append(tuple(_cost(generator, question) for question in task.questions))
    return Written(answers=tuple(answers), costs=tuple(costs))


def _cost(generator: Generator, question: Question) -> tuple[float, ...]:
    try:
        return cost_choices(generator, question)
    except ValueError as error:
        raise _refuse(error) from error


def _refuse(error: ValueError) -> BuildFailedError:
    return BuildFailedError(f"it writes no text: {error}", hint="leave this target out, or report it")


def _compare_answers(written: Written, fp32: Written, new_tokens: int) -> Answers | None:
    pairs: Sequence[tuple[Any, Any]] = list(zip(written.answers, fp32.answers, strict=True))
    if not pairs:
        return None
    exact = sum(answer == reference for answer, reference in pairs)
    return Answers(
        count=len(pairs),
        new_tokens=new_tokens,
        exact=exact,
        exact_ci95=wilson_interval(exact, len(pairs)),
        similarity=estimate_of_few([similarity(answer, reference) for answer, reference in pairs]),
    )
