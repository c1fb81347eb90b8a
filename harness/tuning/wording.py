"""What a search says to people."""

from __future__ import annotations

from modelwright.core.records.tuned import Goal
from modelwright.harness.formatting import format_bytes, format_interval, format_significant
from modelwright.harness.results.statistics import SpeedRatio
from modelwright.harness.tuning.cost import SAMPLE_UNIT
from modelwright.harness.tuning.record import Configuration, Final, FinalRole, Trial, Tuning

_COMPARATIVES: dict[Goal, str] = {
    "latency": "faster",
    "throughput": "faster",
    "size": "smaller",
    "energy": "more frugal",
}
_COSTS: dict[Goal, str] = {
    "latency": "an inference",
    "throughput": "throughput",
    "size": "size",
    "energy": "an inference",
}
_AS: dict[Goal, str] = {
    "latency": "times as fast as",
    "throughput": "times the samples a second of",
    "size": "times smaller than",
    "energy": "inferences for the energy of one with",
}


def describe_ratio(ratio: SpeedRatio | None) -> str:
    """Returns `1.12x (1.09-1.15)`."""
    if ratio is None:
        return "not measured"
    return f"{ratio.ratio:.2f}x{_describe_interval(ratio)}"


def _describe_interval(ratio: SpeedRatio) -> str:
    return "" if ratio.ci95 is None else f" ({format_interval(*ratio.ci95)})"


def describe_trial(trial: Trial) -> str:
    """Returns a line on what was tried and what came of it."""
    told = trial.configuration.describe()
    if trial.outcome == "start":
        return f"{told}: what others are held against"
    if trial.outcome in ("failed", "refused"):
        return f"{told}: {trial.outcome}, {trial.reason}"
    return f"{told}: {describe_ratio(trial.gain)} of trial {trial.incumbent}, {trial.outcome}"


def describe_cost(cost: float | None, unit: str) -> str:
    """Returns a cost with its unit; what a sample takes as samples a second."""
    if cost is None:
        return "not measured"
    if unit == SAMPLE_UNIT:
        return f"{format_significant(1e3 / cost)} samples/s"
    return format_bytes(cost) if unit == "bytes" else f"{format_significant(cost)} {unit}"


def name_cost(found: Tuning) -> str:
    """Returns what stands over a column of costs."""
    return _COSTS[found.goal] + mark_estimate(found)


def mark_estimate(found: Tuning) -> str:
    """Returns what is to be said beside every figure that no meter gave."""
    return " (estimated)" if found.estimated else ""


def describe_found(found: Tuning, settled: Final) -> str:
    """Returns what was found, in sentences."""
    if found.goal == "size":
        return _describe_smallest(found)
    better, guess = _COMPARATIVES[found.goal], " by an estimate, no meter" if found.estimated else ""
    start = _of_role(found, "start")
    if settled.role == "start":
        if start is None and len(found.trials) < 2:
            alone = _defaults(settled.configuration)
            return f"Nothing but {alone} was run: {found.stopped}. Give more of it; the same command goes on."
        if start is None:
            return f"Nothing that was tried is {better} than {_defaults(settled.configuration)}: keep them."
        tried = next((final for final in found.finals if final.role == "found"), found.finals[-1])
        came = f"{tried.configuration.describe()} came to {describe_ratio(tried.over_start)}{guess}"
        return f"Measured anew, nothing is {better} than {_defaults(start)} beyond doubt: {came}. Keep the defaults."
    assert start is not None
    assert settled.over_start is not None
    times = f"{settled.over_start.ratio:.2f}{_describe_interval(settled.over_start)}"
    parts = [
        f"Run {settled.configuration.describe()}: {times} {_AS[found.goal]} "
        f"{_defaults(start)}, measured anew after the search{guess}."
    ]
    own = _of_role(found, "own defaults")
    if own is not None and settled.over_defaults is not None:
        parts.append(
            f"The settings alone are worth {describe_ratio(settled.over_defaults)} over {_defaults(own.configuration)}."
        )
    elif settled.role == "own defaults" and _of_role(found, "found") is not None:
        parts.append(f"No setting of it is {better} than the default beyond doubt.")
    return " ".join(parts)


def _describe_smallest(found: Tuning) -> str:
    assert found.best is not None
    sizes = {trial.configuration.artifact: trial.cost for trial in found.trials}
    smallest = f"{found.best.artifact} is the smallest, {describe_cost(sizes[found.best.artifact], found.unit)}"
    others = [
        f"{name} {describe_cost(size, found.unit)}" for name, size in sizes.items() if name != found.best.artifact
    ]
    return "; ".join([smallest, *others]) + "."


def _of_role(found: Tuning, role: FinalRole) -> Final | None:
    return next((final for final in found.finals if final.role == role), None)


def _defaults(configuration: Final | Configuration) -> str:
    how = configuration.configuration if isinstance(configuration, Final) else configuration
    return f"{how.describe()} with the default settings"
