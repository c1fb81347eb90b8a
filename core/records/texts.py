"""How texts became samples: what a program that serves the model has to do with its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from modelwright.core.records.codec import Count, Line, Record, read_record

TextTask = Literal["classification", "multi-label classification", "regression", "token classification", "embedding"]
Length = Annotated[int, Meta(ge=1, le=2**20, description="a number of tokens from 1 to 1,048,576")]

TEXTS_FILE = "texts.json"
"""Lies in a folder of samples that were made of texts, and holds `Texts`."""
TAGS, IGNORED = "target_tags", -100
"""What each token of a row is to be called, int64 [texts, tokens]; -100 is not counted: all but the first of a word."""
CLASS_SETS = "target_classes"
"""Which classes hold of a text, each by itself, int64 [texts, classes] of 0 and 1."""
TEXT_TOKENIZER = "tokenizer.json"
"""Lies beside it, and in each artifact: cuts and pads texts to rows as the model takes them."""


class TextInputs(Record):
    """What a model makes of texts, and takes of them.

    Attributes:
        task: Of the model.
        inputs: Names of its inputs, of `input_ids`, `attention_mask` and `token_type_ids`.
        classes: Names of its classes, in their order; None where it has none.
        vocabulary: Tokens that it knows.
        most_tokens: Of a row, at most.
    """

    task: TextTask
    inputs: tuple[Line, ...]
    classes: tuple[Line, ...] | None = None
    vocabulary: Count
    most_tokens: Length

    def describe_classes(self, shown: int = 4) -> str:
        """Returns for instance `0: cat, 1: dog`."""
        named = [f"{number}: {name}" for number, name in enumerate(self.classes or ())]
        if len(named) > shown:
            named = [*named[: shown - 1], "...", named[-1]]
        return ", ".join(named)


class Texts(Record):
    """Texts that were made into samples.

    Attributes:
        model: What takes them.
        length: Tokens of every row; shorter texts are padded, longer ones cut.
        longest: Tokens of the longest text, uncut.
        taken: Samples that were made.
        left: Texts that were not needed: a part of so many was chosen by a fixed seed.
        cut: Of the samples, texts that had more tokens than a row.
        pairs: Of the samples, pairs of texts.
        labelled: Whether each says what the answer should be.
        words: Of samples that say so word by word, words with a tag; null for all others.
        unseen: Of them, those that were cut, and so are not counted.
        bare_words: Whether words were given whose tokens are other ones than behind a space in a text.
    """

    model: TextInputs
    length: Length
    longest: Count
    taken: Count
    left: Count = 0
    cut: Count = 0
    pairs: Count = 0
    labelled: bool = False
    words: Count | None = None
    unseen: Count = 0
    bare_words: bool = False

    def tell(self, name: str) -> list[str]:
        """Returns what the user is to know, a sentence each.

        Args:
            name: Of the samples, as the user wrote it.
        """
        chosen = f" of {self.taken + self.left:,}, chosen by a fixed seed," if self.left else ""
        told = [
            f"{name}: {self.taken:,} texts{chosen} as rows of {self.length} tokens; the longest has {self.longest} "
            "(--max-length says otherwise)"
        ]
        if self.cut:
            told.append(f"{name}: {self.cut:,} texts are cut, for they have more than {self.length} tokens")
        if self.unseen:
            told.append(f"{name}: {self.unseen:,} of {self.words:,} words with a tag are cut, and not counted")
        if self.bare_words:
            told.append(
                f"{name}: words get no space before them, as in transformers; a model that was trained with "
                "add_prefix_space=True has it in its tokenizer: save that one beside it"
            )
        if self.model.classes is not None:
            told.append(
                f"{name}: labels are {self.model.describe_classes()}, as config.json says"
                if self.labelled
                else f"{name}: no labels: artifacts are held against FP32's answers, and accuracy is not known"
            )
        return told


def read_texts(samples: Path) -> Texts | None:
    """Returns how texts became the samples of a folder; None where they were none."""
    path = samples / TEXTS_FILE
    return read_record(Texts, path, what="the record of texts") if path.is_file() else None
