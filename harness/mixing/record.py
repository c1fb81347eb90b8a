"""What a mix found: `mix.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from modelwright.core.records.codec import Amount, Count, Line, Number, Record, Sha256
from modelwright.harness.mixing.settings import Granularity, Settings
from modelwright.harness.mixing.work import LayerWork
from modelwright.profiles.technology import Technology

Z95 = 1.96
"""The normal quantile of a 95 % interval."""
Kind = Literal["float", "fixed", "thirds", "program"]


class Quality(Record):
    """How well answers serve, on one part of the samples.

    Attributes:
        measure: `accuracy` against labels; without labels what of FP32's answers is kept: `agreement`, `cosine`, ...
        value: The share.
        samples: That it was taken on.
        ci95: Its 95 % interval; None where it counts no answers.
    """

    measure: Line
    value: Number
    samples: Count
    ci95: tuple[Number, Number] | None = None


class Difference(Record):
    """Points of one row above another, by the same samples.

    Attributes:
        points: Hundredths.
        ci95: The 95 % interval, by the samples on which just one of the two is right; None where nothing is counted.
    """

    points: Number
    ci95: tuple[Number, Number] | None = None


class Row(Record):
    """One way to give bits, simulated and judged.

    Attributes:
        name: For people, such as `4 bits` or `mixed, program`.
        kind: How the bits were given.
        granularity: Of weights' scales; None for FP32.
        rank_aware: Whether scales were chosen to keep the order of attention's scores.
        bits: Layer's output -> its bits; null for float.
        answer_error: Estimated relative error of the answers; None for FP32.
        compute_j: Energy of an inference's arithmetic, an estimate.
        memory_j: Energy of moving weights and activations, an estimate.
        weight_bytes: Size of the layers' weights at their bits, without scales.
        quality: On the evaluation samples.
        over_lowest: Against the fewest bits everywhere, with the same scales; None for that and for FP32.
        runs: `fp32`, `int8` where integer kernels of runtimes have such bits, else `simulated`.
        chosen: Whether it is the plan.
    """

    name: Line
    kind: Kind
    granularity: Granularity | None
    rank_aware: bool = False
    bits: Mapping[str, Count | None]
    answer_error: Amount | None
    compute_j: Amount
    memory_j: Amount
    weight_bytes: Amount
    quality: Quality
    over_lowest: Difference | None = None
    runs: Literal["fp32", "int8", "simulated"]
    chosen: bool = False

    @property
    def energy_j(self) -> float:
        """Of an inference; an estimate."""
        return self.compute_j + self.memory_j


class MixedLayer(Record):
    """A layer that bits were chosen for.

    Attributes:
        output: By which plans name it.
        node: Its name.
        operator: Its type.
        weight: The constant that it multiplies with; None where both operands are computed.
        errors: S = ||y_full - y_quant||_2, by bits.
        norm: ||y_full||_2 on the same samples.
        gain: Relative error of the answers for each unit of S.
        nuclear_norm: Of what it makes; None where another method chose.
        bits: Chosen.
    """

    output: str
    node: str
    operator: Line
    weight: str | None
    errors: Mapping[str, Amount]
    norm: Amount
    gain: Amount
    nuclear_norm: Amount | None = None
    bits: Count


class Mixture(Record):
    """All of it.

    Attributes:
        model: The source, as the user named it.
        onnx_sha256: Of the FP32 model.
        settings: What was asked for.
        technology: What the estimates of energy count with.
        samples: Part -> how many: calibration, tuning and evaluation.
        layers: With the granularity of the plan.
        work: Of all layers that energy is counted for, those that stay in float among them.
        rows: Judged ways to give bits, FP32 first.
        doubts: What the samples that judge cannot show, a sentence each.
        notes: Sentences for the user.
    """

    schema: Literal[1] = 1
    model: str
    onnx_sha256: Sha256
    settings: Settings
    technology: Technology
    samples: Mapping[str, Count]
    layers: tuple[MixedLayer, ...]
    work: tuple[LayerWork, ...]
    rows: tuple[Row, ...]
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> Row:
        """The plan."""
        return next(row for row in self.rows if row.chosen)


class Judged(Record):
    """A row's quality, and where it can be counted, which samples were right.

    Attributes:
        quality: On the samples.
        right: One a sample; None where the measure does not count answers.
    """

    quality: Quality
    right: tuple[bool, ...] | None = None

    def over(self, other: Judged) -> Difference:
        """Returns how many points this is above another on the same samples."""
        points = 100 * (self.quality.value - other.quality.value)
        if self.right is None or other.right is None:
            return Difference(points=points)
        count = len(self.right)
        won = sum(mine and not its for mine, its in zip(self.right, other.right, strict=True))
        lost = sum(its and not mine for mine, its in zip(self.right, other.right, strict=True))
        # Wald's interval of a difference of paired shares, with half an answer added to each side (Agresti and Min).
        share, changed = (won - lost) / (count + 2), (won + lost + 1) / (count + 2)
        spread = Z95 * ((changed - share**2) / (count + 2)) ** 0.5
        return Difference(points=points, ci95=(100 * (share - spread), 100 * (share + spread)))
