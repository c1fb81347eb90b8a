"""The settings that an artifact is run with, where `modelwright tune` chose some, and how it chose them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from modelwright.core.records.codec import Count, Line, Record

Goal = Literal["latency", "throughput", "size", "energy"]
Setting = bool | int | Line
Threads = Annotated[int, Meta(ge=1, le=4096)]
_Ratio = Annotated[float, Meta(gt=0, le=1e12)]


class Tuned(Record):
    """How an artifact is run, and what that is worth.

    Attributes:
        goal: What it was tuned for.
        threads: Intra-operator threads, of each request.
        requests: Inferences in flight at a time.
        options: Settings of the runtime that are not at their defaults.
        ratio: How many times better than with the defaults, measured anew after the search; None where nothing was
            better beyond doubt, so that these are the defaults, and for a size.
        ci95: Both ends of the ratio's 95 % interval.
        over: The defaults that the ratio is over, in words.
        trials: That were made before.
        estimated: Where an energy is no meter's: what it was estimated by.
        device: The machine that it was tuned on: other settings may be better on others.
        versions: Package -> version of the runtime that it was tuned with.
        created: ISO 8601, UTC.
    """

    goal: Goal
    threads: Threads
    requests: Threads = 1
    options: Annotated[Mapping[Line, Setting], Meta(max_length=100)]
    ratio: _Ratio | None
    ci95: tuple[_Ratio, _Ratio] | None
    over: Line | None
    trials: Count
    estimated: Line | None = None
    device: Line
    versions: Mapping[Line, Line]
    created: Line

    def describe(self) -> str:
        """Returns the settings in a line: `2 threads, graph-level=extended`."""
        return describe_settings(self.threads, self.requests, self.options)


def describe_settings(threads: int, requests: int, options: Mapping[str, bool | int | str]) -> str:
    """Returns settings in a line: `2 threads, graph-level=extended`."""
    parts = [f"{threads} thread{'s' if threads > 1 else ''}"]
    if requests > 1:
        parts.append(f"{requests} requests at a time")
    parts += [
        f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in sorted(options.items())
    ]
    return ", ".join(parts)
