"""Spans of time as people type them."""

from __future__ import annotations

import pytest

from modelwright.core.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90.0), (" 10m ", 600.0), ("0.5h", 1800.0), ("0s", 0.0), ("40", None), ("5 m", None), ("1e3s", None)],
)
def test_spans_of_time(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds
