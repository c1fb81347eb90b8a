"""What is shown of a traceback: the user's own lines, whatever packages are between them and below."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.core.samples.python_source import load_function, shorten_traceback

SOURCE = """
import json

def parse():
    return json.loads("[1, two]")

def chained():
    try:
        parse()
    except ValueError as error:
        raise KeyError("config") from error

def circle():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first
"""


def fail(function: Callable[[], Any]) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - functions of the user's raise whatever they do
        function()
    error = caught.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # without this file, whose frames are as a user's
    return shorten_traceback(error)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "config.py"
    path.write_text(SOURCE)
    return path


def test_only_the_users_frames_are_shown(source: Path) -> None:
    lines = fail(load_function(source, "parse")).splitlines()
    assert [line for line in lines if line.startswith("  File")] == [f'  File "{source}", line 5, in parse']
    assert '    return json.loads("[1, two]")' in lines
    assert lines[-1].startswith("json.decoder.JSONDecodeError: Expecting value")


def test_what_packages_alone_did_is_not_shown() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    error = caught.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next
    assert shorten_traceback(error) == ""


def test_causes_are_shown_in_their_order_and_a_circle_of_them_ends(source: Path) -> None:
    lines = fail(load_function(source, "chained")).splitlines()
    kinds = [line.partition(":")[0] for line in lines if not line.startswith(" ")]
    assert kinds == ["json.decoder.JSONDecodeError", "KeyError"]
    assert fail(load_function(source, "circle")).splitlines()[-1] == "ValueError: first"
