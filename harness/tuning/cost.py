"""What an inference costs, by what a model is tuned for; less is better."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from modelwright.core.errors import MeasurementInvalidError
from modelwright.core.records.tuned import Goal
from modelwright.harness.formatting import clean_text, shorten
from modelwright.harness.meters.host_energy import Meter
from modelwright.harness.meters.power_model import estimate_energy
from modelwright.harness.run.interleave import Window
from modelwright.harness.tuning.record import Configuration
from modelwright.profiles.power import power_on
from modelwright.profiles.schema import Profile

SAMPLE_UNIT = "ms a sample"
_LINE = 160
"""Characters of where an estimate comes from that a manifest keeps."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What is compared.

    Attributes:
        unit: Of it.
        of_window: The cost of an inference in one turn of a configuration.
        estimated: By what, where it is no measurement.
    """

    unit: str
    of_window: Callable[[Window, Configuration], float]
    estimated: str | None = None


def choose_cost(goal: Goal, profile: Profile, host: Profile, meter: Meter | None, batch: int) -> Cost:
    """Returns what an inference costs by a goal.

    Args:
        goal: What is to be better.
        profile: This machine's, with its power figures.
        host: This machine, as it was found.
        meter: Of energy; None where none can be read.
        batch: Samples an inference.

    Raises:
        MeasurementInvalidError: An energy can neither be metered nor estimated here.
    """
    if goal == "throughput":
        return Cost(unit=SAMPLE_UNIT, of_window=lambda window, how: _ms_each(window, how) / batch)
    if goal != "energy":
        return Cost(unit="ms", of_window=lambda window, _how: statistics.median(window.latencies_ms))
    if meter is not None:
        return Cost(unit="J", of_window=_metered)
    power = power_on(profile, host)
    cores = (host if profile.is_class else profile).cores
    found = estimate_energy(power, 1.0, profile, cores=cores)
    if found.per_inference_j is None:
        raise MeasurementInvalidError(
            f"the energy of an inference cannot be known here: {found.reason}",
            hint="tune for latency: on one number of threads, the quicker inference is the one that takes less energy",
        )

    def estimate(window: Window, how: Configuration) -> float:
        mean_ms = _ms_each(window, how)
        told = estimate_energy(power, mean_ms, profile, threads=how.threads * how.requests, cores=cores)
        return told.per_inference_j or 0.0

    source = power.source if power is not None else ""
    return Cost(unit="J", of_window=estimate, estimated=shorten(clean_text(source), _LINE) or "its power figures")


def _ms_each(window: Window, how: Configuration) -> float:
    """Milliseconds until one more inference is done: requests in flight share the time that each of them measured."""
    return statistics.fmean(window.latencies_ms) / how.requests


def _metered(window: Window, _how: Configuration) -> float:
    if window.energy_j is None or window.energy_j <= 0:
        raise MeasurementInvalidError("the meter counted nothing in a window")
    return window.energy_j / window.inferences
