"""What language models are built, judged and measured on, as tokens: the same for every artifact of a comparison."""

from __future__ import annotations

from modelwright.core.records.codec import Count, Record, Sha256
from modelwright.core.records.language_artifact import PromptSet, Texts

NEW_TOKENS = 20
LENGTHS = (32, 128)
EVALUATION_TOKENS = 2048


class Wanted(Record):
    """How much of what.

    Attributes:
        context: Tokens that the model reads at most.
        new_tokens: To generate of each prompt.
        lengths: Of prompts whose first token is timed, in tokens.
        texts: Judge on at most this many texts.
        tokens: Judge on at most this many predicted tokens.
    """

    context: Count
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


class Question(Record):
    """A question with choices.

    Attributes:
        context: Tokens of the question.
        choices: Of each choice, the tokens that follow.
        sizes: Bytes of each choice.
        label: Number of the right one.
    """

    context: tuple[Count, ...]
    choices: tuple[tuple[Count, ...], ...]
    sizes: tuple[Count, ...]
    label: Count


class Workload(Record):
    """All tokens of a comparison.

    Attributes:
        calibration: Rows of one length; empty where the texts are too few.
        tuning: Rows of one length, of other texts.
        evaluation: Texts that only judge.
        asked: What is generated from, of texts that neither calibrate nor tune.
        questions: With choices.
        described: For the manifest.
        evaluation_sha256: Of all that judges.
    """

    calibration: tuple[tuple[Count, ...], ...]
    tuning: tuple[tuple[Count, ...], ...]
    evaluation: tuple[Document, ...]
    asked: PromptSet
    questions: tuple[Question, ...]
    described: Texts
    evaluation_sha256: Sha256
