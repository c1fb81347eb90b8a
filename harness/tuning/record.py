"""What a search tried, what came of it, and what it found: as kept in its folder, and as `tune.json` holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from modelwright.core.records.codec import Count, Line, Number, Record
from modelwright.core.records.tuned import Goal, Setting, Threads, describe_settings
from modelwright.harness.kinds import Figure
from modelwright.harness.results.record import Environment
from modelwright.harness.results.statistics import SpeedRatio

SCHEMA = 1
Outcome = Literal["start", "better", "not better", "undecided", "refused", "failed"]
"""`start`: what the first ratio is over. `better`: it took the incumbent's place. `not better`: its interval leaves no
room for a gain. `undecided`: the rounds ended before. `refused`: faster, but with other answers. `failed`: see why."""
FinalRole = Literal["start", "own defaults", "found"]
"""`start`: the first artifact with the defaults. `own defaults`: the chosen artifact with the defaults. `found`: what
the search found."""


class Configuration(Record):
    """One way to run the model.

    Attributes:
        artifact: The name of the artifact.
        threads: Intra-operator threads, of each request.
        requests: Inferences in flight.
        options: Settings of the runtime that are not at their defaults, in order of their names.
    """

    artifact: Line
    threads: Threads = 1
    requests: Threads = 1
    options: Annotated[Mapping[Line, Setting], Meta(max_length=100)] = msgspec.field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        """What two of them are the same by."""
        return (self.artifact, self.threads, self.requests, tuple(sorted(self.options.items())))

    def describe(self) -> str:
        return f"{self.artifact}, {describe_settings(self.threads, self.requests, self.options)}"


class Trial(Record):
    """One configuration, held against the incumbent of its time in the same rounds.

    Attributes:
        number: From 0.
        configuration: What was tried.
        outcome: What came of it.
        reason: Why it failed or was refused.
        incumbent: Number of the trial that it was held against; None for the first.
        gain: How many times as good it is as the incumbent; None where it was not measured.
        score: Logarithm of how many times as good as the first trial it is, through all incumbents between; the
            errors of their ratios add up in it.
        cost: What an inference took, in the goal's unit; only ratios of one trial can be trusted.
        rounds: Turns of the two.
        elapsed_s: With loading.
    """

    number: Count
    configuration: Configuration
    outcome: Outcome
    reason: str | None = None
    incumbent: Count | None = None
    gain: SpeedRatio | None = None
    score: Number | None = None
    cost: Figure | None = None
    rounds: Count = 0
    elapsed_s: Figure = 0.0


class Final(Record):
    """A configuration measured anew after the search, all of them in the same rounds.

    Attributes:
        role: Which of the three it is.
        configuration: How it ran.
        cost: Of an inference, in the goal's unit.
        over_start: How many times as good as the start it is.
        over_defaults: How many times as good as its artifact with the defaults it is.
    """

    role: FinalRole
    configuration: Configuration
    cost: Figure | None = None
    over_start: SpeedRatio | None = None
    over_defaults: SpeedRatio | None = None


class Tuning(Record):
    """What `tune.json` holds.

    Attributes:
        schema: Version of this format.
        timestamp: ISO 8601, UTC.
        source: The model, without its folders.
        goal: What was searched for.
        unit: Of all costs.
        estimated: Where an energy is no meter's: what it was estimated by.
        environment: The machine.
        space: How many configurations there are.
        trials: All that were tried, in order.
        stopped: Why the search ended.
        finals: What was measured anew; empty where nothing was to be told apart, or the search was interrupted.
        best: How the model is to be run; None before the end.
        changed: Whether that is anything but the defaults of the first artifact.
        sentence: What was found, for people.
        notes: What to know.
    """

    schema: Literal[1] = 1
    timestamp: Line
    source: str
    goal: Goal
    unit: Line
    estimated: str | None = None
    environment: Environment
    space: Count
    trials: tuple[Trial, ...]
    stopped: str
    finals: tuple[Final, ...] = ()
    best: Configuration | None = None
    changed: bool = False
    sentence: str
    notes: tuple[str, ...] = ()
