"""Reads values of a results document leniently: what is absent or of another kind is None or empty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.harness.formatting import clean_text


def number(value: object) -> float | None:
    """Returns a finite number, or None for anything else: NaN, text, booleans."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def positive(value: object) -> float | None:
    """Returns a number above 0, else None."""
    found = number(value)
    return found if found is not None and found > 0 else None


def number_or_nan(value: object) -> float:
    """Returns a number, NaN for anything else."""
    found = number(value)
    return math.nan if found is None else found


def count_of(value: object) -> int | None:
    """Returns a whole number from 0 up, else None."""
    found = number(value)
    return None if found is None or found < 0 else int(found)


def flag_of(value: object) -> bool | None:
    """Returns a boolean, None for anything else."""
    return value if isinstance(value, bool) else None


def text_of(value: object) -> str | None:
    """Returns text without control characters; None for none."""
    return clean_text(value) if value is not None and value != "" else None


def mapping_of(value: object) -> Mapping[str, Any]:
    """Returns a mapping, empty for anything else."""
    return value if isinstance(value, Mapping) else {}


def sequence_of(value: object) -> Sequence[Any]:
    """Returns a sequence, empty for anything else."""
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def interval_of(value: object) -> tuple[float, float] | None:
    """Returns both ends of an interval, None unless they are two numbers in order."""
    ends = [number(end) for end in sequence_of(value)]
    if len(ends) != 2 or ends[0] is None or ends[1] is None or ends[0] > ends[1]:
        return None
    return ends[0], ends[1]


def positive_interval_of(value: object) -> tuple[float, float] | None:
    """Returns both ends of an interval above 0, else None."""
    ends = interval_of(value)
    return ends if ends is not None and ends[0] > 0 else None
