"""What the answer to a text should be, as a file says it: a class, several of them, a number, or a tag a word."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.records.texts import IGNORED

_LABEL = "label"
_CLASS_SETS = ("labels", _LABEL)
_TAGS = ("ner_tags", "tags", "labels", "pos_tags", "chunk_tags")
_SHOWN = 6


def find_class(values: Mapping[str, Any], where: str, classes: Sequence[str]) -> int | None:
    """Returns the number of the class that an entry names; None where it names none.

    Raises:
        BadInputError: The model has no such class.
    """
    value = values.get(_LABEL)
    return None if value is None else _read_class(value, where, classes)


def find_number(values: Mapping[str, Any], where: str) -> float | None:
    """Returns the number that an entry says; None where it says none.

    Raises:
        BadInputError: It is no number.
    """
    value = values.get(_LABEL)
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadInputError(
            f"{where}: the label {value!r:.60} is no number, which is what this model answers with",
            hint="give the number that the answer should be, or no labels",
        )
    return number


def find_classes(values: Mapping[str, Any], where: str, classes: Sequence[str]) -> tuple[int, ...] | None:
    """Returns 0 or 1 for each class, as an entry says which hold; None where it says nothing.

    Args:
        values: With `labels`: names or numbers of those that hold, or 0 and 1 for each class, as in training.
        where: It stands, for errors.
        classes: Of the model.

    Raises:
        BadInputError: The model has no such class, or one is named twice.
    """
    value = next((values[name] for name in _CLASS_SETS if values.get(name) is not None), None)
    if value is None:
        return None
    named = value if isinstance(value, list) else [value]
    is_vector = len(named) == len(classes) and all(isinstance(each, int | float) and each in (0, 1) for each in named)
    if is_vector and sorted(named) == [0, 1] and not any(isinstance(each, float | bool) for each in named):
        raise BadInputError(
            f"{where}: the labels {named} may be the numbers of both classes, or 0 and 1 for each",
            hint="give the names of the classes that hold, as id2label in config.json has them",
        )
    if is_vector and (len(named) > 1 or isinstance(named[0], float | bool)):
        return tuple(int(each) for each in named)
    found = [_read_class(each, where, classes) for each in named]
    if len(set(found)) < len(found):
        raise BadInputError(
            f"{where}: the labels {named!r:.60} name a class twice", hint="name each class that holds once"
        )
    return tuple(int(number in found) for number in range(len(classes)))


def find_tags(values: Mapping[str, Any], count: int, where: str, classes: Sequence[str]) -> tuple[int, ...] | None:
    """Returns the class of each word, `IGNORED` for what is not counted; None where the entry says nothing.

    Args:
        values: With `ner_tags`, `tags`, `pos_tags`, `chunk_tags` or `labels`: a name or number a word.
        count: Of words.
        where: It stands, for errors.
        classes: Of the model.

    Raises:
        BadInputError: Not one a word, no class of the model, or several lists of which none is known to be the one.
    """
    names = [name for name in _TAGS if values.get(name) is not None]
    if not names:
        return None
    if len(names) > 1:
        raise BadInputError(
            f"{where}: {' and '.join(names)}: which of them the model answers with is not known",
            hint="leave the one that it was trained on, and take the others out",
        )
    tags = values[names[0]]
    if not isinstance(tags, list) or len(tags) != count:
        found = f"{len(tags)}" if isinstance(tags, list) else "no list"
        raise BadInputError(
            f"{where}: {names[0]}: expected {count} tags, one a token, found {found}",
            hint="give a name or number for each token; -100 for one that is not to be counted",
        )
    return tuple(IGNORED if _is_ignored(tag) else _read_class(tag, where, classes) for tag in tags)


def _is_ignored(tag: Any) -> bool:
    return isinstance(tag, int) and tag == IGNORED


def _read_class(value: Any, where: str, classes: Sequence[str]) -> int:
    if isinstance(value, str) and value in classes:
        return classes.index(value)
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(classes):
        return value
    known = ", ".join(classes[:_SHOWN]) + (f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else "")
    raise BadInputError(
        f"{where}: the label {value!r:.60} is none of the model's",
        hint=f"give the name of a class as id2label in config.json has it, or its number: {known}",
    )
