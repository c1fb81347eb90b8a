"""Declarative checking of TOML tables, with errors that name the file and the dotted key."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modelwright.core.errors import BadInputError

Kind = Literal["text", "regex", "integer", "number", "texts"]

_KIND_WORDS: Mapping[Kind, str] = {
    "text": "a text",
    "regex": "a regular expression",
    "integer": "a whole number",
    "number": "a number",
    "texts": "a list of texts",
}


@dataclass(frozen=True, kw_only=True)
class Key:
    """What one key of a table may hold.

    Attributes:
        kind: The value's type.
        required: Whether the key must be there.
        above: The value must be greater.
        at_least: The value must not be smaller.
        at_most: The value must not be greater.
        choices: The only values allowed, of a text or of a list's items.
        pattern: What a text, or each item of a list, must match in full.
        such_as: An example, shown in the error.
        together_with: Another key of the same table that must accompany this one.
        hint: What to do when the value is wrong or missing.
    """

    kind: Kind
    required: bool = True
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[object, ...] = ()
    pattern: str | None = None
    such_as: str | None = None
    together_with: str | None = None
    hint: str | None = None

    def expectation(self) -> str:
        """Says in words what a value must be."""
        words = _KIND_WORDS[self.kind]
        if self.choices:
            words = ("items of " if self.kind == "texts" else "one of ") + ", ".join(map(str, self.choices))
        bounds = (("greater than", self.above), ("at least", self.at_least), ("at most", self.at_most))
        limits = " and ".join(f"{word} {limit:g}" for word, limit in bounds if limit is not None)
        example = f" such as {self.such_as}" if self.such_as else ""
        return f"{words}{' ' if limits else ''}{limits}{example}"

    def accepts(self, value: object) -> bool:
        """Whether a TOML value is of the right type and within the limits."""
        return self._is_of_kind(value) and self._is_allowed(value) and self._is_within(value)

    def _is_of_kind(self, value: object) -> bool:
        # bool is a subclass of int: `cores = true` must not pass as 1.
        if isinstance(value, bool):
            return False
        match self.kind:
            case "text":
                return isinstance(value, str) and bool(value.strip())
            case "regex":
                return isinstance(value, str) and bool(value) and _compiles(value)
            case "integer":
                return isinstance(value, int)
            case "number":
                return isinstance(value, int | float) and math.isfinite(value)
            case "texts":
                return isinstance(value, list) and all(isinstance(item, str) and item for item in value)

    def _is_allowed(self, value: object) -> bool:
        items = value if isinstance(value, list) else [value]
        if self.choices and not all(item in self.choices for item in items):
            return False
        return self.pattern is None or all(re.fullmatch(self.pattern, str(item)) for item in items)

    def _is_within(self, value: object) -> bool:
        if not isinstance(value, int | float):
            return True
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
        )


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a table may hold.

    Attributes:
        entries: Its keys and the tables in it.
        required: Whether the table must be there.
        many: Whether it is an array of tables (`[[accelerators]]`).
    """

    entries: Mapping[str, Key | Table]
    required: bool = False
    many: bool = False


def read_toml(path: Path, *, what: str) -> dict[str, Any]:
    """Reads a TOML file.

    Args:
        path: The file.
        what: What the file is to the reader, such as `profile`; begins the messages.

    Raises:
        BadInputError: The file cannot be read or is not TOML; the message holds the line.
    """
    if path.exists() and not path.is_file():
        raise BadInputError(f"{what} {path}: cannot be read: it is not a file", hint="check the path")
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise BadInputError(
            f"{what} {path}: cannot be read: {error.strerror or error}", hint="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{what} {path}: expected UTF-8 text, found another encoding at byte {error.start}",
            hint="save the file as UTF-8",
        ) from error
    except (RecursionError, tomllib.TOMLDecodeError) as error:
        raise BadInputError(
            f"{what} {path}: not valid TOML: {error}",
            hint="texts need quotes, tables look like [power]; see https://toml.io",
        ) from error


def check_table(data: object, table: Table, *, where: str, key: str = "") -> None:
    """Checks a table and everything in it.

    Args:
        data: What the TOML parser returned.
        table: What is allowed.
        where: Begins the messages: what the file is, and its path.
        key: The table's own dotted key; empty for the whole file.

    Raises:
        BadInputError: At the first key that is unknown, missing or wrong.
    """
    if not isinstance(data, dict):
        raise BadInputError(
            f"{where}: {key}: expected a table, found {data!r}", hint=f"write it as [{key}] with keys below"
        )
    for name in data:
        if name not in table.entries:
            _refuse_unknown(name, table.entries, where=where, dotted=_join(key, name))
    for name, entry in table.entries.items():
        dotted = _join(key, name)
        if name not in data:
            if entry.required:
                _refuse_missing(entry, where=where, dotted=dotted)
        elif isinstance(entry, Key):
            _check_key(data, name, entry, where=where, dotted=dotted)
        elif entry.many:
            _check_many(data[name], entry, where=where, dotted=dotted)
        else:
            check_table(data[name], entry, where=where, key=dotted)


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns a question that offers the names close to a mistyped one; empty if none is."""
    import difflib  # only needed on the way to an error, and slow to import

    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else ""


def _check_key(data: Mapping[str, Any], name: str, key: Key, *, where: str, dotted: str) -> None:
    if not key.accepts(data[name]):
        raise BadInputError(f"{where}: {dotted}: expected {key.expectation()}, found {data[name]!r}", hint=key.hint)
    if key.together_with and key.together_with not in data:
        companion = dotted.removesuffix(name) + key.together_with
        raise BadInputError(
            f"{where}: {companion}: missing; {dotted} needs it", hint=f"add {key.together_with}, or drop {name}"
        )


def _check_many(value: object, table: Table, *, where: str, dotted: str) -> None:
    if not isinstance(value, list):
        raise BadInputError(
            f"{where}: {dotted}: expected an array of tables, found {value!r}", hint=f"write it as [[{dotted}]]"
        )
    for index, item in enumerate(value):
        check_table(item, table, where=where, key=f"{dotted}[{index}]")


def _refuse_unknown(name: str, known: Iterable[str], *, where: str, dotted: str) -> None:
    hint = suggest(name, known) or f"known here: {', '.join(known)}"
    raise BadInputError(f"{where}: {dotted}: unknown key", hint=hint)


def _refuse_missing(entry: Key | Table, *, where: str, dotted: str) -> None:
    if isinstance(entry, Table):
        raise BadInputError(f"{where}: {dotted}: missing; expected a table", hint=f"add [{dotted}]")
    raise BadInputError(
        f"{where}: {dotted}: missing; expected {entry.expectation()}", hint=entry.hint or f"add {dotted}"
    )


def _join(table: str, key: str) -> str:
    return f"{table}.{key}" if table else key


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
