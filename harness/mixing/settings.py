"""What a mix is asked for."""

from __future__ import annotations

from typing import Literal

from modelwright.core.errors import UsageError
from modelwright.core.outputs.limit import require_limiting
from modelwright.core.records.codec import Amount, Count, Record

FEWEST_BITS, MOST_BITS = 2, 16
Granularity = Literal["tensor", "channel"]
GRANULARITIES: tuple[Granularity, ...] = ("tensor", "channel")
Method = Literal["sensitivity", "nuclear"]
Ranges = Literal["mse", "minmax"]


class Settings(Record):
    """What is asked for.

    Attributes:
        bits: That layers may get, the most first; two or more.
        method: What says how much a layer suffers.
        granularity: Of the plan: whether each output channel of a weight has a scale of its own.
        ranges: Where grids end: where the squared error is least, or at the largest value seen.
        rank_aware: Whether the scales of attention are chosen to keep the order of its scores; rows without are judged
            too.
        max_drop: Points that the plan may lose; None for no such limit.
        max_error: Relative error of the answers that the plan is estimated to make; None for no such limit.
    """

    bits: tuple[Count, ...]
    method: Method = "sensitivity"
    granularity: Granularity = "channel"
    ranges: Ranges = "mse"
    rank_aware: bool = False
    max_drop: Amount | None = None
    max_error: Amount | None = None


def parse_bits(text: str) -> tuple[int, ...]:
    """Returns the widths in a text such as `8,6,4`, the largest first.

    Raises:
        UsageError: One is no number of bits, or there is but one.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--bits {text}: expected whole numbers with commas between them", hint="such as --bits 8,6,4")
    widths = sorted({int(part) for part in parts}, reverse=True)
    wrong = [width for width in widths if not FEWEST_BITS <= width <= MOST_BITS]
    if wrong:
        raise UsageError(
            f"--bits {text}: {wrong[0]} is not from {FEWEST_BITS} to {MOST_BITS}",
            hint="runtimes have 8 and 4 bits; 6 and others are simulated: --bits 8,6,4",
        )
    if len(widths) < 2:
        raise UsageError(f"--bits {text}: with one number of bits there is nothing to mix", hint="such as --bits 8,4")
    return tuple(widths)


def require_sound_limits(settings: Settings) -> None:
    """Refuses limits that exclude each other, and one that limits nothing.

    Raises:
        UsageError: Two are given, or what no plan can lose.
    """
    if settings.max_drop is not None:
        require_limiting(settings.max_drop)
    if settings.max_drop is not None and settings.max_error is not None:
        raise UsageError(
            "--max-drop and --max-error are both limits of what may be lost",
            hint="give --max-drop to limit points lost on samples, or --max-error to limit the estimated error",
        )
