"""What language models are built, judged and measured on, as tokens: the same for every artifact of a comparison."""

from __future__ import annotations

from modelwright.core.records.codec import Count, Line, Record, Sha256
from modelwright.core.records.language_artifact import PromptSet, Texts

NEW_TOKENS = 20
LENGTHS = (32, 128)
EVALUATION_TOKENS = 2048
TOKENIZING_LIMIT_S = 3600.0
"""For all texts of a run: a gigabyte of them takes minutes. A tokenizer is a program that came with the model."""


class Wanted(Record):
    """How much of what.

    Attributes:
        context: Tokens that the model reads at most.
        vocabulary: Tokens that it knows.
        new_tokens: To generate of each prompt.
        lengths: Of prompts whose first token is timed, in tokens.
        texts: Judge on at most this many texts, and this many questions of each task.
        tokens: Judge on at most this many predicted tokens.
    """

    context: Count
    vocabulary: Count
    new_tokens: Count = NEW_TOKENS
    lengths: tuple[Count, ...] = LENGTHS
    texts: Count = 512
    tokens: Count = EVALUATION_TOKENS


class Document(Record):
    """A text to score.

    Attributes:
        tokens: All of them; the first is not predicted.
        size_bytes: Of the others, in UTF-8.
    """

    tokens: tuple[Count, ...]
    size_bytes: Count


class Choice(Record):
    """A choice after its question.

    Attributes:
        tokens: Of both.
        start: Number of the first token that counts for the choice.
        characters: Of the choice's text.
        size_bytes: Of the choice's text in UTF-8.
    """

    tokens: tuple[Count, ...]
    start: Count
    characters: Count
    size_bytes: Count


class Question(Record):
    """A question with choices.

    Attributes:
        choices: Two or more.
        label: Number of the right one.
    """

    choices: tuple[Choice, ...]
    label: Count


class Task(Record):
    """Questions of one kind.

    Attributes:
        name: For people.
        questions: That are asked.
        total: That its file holds.
    """

    name: Line
    questions: tuple[Question, ...]
    total: Count


class Workload(Record):
    """All tokens of a comparison.

    Attributes:
        calibration: Rows of one length; empty where the texts are too few.
        tuning: Rows of one length, of other texts.
        evaluation: Texts that only judge.
        asked: What is generated from, of texts that neither calibrate nor tune.
        tasks: Questions with choices.
        described: For the manifest.
        evaluation_sha256: Of all that judges.
    """

    calibration: tuple[tuple[Count, ...], ...]
    tuning: tuple[tuple[Count, ...], ...]
    evaluation: tuple[Document, ...]
    asked: PromptSet
    tasks: tuple[Task, ...]
    described: Texts
    evaluation_sha256: Sha256
