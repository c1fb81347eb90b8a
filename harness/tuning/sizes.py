"""Tuning for size: the smallest artifact that was built within the limit. Bytes are counted, nothing is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping

from modelwright.core.records.artifact import Artifact
from modelwright.harness.results.statistics import SpeedRatio
from modelwright.harness.tuning.record import Configuration, Outcome, Trial


def rank_sizes(artifacts: Mapping[str, Artifact]) -> tuple[tuple[Trial, ...], Configuration]:
    """Returns each artifact as a trial against the smallest before it, and the smallest of all."""
    trials: list[Trial] = []
    best: Trial | None = None
    for number, (name, artifact) in enumerate(artifacts.items()):
        size = float(artifact.manifest.size_bytes)
        gain = None if best is None or not best.cost or not size else SpeedRatio(ratio=best.cost / size)
        first = trials[0].cost if trials else size
        outcome: Outcome = "start" if best is None else "better" if size < (best.cost or 0.0) else "not better"
        trial = Trial(
            number=number,
            configuration=Configuration(artifact=name),
            outcome=outcome,
            incumbent=None if best is None else best.number,
            gain=gain,
            score=math.log(first / size) if first and size else None,
            cost=size,
        )
        trials.append(trial)
        if outcome in ("start", "better"):
            best = trial
    assert best is not None, "something was built"
    return tuple(trials), best.configuration
