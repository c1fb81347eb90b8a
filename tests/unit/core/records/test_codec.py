"""The codec of records: what comes back, and what the refusals say."""

from __future__ import annotations

import importlib
import json
import math
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from modelwright.core.errors import BadInputError
from modelwright.core.records.codec import (
    Amount,
    Count,
    FileName,
    Line,
    Number,
    Record,
    Sha256,
    Text,
    decode,
    encode,
    read_record,
)

ROOT = Path(__file__).resolve().parents[4]
ROOMS = ("core", "exporters", "harness", "profiles", "targets")


class Part(Record):
    title: Text
    ratio: Annotated[float, Meta(gt=0, le=1, extra={"hint": "a share, not per cent"})]


class Whole(Record):
    schema: Literal[1] = 1
    sizes: tuple[Count, ...] = ()
    names: frozenset[str] = frozenset()
    path: Path = Path("x")
    parts: tuple[Part, ...] = ()
    main: Part | None = None
    files: Mapping[FileName, Sha256] = {}
    figures: Mapping[str, Mapping[str, Number | None]] = {}
    pattern: re.Pattern[str] | None = None
    seconds: Amount | None = None
    line: Line = ""
    free: Mapping[str, Any] = {}


def walk_types(kind: Any) -> Iterator[Any]:
    """Yields a type and all in it, at any depth."""
    yield kind
    for part in typing.get_args(kind):
        yield from walk_types(part)


def list_records(base: type) -> Iterator[type]:
    for record in base.__subclasses__():
        yield record
        yield from list_records(record)


def has_pattern(kind: Any) -> bool:
    return any(getattr(meta, "pattern", None) for meta in getattr(kind, "__metadata__", ()))


def holds_items(kind: Any) -> bool:
    bare = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    origin = typing.get_origin(bare) or bare
    return isinstance(origin, type) and issubclass(origin, Collection) and origin is not str


def is_unsafe(kind: Any) -> bool:
    """Whether a type is a union of a text with a pattern and of items."""
    arms = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else ()
    return any(map(has_pattern, arms)) and any(map(holds_items, arms))


def test_no_record_has_a_union_that_msgspec_frees_wrongly() -> None:
    """With a pattern in the union, msgspec 0.22 takes the pattern's memory for that of the items' type."""
    assert is_unsafe(Line | tuple[str, ...])
    assert is_unsafe(Text | Mapping[str, int] | None)
    assert not is_unsafe(Line | None)
    assert not is_unsafe(Annotated[str, Meta(max_length=9)] | tuple[Line, ...])
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        if "(Record)" in path.read_text(encoding="utf-8"):
            importlib.import_module(".".join(("modelwright", *path.relative_to(ROOT).with_suffix("").parts)))
    records = list(list_records(Record))
    assert len(records) > 20
    for record in records:
        for name, kind in typing.get_type_hints(record, include_extras=True).items():
            assert not any(map(is_unsafe, walk_types(kind))), f"{record.__name__}.{name}"


def test_a_record_comes_back_as_written(tmp_path: Path) -> None:
    part = Part(title="a", ratio=0.5)
    whole = Whole(
        sizes=(1, 2), names=frozenset("cab"), path=Path("a/b"), parts=(part,), main=part,
        files={"a/b.bin": "0" * 64}, figures={"y": {"cosine": 1.0, "none": None}}, free={"z": [1, {"a": None}]},
    )  # fmt: skip
    written = encode(whole)
    assert list(written) == [*Whole.__struct_fields__]
    assert written["names"] == ["a", "b", "c"]
    assert (written["path"], written["parts"]) == ("a/b", [{"title": "a", "ratio": 0.5}])
    path = tmp_path / "whole.json"
    path.write_text(json.dumps(written))
    assert read_record(Whole, path, what="a whole") == whole


@pytest.mark.parametrize(
    ("data", "key", "said"),
    [
        ([], "", "expected a table, found []"),
        ({"schema": 2}, "schema: ", "expected one of 1, found 2"),
        ({"schema": True}, "schema: ", "expected one of 1, found True"),
        ({"sizes": [1, -1]}, "sizes: ", "expected a list of whole numbers, found [1, -1]"),
        ({"sizes": [True]}, "sizes: ", "expected a list of whole numbers"),
        ({"sizes": [2**63]}, "sizes: ", "expected a list of whole numbers"),
        ({"names": "abc"}, "names: ", "expected a list of texts, found 'abc'"),
        ({"path": 3}, "path: ", "expected a path, found 3"),
        ({"parts": {}}, "parts: ", "expected an array of tables, found {}"),
        ({"parts": [{"title": " ", "ratio": 1}]}, "parts[0].title: ", "expected a text, found ' '"),
        ({"parts": [{"title": "a", "ratio": 1}, {"titel": "a", "ratio": 1}]}, "parts[1].titel: ", "unknown key"),
        ({"main": {"title": "a"}}, "main.ratio: ", "missing; expected a number greater than 0 and at most 1"),
        ({"main": {"title": "a", "ratio": 40}}, "main.ratio: ", "at most 1, found 40"),
        ({"main": {"title": "a", "ratio": math.nan}}, "main.ratio: ", "found nan"),
        ({"main": 3}, "main: ", "expected a table, found 3"),
        ({"files": {"a": "0" * 63}}, "files.a: ", "expected a SHA-256 in hex"),
        ({"files": {"a": "0" * 64 + "\n"}}, "files.a: ", "expected a SHA-256 in hex"),
        ({"figures": {"y": {"cosine": math.inf}}}, "figures.y.cosine: ", "expected a finite number, found inf"),
        ({"figures": {"y": {"cosine": 10**400}}}, "figures.y.cosine: ", "expected a finite number"),
        ({"figures": {"y": {"cosine": 10**5000}}}, "figures.y.cosine: ", "a number too long to print"),
        ({"figures": {"\x1b[2J": 3}}, "figures.'\\x1b[2J': ", "expected a table"),
        ({"pattern": "("}, "pattern: ", "expected a regular expression, found '('"),
        ({"pattern": "a{99999999999}"}, "pattern: ", "expected a regular expression"),
        ({"seconds": -1}, "seconds: ", "expected a finite number of 0 or more"),
        ({"line": "a\nb"}, "line: ", "expected a text of one line"),
        ({"line": "\u202egnp.exe"}, "line: ", "expected a text of one line"),
        ({"line": "\ud800"}, "line: ", "expected a text of one line"),
    ],
)
def test_a_refusal_names_the_place_and_says_what_was_expected(data: Any, key: str, said: str) -> None:
    with pytest.raises(BadInputError) as caught:
        decode(Whole, data, where="whole.json")
    assert caught.value.message.startswith(f"whole.json: {key}")
    assert said in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "..", "../a", "a/..", "a/../../b", "C:\\a", "C:a", "..\\a", "a\\b", "a\nb", "a\x00"]
)
def test_a_file_name_stays_inside_its_folder(name: str) -> None:
    with pytest.raises(BadInputError, match="expected the name of a file inside the folder"):
        decode(Whole, {"files": {name: "0" * 64}}, where="whole.json")


@pytest.mark.parametrize("name", ["a", "a/b.c", "..a", "a..b/c", "weights 1.bin", "größe.onnx", ".hidden"])
def test_ordinary_file_names_pass(name: str) -> None:
    assert name in decode(Whole, {"files": {name: "0" * 64}}, where="whole.json").files


def test_the_hint_of_the_key_goes_before_that_of_the_file() -> None:
    with pytest.raises(BadInputError) as caught:
        decode(Whole, {"main": {"title": "a", "ratio": 40}}, where="w", hint="build it again")
    assert caught.value.hint == "a share, not per cent"
    with pytest.raises(BadInputError) as caught:
        decode(Whole, {"size": 1}, where="w", hint="build it again")
    assert caught.value.hint == "build it again"
    with pytest.raises(BadInputError) as caught:
        decode(Whole, {"size": 1}, where="w")
    assert "sizes" in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", '{"free": NaN}', '{"free": {"a": Infinity}}', '{"free": {"a": 1e400}}', '{"schema": 1}{',
        '{"free": {"a": -' + "9" * 5000 + "}}", '{"free": {"a": ' + "[" * 10_000 + "]" * 10_000 + "}}",
        '{"free": {"a": ' + "[" * 100 + "]" * 100 + "}}", '{"sizes": ' * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_record_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "whole.json"
    path.write_text(text)
    with pytest.raises(BadInputError, match=r"whole\.json") as caught:
        read_record(Whole, path, what="a whole")
    assert len(caught.value.message) < 300 + len(str(path))


def test_files_that_are_no_text_or_too_large_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "whole.json"
    path.write_bytes(b'{"line": "\xff"}')
    with pytest.raises(BadInputError, match="cannot be read as a whole"):
        read_record(Whole, path, what="a whole")
    with path.open("wb") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(BadInputError, match="too large"):
        read_record(Whole, path, what="a whole")
    with pytest.raises(BadInputError, match="not a regular file"):
        read_record(Whole, tmp_path, what="a whole")
