"""What compression reached, typed and kept as JSON."""

from __future__ import annotations

from pathlib import Path

from goals.interval import estimate_mean

from modelwright.core.files import write_json
from modelwright.core.records.codec import Amount, Count, Record, Share, encode, read_record
from modelwright.core.records.compressed import Quality, Size
from modelwright.harness.results.statistics import SpeedRatio

LEAST_SPEEDUP, MOST_POINTS_LOST = 1.6, 1.0
"""Of structured pruning by half."""
LOST_BY_ROUNDING = 1.0
"""Points from which on training through rounding has something to save."""


class Pruning(Record, kw_only=True):
    """Half of all channels gone.

    Attributes:
        before: The source.
        after: What is left.
        quality_before: On the test images.
        quality_after: On the same.
        speedup: Of ONNX Runtime FP32 over the same of the source, in one interleaved run.
        settings: Of the training, for people.
        seconds: That it took, on a machine that did other things too.
    """

    before: Size
    after: Size
    quality_before: Quality
    quality_after: Quality
    speedup: SpeedRatio
    settings: str
    seconds: Amount

    @property
    def points_lost(self) -> float:
        return self.quality_before.points_lost(self.quality_after)

    @property
    def is_reached(self) -> bool:
        slowest = self.speedup.ci95[0] if self.speedup.ci95 else self.speedup.ratio
        return slowest >= LEAST_SPEEDUP and self.points_lost <= MOST_POINTS_LOST + 1e-9


class Seeded(Record, kw_only=True):
    """A student from one seed, alone and taught, on the test images."""

    seed: Count
    alone: Quality
    taught: Quality


class Distillation(Record, kw_only=True):
    """A student with and without a teacher.

    Attributes:
        teacher: On the test images.
        parameters: Of the student.
        alpha: Weight of the labels where it is taught.
        seeded: One a seed.
        settings: Of all trainings, for people.
    """

    teacher: Quality
    parameters: Count
    alpha: Share
    seeded: tuple[Seeded, ...]
    settings: str

    @property
    def points_gained(self) -> tuple[float, float]:
        """Mean over the seeds, and half of its 95 % interval."""
        return estimate_mean([each.alone.points_lost(each.taught) * -1 for each in self.seeded])

    @property
    def is_reached(self) -> bool:
        mean, spread = self.points_gained
        return mean - spread > 0


class Rounding(Record, kw_only=True):
    """Few bits, after training and through it.

    Attributes:
        bits: Of weights and activations.
        source: In FP32, on the test images.
        rounded: With ranges of training data, and no training.
        trained: With the same quantizers.
        settings: Of the training, for people.
    """

    bits: str
    source: Quality
    rounded: Quality
    trained: Quality
    settings: str

    @property
    def is_called_for(self) -> bool:
        return self.source.points_lost(self.rounded) > LOST_BY_ROUNDING

    @property
    def is_reached(self) -> bool:
        return not self.is_called_for or self.trained.value > self.rounded.value


class Findings(Record, kw_only=True):
    """A file of results.

    Attributes:
        machine: That all ran on, one thread each.
        created: ISO 8601, UTC, of the last goal that ran.
        revision: Of this repository then.
        versions: Package -> version then.
        images: Part -> how many: training (of which an eighth chose among epochs) and test.
        pruning: None where it did not run yet; likewise the others.
    """

    machine: str
    created: str
    revision: str
    versions: dict[str, str]
    images: dict[str, Count]
    pruning: Pruning | None = None
    distillation: Distillation | None = None
    qat: tuple[Rounding, ...] = ()


def read_findings(path: Path, machine: str) -> Findings | None:
    """Returns what an earlier run on this machine found."""
    if not path.exists():
        return None
    found = read_record(Findings, path, what="results of compression")
    return found if found.machine == machine else None


def write_findings(path: Path, findings: Findings) -> None:
    """Writes results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, encode(findings))
