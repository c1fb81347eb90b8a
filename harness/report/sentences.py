"""Sentences on a terminal: parted between words only, and further lines stand under the first one's text."""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_GLUE = "\ue000"
"""For a space at which no line ends: rich takes U+00A0 for any other space. Clean text has no such character."""
_BEFORE_PERCENT = re.compile(r"(?<=\d) (?=%)")


def keep_together(text: str) -> str:
    """Returns text within which `print_sentence` ends no line; for parts that are shorter than one."""
    return text.replace(" ", _GLUE)


def print_sentence(console: Console, text: Text, *, indent: int | None = None) -> None:
    """Prints a sentence; a number and its percent sign stay on one line.

    Args:
        console: Where to; its width parts lines.
        text: Clean.
        indent: Of all lines but the first; two more than that of the first where it has one, unless told.
    """
    glued = text.copy()
    glued.plain = _BEFORE_PERCENT.sub(_GLUE, text.plain)
    if indent is None:
        before = len(text.plain) - len(text.plain.lstrip())
        indent = before + 2 if before else 0
    head, body = glued[:indent], glued[indent:]
    lines = [body]
    if cell_len(glued.plain) > console.width:
        lines = list(body.wrap(console, max(console.width - indent, 1), overflow="fold"))
    for number, line in enumerate(lines):
        shown = head + line if number == 0 else Text(" " * indent) + line
        shown.plain = shown.plain.replace(_GLUE, " ")
        shown.rstrip()
        # Highlighting would colour numbers and quotes in sentences at random.
        console.print(shown, highlight=False)
