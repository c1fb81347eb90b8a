"""Texts with what the answer to each should be: one or a pair, whole or as words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.records.texts import TextInputs
from modelwright.core.samples.texts.labels import find_class, find_classes, find_number, find_tags
from modelwright.core.samples.texts.rows import Row, read_text, split_rows

_NAMES = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("sentence",),
)
"""What texts and pairs of texts are called in data sets."""
_WORDS = ("tokens", "words")
_SUCH_AS = '{"text": "...", "label": "..."}'
_SUCH_AS_WORDS = '{"tokens": ["...", "..."], "ner_tags": ["...", "..."]}'


@dataclass(frozen=True, kw_only=True)
class LabelledText:
    """One sample.

    Attributes:
        where: It stands, for errors.
        text: The text; words where the file gives them.
        pair: The second one of a pair; None for one text.
        label: Number of the class, or the number that the answer should be; None where the file does not say.
        labels: Of a model that answers several times: the class of each word, or 0 and 1 for each class; likewise.
    """

    where: str
    text: str | tuple[str, ...]
    pair: str | None = None
    label: float | None = None
    labels: tuple[int, ...] | None = None


def read_labelled(path: Path, model: TextInputs) -> list[LabelledText]:
    """Reads a file of texts: `.jsonl` or `.csv` with `text`, and where there are some `label` and `text_pair`; `.txt`.

    For a model of tokens a `.jsonl` may have `tokens` and `ner_tags` in their place.

    Args:
        path: A `.txt` holds a text a line.
        model: What the texts are for.

    Raises:
        BadInputError: No such file, not of a kind that is read, an entry without a text, a label that the model does
            not have, labels for some of the texts only, or no text at all.
    """
    content = read_text(path, _SUCH_AS)
    if path.suffix.casefold() == ".txt":
        lines = content.split("\n")
        texts = [
            LabelledText(where=f"{path}: line {number}", text=line.strip())
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
    else:
        texts = [_read_row(row, model) for row in split_rows(content, path, _SUCH_AS)]
    if not texts:
        raise BadInputError(f"{path} holds no text", hint=f"write lines such as {_SUCH_AS}")
    for what, are_there in (
        ("label", [each.label is not None or each.labels is not None for each in texts]),
        ("second text", [each.pair is not None for each in texts]),
        ("list of tokens", [isinstance(each.text, tuple) for each in texts]),
    ):
        if any(are_there) and not all(are_there):
            raise BadInputError(
                f"{texts[are_there.index(False)].where} has no {what}, and others have one",
                hint=f"give every text its {what}, or none",
            )
    return texts


def _read_row(row: Row, model: TextInputs) -> LabelledText:
    classes = model.classes or ()
    if model.task == "token classification" and any(name in row.values for name in _WORDS):
        words = _read_words(row)
        return LabelledText(where=row.where, text=words, labels=find_tags(row.values, len(words), row.where, classes))
    text, pair = _find_texts(row)
    made = LabelledText(where=row.where, text=text, pair=pair)
    match model.task:
        case "classification":
            return replace(made, label=find_class(row.values, row.where, classes))
        case "multi-label classification":
            return replace(made, labels=find_classes(row.values, row.where, classes))
        case "regression":
            return replace(made, label=find_number(row.values, row.where))
        case _:  # what a vector should be nobody says, nor which characters a tag is of
            return made


def _read_words(row: Row) -> tuple[str, ...]:
    words = next(row.values[name] for name in _WORDS if name in row.values)
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise BadInputError(
            f"{row.where}: tokens: expected a list of words, found {str(words)!r:.60}", hint=f"write {_SUCH_AS_WORDS}"
        )
    return tuple(words)


def _find_texts(row: Row) -> tuple[str, str | None]:
    """Returns the text of an entry, and the second one of a pair."""
    found = [names for names in _NAMES if _has_text(row.values, names[0])]
    found = [names for names in found if not any(names[0] == other[-1] and other != names for other in found)]
    if not found:
        told = ", ".join(map(str, row.values)) or "none"
        raise BadInputError(
            f"{row.where}: holds no text; what it holds is called: {told}",
            hint=f"call the text `text`, and what the answer should be `label`, as in {_SUCH_AS}",
        )
    stray = [names[0] for names in found[1:]]
    stray += [name for _, *rest in _NAMES for name in rest if _has_text(row.values, name) and name not in found[0]]
    if stray:
        named = " and ".join(dict.fromkeys((found[0][0], *stray)))
        raise BadInputError(
            f"{row.where}: {named}: which of them the model reads is not known",
            hint="call the one that it reads `text`, the second one of a pair `text_pair`, and take the others out",
        )
    first, second = found[0][0], found[0][-1]
    return row.values[first], row.values[second] if first != second and _has_text(row.values, second) else None


def _has_text(values: Mapping[str, Any], name: str) -> bool:
    return isinstance(values.get(name), str) and bool(values[name].strip())
