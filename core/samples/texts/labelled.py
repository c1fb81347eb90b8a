"""Texts with what the answer to each should be: pairs too, labels by name or by number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.records.texts import TextInputs
from modelwright.core.samples.texts.rows import Row, read_text, split_rows

_TEXTS = ("text", "sentence", "sentence1", "premise")
_SECONDS = ("text_pair", "sentence2", "hypothesis")
_LABEL = "label"
_SUCH_AS = '{"text": "...", "label": "..."}'
_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class LabelledText:
    """One sample.

    Attributes:
        where: It stands, for errors.
        text: The text.
        pair: The second one of a pair; None for one text.
        label: Number of the class, or the number that the answer should be; None where the file does not say.
    """

    where: str
    text: str
    pair: str | None = None
    label: float | None = None


def read_labelled(path: Path, model: TextInputs) -> list[LabelledText]:
    """Reads a file of texts: `.jsonl` or `.csv` with `text`, and where there are some `label` and `text_pair`; `.txt`.

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
        ("label", [each.label is not None for each in texts]),
        ("second text", [each.pair is not None for each in texts]),
    ):
        if any(are_there) and not all(are_there):
            raise BadInputError(
                f"{texts[are_there.index(False)].where} has no {what}, and others have one",
                hint=f"give every text its {what}, or none",
            )
    return texts


def _read_row(row: Row, model: TextInputs) -> LabelledText:
    text = _find_text(row.values, _TEXTS)
    if text is None:
        names = ", ".join(map(str, row.values)) or "none"
        raise BadInputError(
            f"{row.where}: holds no text; what it holds is called: {names}",
            hint=f"call the text `text`, and what the answer should be `label`, as in {_SUCH_AS}",
        )
    return LabelledText(
        where=row.where,
        text=text,
        pair=_find_text(row.values, _SECONDS),
        label=_read_label(row, model),
    )


def _find_text(values: Mapping[str, Any], names: Sequence[str]) -> str | None:
    found = (values[name] for name in names if isinstance(values.get(name), str))
    return next((text for text in found if text.strip()), None)


def _read_label(row: Row, model: TextInputs) -> float | None:
    """Returns the label of an entry; what a model of single tokens or of vectors should answer is not read."""
    value = row.values.get(_LABEL)
    if value is None or model.task not in ("classification", "regression"):
        return None
    if model.task == "regression":
        return _read_number(value, row.where)
    classes = model.classes or ()
    if isinstance(value, str) and value in classes:
        return classes.index(value)
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(classes):
        return value
    known = ", ".join(classes[:_SHOWN]) + (f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else "")
    raise BadInputError(
        f"{row.where}: the label {value!r:.60} is none of the model's",
        hint=f"give the name of a class as id2label in config.json has it, or its number: {known}",
    )


def _read_number(value: Any, where: str) -> float:
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
