"""Records to and from JSON values, by one codec whose errors name the file and the key.

A record refuses unknown keys, and values that are not of their types or outside their limits. What is wrong is said
in words made from the type itself: `artifact.json: size_bytes: expected a whole number of 0 or more, found 'x'`.
"""

from __future__ import annotations

import re
import reprlib
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

import msgspec
from msgspec import Meta

from modelwright.core.errors import BadInputError, suggest
from modelwright.core.files import read_json

T = TypeVar("T")

# A text with a pattern must not share a union with a list, tuple or map: msgspec 0.22 then frees the wrong memory.
# What a signed integer of 64 bits holds.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1, description="a whole number of 0 or more")]
Number = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max, description="a finite number")]
Amount = Annotated[float, Meta(ge=0, le=sys.float_info.max, description="a finite number of 0 or more")]
Share = Annotated[float, Meta(ge=0, le=1)]
Cosine = Annotated[float, Meta(ge=-1.001, le=1.001)]
"""Of an angle; rounding may lead a little beyond 1."""
Text = Annotated[str, Meta(pattern=r"\S")]
# Controls, and what turns the direction of writing: what is printed must not command the terminal.
_UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
Line = Annotated[
    str,
    Meta(
        max_length=200,
        pattern=f"^[^{_UNPRINTABLE}]*$",
        description="a text of one line, 200 characters at most",
    ),
]
Sha256 = Annotated[str, Meta(max_length=64, pattern=r"^[0-9a-f]{64}$", description="a SHA-256 in hex")]
# A record may come from anywhere: it must not point out of its folder, under Windows' rules neither.
FileName = Annotated[
    str,
    Meta(
        max_length=1000,
        pattern=rf"^(?!/|[A-Za-z]:|(.*/)?\.\.(/|$))[^\\{_UNPRINTABLE}]+$",
        description="the name of a file inside the folder",
        extra={"hint": "do not use it: no record that modelwright writes points out of its folder"},
    ),
]

_WORDS: Mapping[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    re.Pattern: "a regular expression",
    Path: "a path",
}
_PLURALS: Mapping[Any, str] = {str: "texts", int: "whole numbers", float: "numbers"}
_ABSENT = (type(None), msgspec.UnsetType)
_BOUNDS = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
_FAULTS = (msgspec.ValidationError, ValueError, RecursionError)
"""ValueError: half a surrogate pair where UTF-8 is needed, a number of more digits than Python writes."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class _KeywordsOnly(msgspec.StructMeta):
    """Makes all fields of a class keyword-only: msgspec takes the option for the fields of one class, not of heirs."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        return super().__new__(cls, name, bases, namespace, **{"kw_only": True, **options})


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record(msgspec.Struct, metaclass=_KeywordsOnly, frozen=True, forbid_unknown_fields=True):
    """What is written to a file or crosses a process border."""


def encode(value: Any) -> Any:
    """Returns a record as JSON values, which `decode` turns back.

    Sets are sorted, so that equal records give equal texts. What is `UNSET` is left out.
    """
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        items = ((written, getattr(value, name)) for name, written in names)
        return {written: encode(item) for written, item in items if item is not msgspec.UNSET}
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, re.Pattern):
        return value.pattern
    return str(value) if isinstance(value, Path) else value


def decode(kind: type[T], data: object, *, where: str = "", hint: str | None = None) -> T:
    """Returns JSON or TOML values as the record that they are.

    Args:
        kind: A `Record`, or a type made of records.
        data: What a parser returned.
        where: Begins the messages: the file, if not the record's name.
        hint: What to do, where the type of the faulty key does not say (`Meta(extra={"hint": ...})`).

    Raises:
        BadInputError: A key is wrong, unknown or missing.
    """
    try:
        return msgspec.convert(data, kind, dec_hook=_make_foreign)
    except _FAULTS as error:
        raise _explain(kind, data, where=where or kind.__name__, key="", hint=hint) from error


def read_record(kind: type[T], path: Path, *, what: str, hint: str | None = None) -> T:
    """Reads a JSON file.

    Args:
        kind: The record that it holds.
        path: The file.
        what: What the file is to the reader, such as `an artifact's manifest`.
        hint: As for `decode`.

    Raises:
        BadInputError: No such file, not JSON, or not the record; names the file and the key.
    """
    return decode(kind, read_json(path, what), where=str(path), hint=hint)


def describe_kind(kind: Any) -> str:
    """Says in words what a value must be."""
    kind = _drop_absent(kind)
    metas = _find_metas(kind)
    described = [meta.description for meta in metas if meta.description]
    limits = [
        f"{phrase} {getattr(meta, bound):,}"
        for meta in metas
        for bound, phrase in _BOUNDS.items()
        if getattr(meta, bound) is not None
    ]
    examples = [str(example) for meta in metas for example in meta.examples or ()]
    words = described[-1] if described else " ".join([_name_kind(_strip(kind)), " and ".join(limits)]).strip()
    return words + (f" such as {' or '.join(examples)}" if examples else "")


def _make_foreign(kind: Any, value: object) -> Any:
    """Makes what msgspec does not know; its own words for the refusal are never shown."""
    if not isinstance(value, str) or not value:
        raise TypeError
    if kind is Path:
        return Path(value)
    try:
        return re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError from error


def _explain(kind: Any, data: object, *, where: str, key: str, hint: str | None) -> BadInputError:
    """Says what is wrong with data that do not convert, by the innermost part that does not convert alone."""
    for dotted, part_kind, part in _list_parts(kind, data, key):
        try:
            msgspec.convert(part, part_kind, dec_hook=_make_foreign)
        except _FAULTS:
            return _explain(part_kind, part, where=where, key=dotted, hint=hint)
    record, kind = _find_arm(kind, Record), _drop_absent(kind)
    fault = f"expected {describe_kind(kind)}, found {_show(data)}"
    if record is not None and isinstance(data, dict):
        fields = {field.encode_name: field for field in msgspec.structs.fields(record)}
        unknown = [name for name in data if name not in fields]
        missing = [name for name, field in fields.items() if field.required and name not in data]
        if unknown:
            key, fault = _join(key, unknown[0]), "unknown key"
            hint = hint or suggest(str(unknown[0]), fields) or f"known here: {', '.join(fields)}"
        elif missing:
            key, kind = _join(key, missing[0]), _drop_absent(_find_types(record)[fields[missing[0]].name])
            fault, hint = f"missing; expected {describe_kind(kind)}", hint or f"add {missing[0]}"
    hints = [meta.extra["hint"] for meta in _find_metas(kind) if meta.extra]
    return BadInputError(": ".join(filter(None, (where, key, fault))), hint=hints[-1] if hints else hint)


def _list_parts(kind: Any, data: object, key: str) -> Iterator[tuple[str, Any, object]]:
    """Yields what data consist of, each with its dotted key and its type; a list of plain values is one value."""
    record, mapping, sequence = (_find_arm(kind, container) for container in (Record, Mapping, Sequence))
    if isinstance(data, dict) and record is not None:
        for field in msgspec.structs.fields(record):
            if field.encode_name in data:
                yield _join(key, field.encode_name), _find_types(record)[field.name], data[field.encode_name]
    elif isinstance(data, dict) and mapping is not None:
        name_kind, item_kind = typing.get_args(mapping)
        for name, item in data.items():
            yield key, name_kind, name
            yield _join(key, name), item_kind, item
    elif isinstance(data, list) and sequence is not None:
        item_kind = typing.get_args(sequence)[0]
        if any(_find_arm(item_kind, container) is not None for container in (Record, Mapping, Sequence)):
            for index, item in enumerate(data):
                yield f"{key}[{index}]", item_kind, item


def _find_arm(kind: Any, container: type) -> Any:
    """Returns the type, or the arm of a union, that is a container of a kind; None without one."""
    kind = _strip(kind)
    origin = typing.get_origin(kind) or kind
    if origin in (typing.Union, types.UnionType):
        arms = (_find_arm(arm, container) for arm in typing.get_args(kind))
        return next((arm for arm in arms if arm is not None), None)
    is_one = isinstance(origin, type) and issubclass(origin, container) and origin is not str
    return kind if is_one else None


def _name_kind(kind: Any) -> str:
    origin = typing.get_origin(kind) or kind
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_kind(arm) for arm in typing.get_args(kind) if arm not in _ABSENT)
    if _find_arm(kind, Record) is not None or _find_arm(kind, Mapping) is not None:
        return "a table"
    if _find_arm(kind, Sequence) is not None or _find_arm(kind, AbstractSet) is not None:
        item = _strip(typing.get_args(kind)[0])
        return f"a list of {_PLURALS.get(item, 'values')}" if _find_arm(item, Record) is None else "an array of tables"
    return _WORDS.get(origin, str(kind))


def _find_metas(kind: Any) -> list[Meta]:
    return [item for item in getattr(kind, "__metadata__", ()) if isinstance(item, Meta)]


def _drop_absent(kind: Any) -> Any:
    """Returns the one arm of a union that is not null or absent: what a value must be, if there is one."""
    arms = [arm for arm in typing.get_args(kind) if arm not in _ABSENT]
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return arms[0] if is_union and len(arms) == 1 else kind


def _strip(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind


@cache
def _find_types(record: type) -> dict[str, Any]:
    return typing.get_type_hints(record, include_extras=True)


def _join(table: str, key: object) -> str:
    name = str(key) if str(key).isprintable() and len(str(key)) <= _SHORT.maxstring else _show(key)
    return f"{table}.{name}" if table else name


def _show(value: object) -> str:
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number too long to print"
