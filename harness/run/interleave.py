"""Artifacts take turns: short windows, in random order, round after round.

Whatever disturbs a shared machine then disturbs all of them, and the ratio within a round is what can be trusted.
The schedule knows its runners by a small protocol, which a test's fake implements with scripted times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from modelwright.core.errors import ModelwrightError
from modelwright.core.faults import as_error
from modelwright.harness.meters.power_samples import Power
from modelwright.harness.run.effort import Effort


@dataclass(frozen=True, kw_only=True)
class Window:
    """One artifact's turn in one round.

    Attributes:
        latencies_ms: Of every measured inference, in milliseconds, in order.
        inferences: All that ran, warm-up included.
        elapsed_s: Over all of them.
        energy_j: What the meter counted meanwhile; None without a meter.
        power: That it told in between.
        compute_latencies_ms: Of the computation alone on an accelerator, inputs and outputs staying there; empty on a
            CPU.
        compute_inferences: All computations that ran alone, warm-up included.
        compute_elapsed_s: Over all of these.
        compute_enqueue_ms: Median of what the host took to queue one; None on a CPU.
        launch: Which process of the artifact it was, counted from 0.
    """

    latencies_ms: Sequence[float]
    inferences: int
    elapsed_s: float
    energy_j: float | None = None
    power: Sequence[Power] = ()
    compute_latencies_ms: Sequence[float] = ()
    compute_inferences: int = 0
    compute_elapsed_s: float = 0.0
    compute_enqueue_ms: float | None = None
    launch: int = 0


class Runner(Protocol):
    """What can take a turn."""

    @property
    def name(self) -> str:
        """The name that its results go under."""
        ...

    def run_window(self, window_s: float) -> Window:
        """Runs for about `window_s` seconds.

        Whatever it raises, it is left out from now on.
        """
        ...


@dataclass
class Series:
    """One runner's windows by round, and why they end early if they do."""

    windows: dict[int, Window] = field(default_factory=dict)
    failure: ModelwrightError | None = None


def interleave(
    runners: Sequence[Runner],
    effort: Effort,
    *,
    seed: int,
    launch: int = 0,
    on_round: Callable[[int, int], None] | None = None,
) -> Mapping[str, Series]:
    """Runs all rounds of one launch.

    Args:
        runners: With distinct names.
        effort: Number of rounds and length of a window.
        seed: Of the order within the rounds.
        launch: Which one it is, counted from 0: the numbers of rounds run on from launch to launch.
        on_round: Called with the number of finished rounds and of all, those of other launches included.

    Returns:
        Name -> windows. A runner that failed keeps the windows it had, and its error.
    """
    rng = np.random.default_rng((seed, launch))
    series = {runner.name: Series() for runner in runners}
    for index in range(launch * effort.rounds, (launch + 1) * effort.rounds):
        for position in rng.permutation(len(runners)):
            runner = runners[int(position)]
            own = series[runner.name]
            if own.failure is not None:
                continue
            try:
                own.windows[index] = replace(runner.run_window(effort.window_s), launch=launch)
            except Exception as error:  # whatever it is, the others go on
                own.failure = as_error(error, f"measuring {runner.name}")
        if on_round is not None:
            on_round(index + 1, effort.total_rounds)
    return series
