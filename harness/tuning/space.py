"""All ways to run a model here: which artifact, how many threads and requests, and each setting of its runtime."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelwright.core.records.tuned import Goal
from modelwright.harness.tuning.record import Configuration
from modelwright.targets.options import RunOption, Value

Load = tuple[int, int]
"""Threads of a request, and requests in flight."""
_ENUMERATED = 20_000


@dataclass(frozen=True, kw_only=True)
class Space:
    """What can be tried.

    Attributes:
        settings: Artifact -> the settings of its runtime, in the order in which artifacts are tried.
        runtimes: Artifact -> its runtime; artifacts of one share what was learnt of a setting.
        loads: What is to be tried of threads and requests; the first is the default.
    """

    settings: Mapping[str, Sequence[RunOption]]
    runtimes: Mapping[str, str]
    loads: Sequence[Load]

    def make(
        self, artifact: str, load: Load | None = None, options: Mapping[str, Value] | None = None
    ) -> Configuration:
        """Returns a configuration without what does nothing in it, so that two that run alike are one."""
        threads, requests = load or self.loads[0]
        known = {option.name: option for option in self.settings[artifact]}
        chosen = {name: value for name, value in (options or {}).items() if value != known[name].default}
        kept = {
            name: value
            for name, value in sorted(chosen.items())
            if _does_something(known[name], threads, known, chosen)
        }
        return Configuration(artifact=artifact, threads=threads, requests=requests, options=kept)

    def default(self, artifact: str | None = None) -> Configuration:
        """Returns how an artifact, the first if none is named, runs when nobody says anything."""
        return self.make(artifact or next(iter(self.settings)))

    def starts(self) -> list[Configuration]:
        """Returns every artifact with the defaults."""
        return [self.default(artifact) for artifact in self.settings]

    def neighbours(self, centre: Configuration) -> list[Configuration]:
        """Returns what differs from a configuration in one thing: its load, or one setting.

        A setting that needs another one to do anything comes with that one.
        """
        load = (centre.threads, centre.requests)
        found = [self.make(centre.artifact, other, centre.options) for other in self.loads if other != load]
        for option in self.settings[centre.artifact]:
            needed = {} if option.needs is None else dict([option.needs])
            found += [
                self.make(centre.artifact, load, {**centre.options, **needed, option.name: value})
                for value in option.candidates
            ]
        unique = {each.key: each for each in found}
        unique.pop(centre.key, None)
        return list(unique.values())

    @property
    def size(self) -> int:
        """How many configurations there are; an upper bound where they are too many to count one by one."""
        if self._product() > _ENUMERATED:
            return self._product()
        return len({each.key for each in self._all()})

    def _product(self) -> int:
        return sum(
            len(self.loads) * math.prod(len(option.candidates) for option in settings)
            for settings in self.settings.values()
        )

    def _all(self) -> Iterator[Configuration]:
        for artifact, settings in self.settings.items():
            names = [option.name for option in settings]
            for load in self.loads:
                for values in itertools.product(*(option.candidates for option in settings)):
                    yield self.make(artifact, load, dict(zip(names, values, strict=True)))


def _does_something(
    option: RunOption, threads: int, known: Mapping[str, RunOption], chosen: Mapping[str, Value]
) -> bool:
    if option.needs_threads and threads < 2:
        return False
    if option.needs is None:
        return True
    name, value = option.needs
    return chosen.get(name, known[name].default) == value


def list_loads(goal: Goal, threads: int) -> list[Load]:
    """Returns what is tried of threads and requests, the default first: for latency one request at a time.

    For throughput, requests and their threads share the threads that are allowed; one request on all of them is the
    default.

    Args:
        goal: What is searched for.
        threads: That may be used at most.
    """
    counts = sorted({*(2**power for power in range(threads.bit_length()) if 2**power <= threads), threads})
    if goal == "size":
        return [(1, 1)]
    if goal != "throughput":
        return [(count, 1) for count in counts]
    return [(count, threads // count) for count in reversed(counts)]
