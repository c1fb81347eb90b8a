"""Texts become tokens, once, in a child process, before anything is built or measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_json, write_json
from modelwright.core.path_names import drop_folders
from modelwright.core.process.child import Progress
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.language_artifact import PromptSet, TextPart, Texts
from modelwright.core.samples.sample_set import SPLIT_SEED
from modelwright.harness.language.questions import ask
from modelwright.harness.language.task_files import Asked, TaskFile, read_task
from modelwright.harness.language.text_files import Entry, read_entries
from modelwright.harness.language.tokenizer import TextTokenizer, Tokenized
from modelwright.harness.language.workload import Document, Task, Wanted, Workload

PIECE_TOKENS = 512
"""Longer texts are cut: so that a book, too, has a part that calibrates and another that judges."""
ROW_TOKENS, CALIBRATION_ROWS, TUNING_ROWS = 256, 64, 8
"""16,384 tokens calibrate; GPTQ's authors take 128 rows of 2,048 for models a hundred times as large."""
ANSWERED_PROMPTS = 16
LEAST_JUDGED = 64
"""Tokens under which a perplexity says nothing."""
_RUN_TOKENS, _RUN_BYTES = 13, 52
_LOOSE = "questions"
"""What those are called that stand among texts."""
_OPENING_TOKENS = 32
"""Of a text that is no prompt, what is generated from."""


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A text or a part of one.

    Attributes:
        scored: Its tokens, the first of which is not predicted.
        prompt: Tokens to generate from.
        asked: Whether the user wrote it as a prompt.
        where: It stands, for errors.
    """

    scored: Tokenized
    prompt: tuple[int, ...]
    asked: bool
    where: str

    @property
    def predicted(self) -> int:
        return len(self.scored.tokens) - 1


def prepare_in_child(
    model: str,
    samples: str,
    evaluation: str | None,
    tasks: Sequence[str],
    wanted: dict[str, Any],
    out: str,
    progress: Progress,
) -> dict[str, Any]:
    """Tokenizes what calibrates, tunes and judges, and writes it as a `Workload`.

    Args:
        model: Folder with the tokenizer's files.
        samples: File of texts: a part calibrates, a part tunes, and a part is held back.
        evaluation: File of texts that only judge; None judges on what is held back.
        tasks: Task files with questions, which only judge.
        wanted: A `Wanted`: how much of what.
        out: The file to write.
        progress: Takes lines.

    Returns:
        The workload's `described`, for the manifest.

    Raises:
        BadInputError: A file cannot be read, holds too little, or a prompt does not fit the model.
        ToolchainMissingError: The tokenizers package is absent.
    """
    asked = decode(Wanted, wanted)
    progress("reading texts")
    tokenizer = TextTokenizer(Path(model), asked.vocabulary)
    given = read_entries(Path(samples))
    judging = None if evaluation is None else read_entries(Path(evaluation))
    files = [read_task(Path(task)) for task in tasks]
    progress("tokenizing texts")
    workload = _prepare(given, judging, tokenizer, asked, samples, evaluation, files)
    write_json(Path(out), encode(workload))
    described = encode(workload.described)
    assert isinstance(described, dict)
    return described


def prepare_prompts_in_child(model: str, samples: str, wanted: dict[str, Any], out: str, progress: Progress) -> None:
    """Tokenizes what is to be generated from alone, all of a file, and writes it as a `PromptSet`.

    Args:
        model: Folder with the tokenizer's files, such as an artifact.
        samples: File of texts.
        wanted: A `Wanted`.
        out: The file to write.
        progress: Takes lines.

    Raises:
        BadInputError: A file cannot be read, or a prompt does not fit the model.
        ToolchainMissingError: The tokenizers package is absent.
    """
    asked = decode(Wanted, wanted)
    progress("tokenizing texts")
    tokenizer = TextTokenizer(Path(model), asked.vocabulary)
    pieces = [piece for entry in read_entries(Path(samples)) for piece in _cut(entry, tokenizer)]
    write_json(Path(out), encode(_make_prompts(pieces, pieces, asked)))


def _prepare(
    given: Sequence[Entry],
    judging: Sequence[Entry] | None,
    tokenizer: TextTokenizer,
    asked: Wanted,
    samples: str,
    evaluation: str | None,
    tasks: Sequence[TaskFile],
) -> Workload:
    pieces = [piece for entry in given for piece in _cut(entry, tokenizer)]
    held, tuning, calibration = _split(pieces, 2 if judging is None else 4)
    source = samples if evaluation is None else evaluation
    judged = held if judging is None else [piece for entry in judging for piece in _cut(entry, tokenizer, whole=True)]
    judged = _limit(judged, asked)
    _require_enough(judged, source)
    documents = tuple(
        Document(tokens=piece.scored.tokens, size_bytes=piece.scored.size_after_first) for piece in judged
    )
    prompt_set = _make_prompts(held, [*held, *judged], asked)
    rows, tuning_rows = _pack(calibration, CALIBRATION_ROWS, asked.context), _pack(tuning, TUNING_ROWS, asked.context)
    made = tuple(_make_tasks(given if judging is None else judging, tasks, tokenizer, asked))
    return Workload(
        calibration=rows,
        tuning=tuning_rows,
        evaluation=documents,
        asked=prompt_set,
        tasks=made,
        described=Texts(
            calibration=_describe(samples, calibration),
            tuning=_describe(samples, tuning),
            evaluation=_describe(source, judged),
            repeated=find_repeated(documents, [*rows, *tuning_rows]),
        ),
        evaluation_sha256=hash_json(encode([documents, prompt_set.prompts, made, asked.new_tokens])),
    )


def find_repeated(documents: Sequence[Document], seen: Sequence[Sequence[int]]) -> float:
    """Returns which share of the tokens that judge stands in runs that also stand in other text.

    A run is of 13 tokens, as in GPT-3's report on such leaks, or of more where tokens are short.

    Args:
        documents: That judge.
        seen: Rows of tokens that calibrate or tune.
    """
    count = sum(len(document.tokens) for document in documents)
    size_bytes = sum(document.size_bytes for document in documents)
    length = max(_RUN_TOKENS, -(-_RUN_BYTES * count // max(1, size_bytes)))
    known: dict[int, set[tuple[int, ...]]] = {}
    repeated = 0
    for document in documents:
        own = min(length, len(document.tokens))  # a short text is repeated as a whole
        if own not in known:
            known[own] = {run for row in seen for run in _runs(row, own)}
        stop = 0
        for start, run in enumerate(_runs(document.tokens, own)):
            if run in known[own]:
                repeated += start + own - max(start, stop)
                stop = start + own
    return repeated / max(1, count)


def _runs(tokens: Sequence[int], length: int) -> Iterator[tuple[int, ...]]:
    return (tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1))


def _make_prompts(held: Sequence[_Piece], all_pieces: Sequence[_Piece], asked: Wanted) -> PromptSet:
    """Returns what is generated from: prompts where there are any, else how texts begin."""
    prompts = ([piece for piece in held if piece.asked] or held)[:ANSWERED_PROMPTS]
    for piece in prompts:
        _require_room(piece, asked)
    return PromptSet(
        prompts=tuple(piece.prompt for piece in prompts),
        openings=_open_prompts(all_pieces, asked),
        new_tokens=asked.new_tokens,
    )


def _cut(entry: Entry, tokenizer: TextTokenizer, *, whole: bool = False) -> list[_Piece]:
    """Returns an entry as pieces; a prompt or a conversation is one, whatever its length."""
    if entry.messages is not None:
        chat = tokenizer.encode_chat(entry.messages, entry.where)
        return [_make_piece(chat, chat.tokens, entry)]
    if entry.prompt is not None:
        prompt = tokenizer.encode(entry.prompt)
        end = entry.answer if entry.label is None else entry.choices[entry.label]
        scored = prompt if end is None else tokenizer.encode(f"{entry.prompt} {end}")
        return [_make_piece(scored, prompt.tokens, entry)]
    assert entry.text is not None
    text = tokenizer.encode(entry.text)
    length = len(text.tokens) if whole else PIECE_TOKENS
    parts = [text.part(start, length) for start in range(0, len(text.tokens), max(1, length))]
    return [_make_piece(part, part.tokens[:_OPENING_TOKENS], entry) for part in parts or [text]]


def _make_piece(scored: Tokenized, prompt: Sequence[int], entry: Entry) -> _Piece:
    if not prompt:
        raise BadInputError(f"{entry.where}: the tokenizer makes no token of it", hint="leave it out")
    return _Piece(scored=scored, prompt=tuple(prompt), asked=entry.is_prompt, where=entry.where)


def _split(pieces: Sequence[_Piece], part: int) -> tuple[list[_Piece], list[_Piece], list[_Piece]]:
    """Returns what is held back, what tunes and what calibrates: one of `part`, an eighth, and the rest."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(pieces))
    shuffled = [pieces[int(index)] for index in order]
    held = max(1, len(shuffled) // part)
    tuning = min(len(shuffled) - held, max(1, len(shuffled) // 8))
    return shuffled[:held], shuffled[held : held + tuning], shuffled[held + tuning :]


def _limit(pieces: Sequence[_Piece], asked: Wanted) -> list[_Piece]:
    """Returns the first pieces, up to so many and so many predicted tokens; the last one is cut."""
    kept: list[_Piece] = []
    left = asked.tokens
    for piece in pieces[: asked.texts]:
        if piece.predicted > 0 and left > 0:
            kept.append(replace(piece, scored=piece.scored.part(0, left + 1)))
            left -= kept[-1].predicted
    return kept


def _require_enough(judged: Sequence[_Piece], source: str) -> None:
    count = sum(piece.predicted for piece in judged)
    if count < LEAST_JUDGED:
        raise BadInputError(
            f"{source}: {count} tokens are left to judge on, and {LEAST_JUDGED} are needed at least",
            hint="give more text, or other text that judges by --eval; 2,000 tokens tell INT8 and INT4 apart",
        )


def _require_room(piece: _Piece, asked: Wanted) -> None:
    if len(piece.prompt) + asked.new_tokens > asked.context:
        raise BadInputError(
            f"{piece.where}: the prompt has {len(piece.prompt):,} tokens, and {asked.new_tokens} more are generated; "
            f"the model's context holds {asked.context:,}",
            hint="shorten the prompt, or generate less by --new-tokens",
        )


def _open_prompts(pieces: Sequence[_Piece], asked: Wanted) -> tuple[tuple[int, ...], ...]:
    """Returns a prompt of each wanted length, as far as the texts and the context reach."""
    stream = [token for piece in pieces for token in piece.scored.tokens]
    longest = min(len(stream), asked.context - 1)
    return tuple(tuple(stream[:length]) for length in asked.lengths if length <= longest)


def _make_tasks(
    entries: Sequence[Entry], files: Sequence[TaskFile], tokenizer: TextTokenizer, asked: Wanted
) -> Iterator[Task]:
    """Yields the questions that stand among texts as one task, and those of task files."""
    loose = [
        Asked(where=entry.where, context=entry.prompt, choices=entry.choices, label=entry.label)
        for entry in entries
        if entry.prompt is not None and entry.label is not None
    ]
    for file in [TaskFile(name=_LOOSE, questions=tuple(loose)), *files] if loose else files:
        taken = file.questions[: asked.texts]
        questions = tuple(ask(each, tokenizer, asked.context) for each in taken)
        yield Task(name=file.name, questions=questions, total=len(file.questions))


def _pack(pieces: Sequence[_Piece], rows: int, context: int) -> tuple[tuple[int, ...], ...]:
    """Returns the tokens of pieces one after the other, in rows of one length."""
    stream = [token for piece in pieces for token in piece.scored.tokens]
    length = min(ROW_TOKENS, context, len(stream))
    count = 0 if length == 0 else min(rows, len(stream) // length)
    return tuple(tuple(stream[row * length : (row + 1) * length]) for row in range(count))


def _describe(path: str, pieces: Sequence[_Piece]) -> TextPart | None:
    if not pieces:
        return None
    tokens = [piece.scored.tokens for piece in pieces]
    return TextPart(
        path=drop_folders(path), texts=len(pieces), tokens=sum(map(len, tokens)), sha256=hash_json(encode(tokens))
    )
