"""Sentences on a terminal: where lines end, and where further ones begin."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from modelwright.harness.report.sentences import keep_together, print_sentence


def show(text: str, width: int, *, indent: int | None = None) -> list[str]:
    out = io.StringIO()
    print_sentence(Console(file=out, width=width), Text(text), indent=indent)
    return out.getvalue().splitlines()


def test_no_line_ends_between_a_number_and_its_percent_sign() -> None:
    assert show("as fast (95 % interval", 12) == ["as fast", "(95 %", "interval"]


def test_parts_kept_together_stay_on_one_line() -> None:
    text = "   ".join(map(keep_together, ("> ship this", "answers of 20 tokens")))
    assert show(text, 25) == ["> ship this", "answers of 20 tokens"]


def test_further_lines_stand_under_the_text_of_the_first() -> None:
    assert show("name   one two three", 14, indent=7) == ["name   one two", "       three"]
    assert show("  name: one two", 11) == ["  name: one", "    two"]
    assert show("name: one two", 9) == ["name: one", "two"]


@pytest.mark.parametrize("width", [7, 12, 40])
def test_nothing_is_lost_and_no_line_is_too_wide(width: int) -> None:
    text = "  a sentence of 95 % with averyveryverylongword in it"
    lines = show(text, width)
    assert max(map(len, lines)) <= width
    assert "".join("".join(lines).split()) == "".join(text.split())
