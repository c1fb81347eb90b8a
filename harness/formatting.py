"""Numbers and names as people read them. Every unit conversion of the report happens here."""

from __future__ import annotations

import math
from collections.abc import Iterable

MISSING = "-"
"""What a cell shows when nothing was measured: never 0, never blank."""

BYTES_PER_MB = 1e6
_COUNT_UNITS = (("G", 1e-9), ("M", 1e-6), ("k", 1e-3))
_JOULE_UNITS = (("J", 1.0), ("mJ", 1e3), ("µJ", 1e6), ("nJ", 1e9))


def clean_text(text: object) -> str:
    """Returns text on one line without characters that a terminal or a browser acts on.

    Model and file names come from strangers: escape sequences, line breaks and bidirectional overrides would
    repaint the terminal or reorder the sentence around them.
    """
    return "".join(char if char.isprintable() else ("?" if not char.isspace() else " ") for char in str(text))


def shorten(text: str, length: int) -> str:
    """Returns at most `length` characters, the middle left out. For charts, which have the full name as a tooltip."""
    if len(text) <= length:
        return text
    tail = max(1, (length - 1) // 3)
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


def format_significant(value: float | None, digits: int = 3) -> str:
    """Returns a number with at least `digits` significant digits, in fixed notation; all digits before the point stay.

    `7.7` becomes `7.70`, `0.01234` becomes `0.0123`, `1234.5` becomes `1234`.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:.{decimals}f}"


def format_ms(value_ms: float | None) -> str:
    """Returns milliseconds with their unit."""
    return MISSING if value_ms is None else f"{format_significant(value_ms)} ms"


def format_bytes(size_bytes: float | None) -> str:
    """Returns a size in B, kB, MB or GB (powers of 1000, as disks and `model_size_mb` count)."""
    if size_bytes is None:
        return MISSING
    if abs(size_bytes) < 1000:
        return f"{size_bytes:.0f} B"
    value = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if abs(value) < 999.5 or unit == "GB":
            return f"{format_significant(value)} {unit}"
    raise AssertionError("unreachable: the last unit always returns")


def format_megabytes(size_bytes: float | None) -> str:
    """Returns a size in MB (10^6 bytes) without the unit, for a column that has it in its header."""
    return MISSING if size_bytes is None else format_significant(size_bytes / BYTES_PER_MB)


def energy_unit(values_j: Iterable[float | None]) -> tuple[str, float]:
    """Returns the unit in which a column of joules reads best, and the factor from joules to it.

    The largest value decides, so that a column has one unit and none of its numbers needs more than three digits
    before the point.
    """
    largest = max((value for value in values_j if value is not None and value > 0), default=1.0)
    for unit, factor in _JOULE_UNITS:
        if largest * factor >= 1:
            return unit, factor
    return _JOULE_UNITS[-1]


def count_unit(values: Iterable[float | None]) -> tuple[str, float]:
    """Returns the unit in which a column of large counts reads best, and the factor to it; the largest decides."""
    largest = max((value for value in values if value is not None), default=0.0)
    return next(((unit, factor) for unit, factor in _COUNT_UNITS if largest * factor >= 1), ("", 1.0))


def format_percent(share: float | None) -> str:
    """Returns a share of 0..1 in percent; what is not all is never rounded to 100 %.

    Returns:
        `98.9 %`, `100 %` only for exactly 1, `99.99 %` for 0.9999.
    """
    number = format_percent_number(share)
    return number if number == MISSING else f"{number} %"


def format_percent_number(share: float | None) -> str:
    """Returns what `format_percent` does, without the sign."""
    if share is None or not math.isfinite(share):
        return MISSING
    if share == 1:
        return "100"
    for decimals in (1, 2, 3):
        text = f"{share * 100:.{decimals}f}"
        if float(text) != 100:
            return text
    return ">99.999" if share < 1 else text


def format_cosine(value: float | None) -> str:
    """Returns a cosine similarity with four decimals, more where they would round to 1."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value >= 1:
        return "1"
    for decimals in (4, 5, 6):
        text = f"{value:.{decimals}f}"
        if float(text) != 1:
            return text
    return ">0.999999"


def format_ratio(ratio: float | None) -> str:
    """Returns a speed-up for a table, with the decimals that its interval usually has: `4.61x`, `0.99x`, `12.3x`."""
    if ratio is None:
        return MISSING
    return f"{ratio:.2f}x" if 0.1 <= ratio < 10 else f"{format_significant(ratio)}x"


def format_interval(low: float, high: float, separator: str = "-") -> str:
    """Returns an interval of ratios with as few decimals as keep its ends apart.

    `4.531, 4.682` becomes `4.53-4.68`, `12.31, 12.58` becomes `12.3-12.6`: as many as the ratio beside it has.
    """
    decimals = ratio_decimals(low, high)
    return f"{low:.{decimals}f}{separator}{high:.{decimals}f}"


def ratio_decimals(low: float, high: float) -> int:
    """Returns the decimals with which an interval of ratios reads best: one from 10 up, two below, more if equal.

    Ratios under 0.1 get four, so that they show as many digits as the ratio beside them.
    """
    start = 1 if low >= 10 else 2 if high >= 0.1 else 4
    for decimals in range(start, max(start, 3) + 1):
        if f"{low:.{decimals}f}" != f"{high:.{decimals}f}":
            return decimals
    return start


def format_number(value: float | None) -> str:
    """Returns a number for a CSV cell: up to ten significant digits, empty when there is none."""
    return "" if value is None or not math.isfinite(value) else f"{value:.10g}"


def format_count(value: float | None) -> str:
    """Returns a whole number with thin groups: `25 557 032`."""
    return MISSING if value is None else f"{value:,.0f}".replace(",", "\u202f")


def join_words(words: list[str]) -> str:
    """Returns `a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def count_noun(count: int, noun: str) -> str:
    """Returns `1 window`, `2 windows`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def describe_turns(artifacts: int) -> str:
    """Returns what measuring is called while it runs: one artifact takes no turns."""
    return f"measuring {count_noun(artifacts, 'artifact')}{' in turns' if artifacts > 1 else ''}"
