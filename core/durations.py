"""Spans of time as people type them: `90s`, `10m`, `2h`."""

from __future__ import annotations

import re

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_TEXT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smh])", re.ASCII)


def parse_duration(text: str) -> float | None:
    """Returns the seconds that a text stands for; None where it is no span of time."""
    match = _TEXT.fullmatch(text.strip())
    return None if match is None else float(match[1]) * _SECONDS[match[2]]
