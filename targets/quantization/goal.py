"""What "follows FP32 closely enough" means for a candidate of a quantization search, in every runtime.

The only place that knows: a search asks for levels, for the better of two and for words, and never for a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from modelwright.core.outputs.drop import DROP
from modelwright.core.outputs.fidelity import Fidelity, explain_broken
from modelwright.core.outputs.output_meter import OutputFidelity
from modelwright.core.outputs.tasks.judge import TaskFidelity

_CLEARLY = 0.5
"""Share of the error that has to go before a change that costs speed, or that is not understood, is worth it."""
_FREE_LOSS = 0.1
"""Severity that a change may cost which costs nothing: a tenth of what nobody would notice, so that good missed by a
hair is as good."""
_CLOSER = 0.8
"""Share of the distance below which a candidate is closer beyond chance: on some tens of samples noise is measured to
some percent, while the number of answers that it turns is not."""
_LEAST_VARIATION = 0.01
"""Of an output's size: what varies by less is told from its constant part by its size, as the noise of rounding is."""
_BROKEN_ERROR = 1000.0
"""What the error of a broken candidate counts as: more than any that gives numbers."""


class Level(IntEnum):
    """How well a candidate does; more is better."""

    BROKEN = 0
    """It does not build or run, or its outputs are of another shape, not finite, or always the same."""
    POOR = 1
    """Broken for the task. Layers go back to float until it is fair, whatever speed that costs up to half the work."""
    FAIR = 2
    """Some would notice. Layers go back to float where that makes it good for little of the time that it saves."""
    GOOD = 3
    """Nobody who uses the model for its task would notice. Nothing more is tried."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How closely a candidate follows FP32 on the samples that it is judged on.

    Attributes:
        severity: Of the worst finding, see `Check.severity`: up to 1 good, from 2 on broken. None for a candidate that
            does not run.
        error: What is left to mend: the worst finding, and what all of them come to. None likewise.
        kept: Share of FP32's answers that is kept, by the task's own measure.
        measure: What that measure is.
        finding: The worst finding in words.
        samples: Samples compared.
        fault: Why the candidate gives no answers.
        drop: Points that it is to be expected to lose where it is judged in the end, where the user limits them; the
            limit is among the findings, with room for chance.
        limited: Whether that is the worst of them.
        distance: Noise to signal of the float output that follows worst, over all its values: what tells candidates
            apart when answers that change are too few to count. None without an output that varies.
    """

    severity: float | None
    error: float | None
    kept: float | None
    measure: str
    finding: str | None
    samples: int
    fault: str | None = None
    drop: float | None = None
    limited: bool = False
    distance: float | None = None

    @staticmethod
    def broken(fault: str) -> Figures:
        """Returns the figures of a candidate that does not build or does not run."""
        return Figures(severity=None, error=None, kept=None, measure="", finding=None, samples=0, fault=fault)

    @staticmethod
    def from_fidelity(fidelity: Fidelity, drop: float | None = None) -> Figures:
        """Takes what the goal looks at out of a comparison with FP32, measured with roles."""
        task = fidelity.task
        severity = None if task is None else task.severity
        fault = explain_broken(fidelity)
        if task is not None and fault is not None and task.is_broken and task.worst is not None:
            # Wrong answers are answers: putting layers back to float may mend them. What has no answers is broken.
            fault = None if fault.endswith(task.worst.text) else fault
        if task is None or severity is None:
            severity = 0.0 if fault is None else math.inf
        return Figures(
            severity=None if fault else severity,
            error=None if fault else severity + _mean_severity(task),
            kept=fidelity.agreement if task is None or not task.checks else task.kept,
            measure="agreement" if task is None or not task.checks else task.measure,
            finding=None if task is None or task.worst is None else f"output {task.worst.output}: {task.worst.text}",
            samples=fidelity.samples,
            fault=fault,
            drop=drop,
            limited=task is not None and task.worst is not None and task.worst.measure == DROP,
            distance=None if fault else _measure_distance(fidelity),
        )

    @property
    def level(self) -> Level:
        if self.fault is not None or self.severity is None:
            return Level.BROKEN
        if self.severity <= 1.0:
            return Level.GOOD
        return Level.FAIR if self.severity < 2.0 else Level.POOR

    @property
    def rank(self) -> tuple[Level, float]:
        """Sorts candidates from worst to best: by level, then by what is left of the error."""
        return self.level, -math.inf if self.error is None else -self.error

    def is_clearly_better(self, than: Figures) -> bool:
        """Whether it reaches a higher level, or loses half as much."""
        if self.level != than.level:
            return self.level > than.level
        return self.error is not None and than.error is not None and self.error < _CLEARLY * than.error

    def loses_nothing(self, against: Figures) -> bool:
        """Whether it is as good as others for all that these samples can tell."""
        if self.severity is None or against.severity is None:
            return self.level >= against.level
        return self.level >= min(against.level, Level.FAIR) and self.severity - against.severity <= _FREE_LOSS

    def is_closer(self, than: Figures) -> bool:
        """Whether it is closer to FP32 by all its values, where the few answers of few samples may say otherwise."""
        return self._is_within(_CLOSER, than)

    def is_as_close(self, against: Figures) -> bool:
        """Whether it is as good as others for all that these samples can tell, by their answers or by all values."""
        return self.loses_nothing(against) or self._is_within(1 + _FREE_LOSS, against)

    def _is_within(self, share: float, than: Figures) -> bool:
        """Whether its distance to FP32 is at most a share of another's, and its answers are usable as the other's."""
        # What the user limits is counted in answers: one that keeps the limit is not given up for one that does not.
        least = Level.FAIR if than.drop is None else Level.GOOD
        if self.distance is None or than.distance is None or self.level < min(than.level, least):
            return False
        return self.distance < share * than.distance

    def harm_beyond(self, floor: Figures) -> float:
        """Returns how much error is added to what is there anyhow; that of a broken one is as large as can be."""
        if self.error is None:
            return _BROKEN_ERROR
        return self.error - (0.0 if floor.error is None else floor.error)

    def describe(self) -> str:
        """Returns for instance `agreement 98.4%, output logits: channel 3 of 10 carries 1.2 % noise`."""
        if self.fault is not None:
            return self.fault
        parts = [] if self.kept is None else [f"{self.measure} {self.kept:.1%}"]
        parts += [] if self.drop is None else [f"{self.drop:.2g} points expected to be lost"]
        parts += [] if self.finding is None else [self.finding]
        return ", ".join(parts) or "no figures"

    def to_dict(self) -> dict[str, Any]:
        return {"level": self.level.name.lower(), **asdict(self)}


def _measure_distance(fidelity: Fidelity) -> float | None:
    distances = [_measure_noise(output) for output in fidelity.outputs if output.is_float]
    return max((each for each in distances if each is not None), default=None)


def _measure_noise(output: OutputFidelity) -> float | None:
    """Returns an output's noise as a share of its signal: of what it varies by, or of a hundredth of its size.

    What varies by less than that over the samples, such as a bias alone, would drown in the noise of any rounding, and
    say nothing of which candidate is the closer one.
    """
    if output.r_squared is None:
        return None
    noise = math.sqrt(max(1.0 - output.r_squared, 0.0))
    error = output.relative_l2_error
    return noise if error is None else min(noise, error / _LEAST_VARIATION)


def _mean_severity(task: TaskFidelity | None) -> float:
    checks = () if task is None else task.checks
    return sum(check.severity for check in checks) / len(checks) if checks else 0.0


def describe_goal() -> Mapping[str, Any]:
    """Returns the goal for a manifest: the levels by name, and the severity of the worst finding that each allows."""
    return {"good": {"severity": 1.0}, "fair": {"severity": 2.0}}


def explain_miss(figures: Figures) -> str | None:
    """Returns a sentence for the user about a candidate that is shipped without being good; None for a good one."""
    if figures.level is Level.GOOD:
        return None
    seen = f"on {figures.samples} samples: {figures.describe()}"
    if figures.limited:
        return f"the samples that choose could not make sure of the limit, those that judge decide; {seen}"
    if figures.level is Level.FAIR:
        return f"it follows FP32 less closely than wanted {seen}"
    return f"no way of quantizing reaches the goal {seen}; compare its accuracy before shipping it"
