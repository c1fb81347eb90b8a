"""Labelled texts: a folder with `train` and `test`, each a .tsv, .csv or .jsonl file with a text and a label a row."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError

SUFFIXES = (".tsv", ".csv", ".jsonl")
TEXT_COLUMNS = ("text", "sentence", "question")
LABEL_COLUMN = "label"
HINT = "a folder with train and test, each .tsv, .csv or .jsonl, with a column `text` or `sentence` and one `label`"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Texts of one part.

    Attributes:
        path: Of the file.
        texts: In its order.
        labels: As they stand in the file.
    """

    path: Path
    texts: tuple[str, ...]
    labels: tuple[str, ...]


def find_part(folder: Path, name: str) -> Path:
    """Returns the file of a part.

    Args:
        folder: Of the data.
        name: `train` or `test`.

    Raises:
        BadInputError: The folder or the file is missing.
    """
    if not folder.is_dir():
        raise BadInputError(f"the data's folder {folder} is not there", hint=HINT)
    for suffix in SUFFIXES:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path
    raise BadInputError(f"{folder} has no {name} ({', '.join(name + suffix for suffix in SUFFIXES)})", hint=HINT)


def read_part(folder: Path, name: str) -> Labelled:
    """Reads the texts and labels of a part.

    Args:
        folder: Of the data.
        name: `train` or `test`.

    Raises:
        BadInputError: It cannot be read, has no labels, or no rows.
    """
    path = find_part(folder, name)
    try:
        rows = _read_rows(path)
    except (OSError, ValueError, csv.Error) as error:
        raise BadInputError(f"{path} cannot be read: {error}", hint=HINT) from error
    if not rows:
        raise BadInputError(f"{path} has no rows", hint=HINT)
    columns = [column for column in TEXT_COLUMNS if column in rows[0]]
    if not columns or LABEL_COLUMN not in rows[0]:
        wanted = f"{' or '.join(TEXT_COLUMNS)} for the text" if not columns else f"{LABEL_COLUMN} for the labels"
        raise BadInputError(
            f"{path} has the columns {', '.join(map(str, rows[0]))}, and none called {wanted}", hint=HINT
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get(columns[0]), str) or row.get(LABEL_COLUMN) in (None, ""):
            raise BadInputError(f"{path}: row {number} has no text or no label", hint="complete it, or take it out")
    return Labelled(
        path=path,
        texts=tuple(row[columns[0]] for row in rows),
        labels=tuple(str(row[LABEL_COLUMN]) for row in rows),
    )


def _read_rows(path: Path) -> list[Mapping[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no object")
        return rows
    lines = text.splitlines(keepends=True)
    if path.suffix == ".tsv":  # quotes are part of the text, as in the data sets that come so
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return list(csv.DictReader(lines))


def number_classes(train: Labelled, test: Labelled) -> dict[str, int]:
    """Returns label -> class: labels that are numbers in their order, others by name.

    Raises:
        BadInputError: There is one class only, or the test has one that the training lacks.
    """
    names = sorted(
        set(train.labels), key=lambda label: (not label.isdigit(), int(label) if label.isdigit() else 0, label)
    )
    unknown = sorted(set(test.labels) - set(names))
    if unknown:
        raise BadInputError(
            f"{test.path} has the label {unknown[0]}, which {train.path} has not",
            hint="give each class examples in both",
        )
    if len(names) < 2:
        raise BadInputError(
            f"all texts of {train.path} have the label {names[0]}", hint="give texts of two classes or more"
        )
    return {name: number for number, name in enumerate(names)}
