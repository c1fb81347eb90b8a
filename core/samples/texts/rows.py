"""Files of texts as they lie on disk: `.jsonl`, `.csv` and `.txt`, read whole and bounded."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError

SUFFIXES = (".jsonl", ".csv", ".txt")
_LARGEST_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Row:
    """An entry of a file.

    Attributes:
        where: File and line, for errors.
        values: By name; without those that are empty in a `.csv`.
    """

    where: str
    values: Mapping[str, Any]


def is_text_file(path: str | Path) -> bool:
    """Whether a name is that of a file of texts."""
    return Path(path).suffix.casefold() in SUFFIXES


def read_text(path: Path, such_as: str) -> str:
    """Returns what a file of texts holds.

    Args:
        path: Of the file.
        such_as: What a line of it is to be, for hints.

    Raises:
        BadInputError: No such file, not of a kind that is read, too large, or not UTF-8.
    """
    if not is_text_file(path):
        raise BadInputError(f"{path} is no file of texts, which is {', '.join(SUFFIXES)}", hint=f"write {such_as}")
    try:
        if not path.is_file():
            raise BadInputError(f"no such file: {path} (texts)", hint="check the path")
        if path.stat().st_size > _LARGEST_BYTES:
            raise BadInputError(
                f"{path} has {path.stat().st_size / 1e6:.0f} MB; files of texts are read up to 64 MB",
                hint="give a part of it: a thousand texts calibrate and judge",
            )
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path} is not UTF-8 text (byte {error.start})", hint="save it as UTF-8") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}", hint="check the path") from error


def split_rows(text: str, path: Path, such_as: str, *, bare: str = "text") -> list[Row]:
    """Returns the entries of a `.jsonl` or a `.csv`.

    Args:
        text: Of the file.
        path: Of it.
        such_as: What a line of it is to be, for hints.
        bare: Name of what a line of `.jsonl` is that is a text and no object.

    Raises:
        BadInputError: It is not of its kind.
    """
    return _split_csv(text, path) if path.suffix.casefold() == ".csv" else _split_jsonl(text, path, such_as, bare)


def _split_csv(text: str, path: Path) -> list[Row]:
    try:
        rows = list(open_table(text))
    except csv.Error as error:
        raise BadInputError(f"{path} is not a .csv: {error}", hint="quote texts that hold commas or lines") from error
    # Cells beyond the header lie under None, and missing ones are None.
    return [
        Row(where=f"{path}: row {number}", values={k: v for k, v in row.items() if isinstance(k, str) and v})
        for number, row in enumerate(rows, start=2)
    ]


def open_table(text: str) -> csv.DictReader[str]:
    """Returns what reads the rows of a `.csv`, whose cells may be as long as the file."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    return csv.DictReader(io.StringIO(text), strict=True)


def require_whole_characters(values: Any, where: str) -> None:
    """Refuses halves of characters, which JSON can spell and no tokenizer reads.

    Raises:
        BadInputError: Such as of an emoji that was cut in two.
    """
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadInputError(
            f"{where}: holds half of a character, {error.object[error.start]!a}",
            hint="cut texts between characters; or leave it out",
        ) from error


def _split_jsonl(text: str, path: Path, such_as: str, bare: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInputError(f"{where}: not JSON: {error}", hint=f"write one object a line, {such_as}") from error
        require_whole_characters(values, where)
        if isinstance(values, str):
            values = {bare: values}
        if not isinstance(values, dict):
            raise BadInputError(
                f"{where}: expected an object, found a {type(values).__name__}", hint=f"write {such_as}"
            )
        rows.append(Row(where=where, values=values))
    return rows
