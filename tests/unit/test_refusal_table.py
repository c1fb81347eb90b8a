"""The table of refusals holds all of them, and each is followed by a test that exists or says why none does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from refusal_finder import ROOT, find_refusals, list_refusals
from refusals import PARTS, TABLE, Followed, NotFollowed

HINT = "write a test that provokes it and does what its hint says, and name it in tests/refusals/"


def test_every_refusal_is_in_the_table_and_no_other() -> None:
    found = list_refusals()
    unknown = [f"{file}: {text}" for file, texts in found.items() for text in texts if text not in TABLE.get(file, {})]
    assert not unknown, f"{HINT}: {unknown}"
    gone = [f"{file}: {text}" for file, texts in TABLE.items() for text in texts if text not in found.get(file, set())]
    assert not gone, f"these are not in the code any more: {gone}"
    assert len(TABLE) == sum(len(part) for part in PARTS), "a file stands in two parts of the table"


def test_every_test_that_follows_a_hint_is_there() -> None:
    entries = {entry.test for texts in TABLE.values() for entry in texts.values() if isinstance(entry, Followed)}
    for name in sorted(entries):
        path, _, function = name.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_what_is_not_followed_has_one_of_few_reasons() -> None:
    reasons = {entry.reason for texts in TABLE.values() for entry in texts.values() if isinstance(entry, NotFollowed)}
    assert len(reasons) <= 8, "a reason for one refusal alone is an excuse"


@pytest.mark.parametrize(
    ("code", "messages"),
    [
        ('raise BuildFailedError(f"{x} fails", hint="do that")', {"{} fails"}),
        ('raise errors.BadInputError("a" f"{b!r} c", hint=hint)', {"a{} c"}),
        ('raise UsageError("left " + name, hint=None)', set()),
        ('raise UsageError("left " + name)', set()),
        ('return Readiness.no(f"no {x}", "install it")', {"no {}"}),
        ('raise UsageError("one" if x else f"{x} others", hint="h")', {"one", "{} others"}),
        ('return Readiness.no("no")', set()),
        ('raise failure("cannot load", hint=a if b else c)', {"cannot load"}),
        ('print("text", hint="none")', set()),
    ],
)
def test_refusals_are_found_in_code(tmp_path: Path, code: str, messages: set[str]) -> None:
    path = tmp_path / "code.py"
    path.write_text(f"def act():\n    {code}\n")
    assert set(find_refusals(path)) == messages
