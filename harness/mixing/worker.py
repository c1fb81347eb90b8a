"""The child side of a mix: opens the model, measures, assigns, simulates and judges."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.outputs.output_files import read_reference
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.process.child import Progress
from modelwright.core.records.codec import Record, Sha256, decode, encode
from modelwright.core.records.signature import Signature
from modelwright.core.samples.sample_set import SampleRef, SampleSet, open_samples
from modelwright.harness.mixing.calibration import Rounding, calibrate
from modelwright.harness.mixing.judge import Judge
from modelwright.harness.mixing.network import Layer, open_network
from modelwright.harness.mixing.nuclear import NUCLEAR_SAMPLES, measure_nuclear_norms
from modelwright.harness.mixing.planning import MOST_PLANNED_BITS
from modelwright.harness.mixing.ranking import RANKING_SAMPLES, rank_grids
from modelwright.harness.mixing.record import Judged, MixedLayer, Mixture, Row
from modelwright.harness.mixing.rows import Choice, Chooser, describe_energy, list_choices
from modelwright.harness.mixing.scores import SCORERS
from modelwright.harness.mixing.sensitivity import Sensitivity, measure_sensitivity
from modelwright.harness.mixing.settings import GRANULARITIES, Granularity, Settings
from modelwright.harness.mixing.simulate import simulate
from modelwright.harness.mixing.work import LayerWork, count_work
from modelwright.profiles.technology import Technology
from modelwright.targets.contract import Feeds
from modelwright.targets.quantization.statistics import TensorStatistics

SENSITIVITY_SAMPLES = 64
"""Of the calibration samples, so many say what rounding a layer does: a mean over all its elements settles soon."""
_SHAPED_SAMPLES = 16
_INTEGER_BITS = 8


class Request(Record):
    """What the child is asked for.

    Attributes:
        model: The source, as the user named it.
        model_path: The verified FP32 model.
        onnx_sha256: Of it.
        signature: Of it.
        calibration: Samples that calibrate.
        tuning: Samples that choose; None where there are too few.
        evaluation: Samples that judge.
        reference: Folder of FP32's answers to the latter two.
        roles: What the outputs mean.
        doubts: What the evaluation samples cannot show.
        settings: What is asked for.
        technology: What operations cost.
        scratch: For intermediate files.
    """

    model: str
    model_path: Path
    onnx_sha256: Sha256
    signature: Signature
    calibration: SampleRef
    tuning: SampleRef | None
    evaluation: SampleRef
    reference: Path
    roles: Mapping[str, OutputRole]
    doubts: tuple[str, ...]
    settings: Settings
    technology: Technology
    scratch: Path


def mix_in_child(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Child side of `mix`; takes a `Request` and returns a `Mixture`, both encoded."""
    mixture: dict[str, Any] = encode(_Mix(decode(Request, request), progress).run())
    return mixture


@dataclass(frozen=True, kw_only=True)
class _Rounded:
    """What is known of the network with weights rounded in one way."""

    rounding: Rounding
    found: Mapping[str, Sensitivity]
    chooser: Chooser
    rank_aware: bool
    notes: tuple[str, ...]


class _Mix:
    """One mix, step by step."""

    def __init__(self, request: Request, progress: Progress) -> None:
        self._request, self._progress = request, progress
        self._settings = request.settings
        self._samples = self._open(request.calibration)
        self._network = open_network(request.model_path, self._samples.sample(0), request.scratch, request.model)
        self._judge = self._make_judge(request.evaluation, "evaluation")

    def run(self) -> Mixture:
        """Returns all that was found."""
        layers = len(self._network.layers)
        self._progress(f"reading what {layers} layers see of {self._samples.count} calibration samples")
        seen = calibrate(self._network, self._samples.feeds, self._request.scratch)
        works = count_work(self._network, self._take(_SHAPED_SAMPLES), self._request.scratch)
        fp32 = self._judge.judge_fp32()
        rows = [self._row_of_fp32(works, fp32)]
        chosen: _Rounded | None = None
        for granularity, rank_aware in self._list_ways_to_round():
            rounded = self._measure(granularity, seen, works, rank_aware=rank_aware)
            rows += self._judge_choices(rounded, granularity)
            if self._is_wanted(granularity, rank_aware=rank_aware):
                chosen = rounded
        assert chosen is not None
        plan = next(row for row in rows if row.chosen)
        return Mixture(
            model=self._request.model,
            onnx_sha256=self._request.onnx_sha256,
            settings=self._settings,
            technology=self._request.technology,
            samples=self._count_samples(),
            layers=tuple(
                _describe_layer(layer, chosen.found[layer.output], plan.bits[layer.output] or 0)
                for layer in self._network.layers
            ),
            work=works,
            rows=tuple(rows),
            doubts=self._request.doubts,
            notes=(*self._doubt_labels(), *_list_notes(plan), *chosen.notes),
        )

    def _list_ways_to_round(self) -> list[tuple[Granularity, bool]]:
        """Returns granularities, that of the plan with ranked grids too where they are asked for."""
        plain = [(granularity, False) for granularity in GRANULARITIES]
        return [*plain, (self._settings.granularity, True)] if self._settings.rank_aware else plain

    def _is_wanted(self, granularity: Granularity, *, rank_aware: bool) -> bool:
        return granularity == self._settings.granularity and rank_aware == self._settings.rank_aware

    def _open(self, ref: SampleRef) -> SampleSet:
        return open_samples(ref, self._request.signature, checked=True)

    def _make_judge(self, ref: SampleRef, part: str) -> Judge:
        answers = read_reference(self._request.reference / part)
        return Judge(self._open(ref), answers, self._request.roles, self._request.scratch)

    def _take(self, count: int) -> list[Feeds]:
        return list(self._samples.feeds(count))

    def _measure(
        self,
        granularity: Granularity,
        seen: Mapping[str, TensorStatistics],
        works: Sequence[LayerWork],
        *,
        rank_aware: bool,
    ) -> _Rounded:
        self._progress(f"measuring what rounding each layer does, scales per {granularity}")
        rounding = Rounding(
            network=self._network,
            seen=seen,
            per_channel=granularity == "channel",
            ranges=self._settings.ranges,
        )
        notes: tuple[str, ...] = ()
        if rank_aware:
            rounding, notes = self._rank(rounding)
        found = measure_sensitivity(
            rounding,
            self._settings.bits,
            self._take(SENSITIVITY_SAMPLES),
            self._outputs,
            self._request.scratch,
        )
        if self._settings.method == "nuclear":
            norms = measure_nuclear_norms(self._network, self._take(NUCLEAR_SAMPLES), self._request.scratch)
            found = {name: dataclasses.replace(each, nuclear_norm=norms[name]) for name, each in found.items()}
        scores = SCORERS[self._settings.method](found, self._settings.bits)
        chooser = Chooser(scores=scores, works=works, technology=self._request.technology, settings=self._settings)
        return _Rounded(rounding=rounding, found=found, chooser=chooser, rank_aware=rank_aware, notes=notes)

    @property
    def _outputs(self) -> list[str]:
        return [spec.name for spec in self._request.signature.outputs]

    def _rank(self, rounding: Rounding) -> tuple[Rounding, tuple[str, ...]]:
        """Returns the rounding with grids that keep the order of attention's scores, and what is to be known of it."""
        self._progress("choosing scales that keep the order of attention's scores")
        ranked = rank_grids(
            rounding, self._settings.bits, self._take(RANKING_SAMPLES), self._outputs, self._request.scratch
        )
        return dataclasses.replace(rounding, grids=ranked.grids), (ranked.describe(),)

    def _judge_choices(self, rounded: _Rounded, granularity: Granularity) -> Iterator[Row]:
        """Yields the rows of one granularity."""
        is_wanted = self._is_wanted(granularity, rank_aware=rounded.rank_aware)
        choices = self._list_choices(rounded) if is_wanted else _list_plain(rounded.chooser)
        lowest: Judged | None = None
        fewest = rounded.chooser.fixed(min(self._settings.bits))
        judged: list[tuple[Choice, Judged]] = []
        for number, choice in enumerate(choices, 1):
            self._progress(f"judging {choice.name}, scales per {granularity} ({number} of {len(choices)})")
            found = self._judge.judge(simulate(rounded.rounding, choice.bits))
            judged.append((choice, found))
            if choice.kind == "fixed" and choice.bits == fewest:
                lowest = found
        assert lowest is not None
        for choice, found in judged:
            compute_j, memory_j = describe_energy(rounded.chooser, choice.bits)
            yield Row(
                name=choice.name,
                kind=choice.kind,
                granularity=granularity,
                rank_aware=rounded.rank_aware,
                bits=choice.bits,
                answer_error=rounded.chooser.answer_error(choice.bits),
                compute_j=compute_j,
                memory_j=memory_j,
                weight_bytes=self._weigh(choice.bits),
                quality=found.quality,
                over_lowest=None if found is lowest else found.over(lowest),
                runs="int8" if set(choice.bits.values()) == {_INTEGER_BITS} else "simulated",
                chosen=is_wanted and choice.is_plan,
            )

    def _list_choices(self, rounded: _Rounded) -> list[Choice]:
        if self._settings.max_drop is None or self._request.tuning is None:
            return list_choices(rounded.chooser, None, None)
        self._progress("searching the fewest bits that keep to --max-drop, on the samples that choose")
        judge = self._make_judge(self._request.tuning, "tuning")
        return list_choices(
            rounded.chooser, lambda bits: judge.judge(simulate(rounded.rounding, bits)), judge.judge_fp32()
        )

    def _row_of_fp32(self, works: Sequence[LayerWork], judged: Judged) -> Row:
        chooser = Chooser(
            scores=SCORERS[self._settings.method]({}, self._settings.bits),
            works=works,
            technology=self._request.technology,
            settings=self._settings,
        )
        compute_j, memory_j = describe_energy(chooser, {})
        bits = dict.fromkeys((layer.output for layer in self._network.layers), None)
        return Row(
            name="FP32",
            kind="float",
            granularity=None,
            bits=bits,
            answer_error=None,
            compute_j=compute_j,
            memory_j=memory_j,
            weight_bytes=self._weigh(bits),
            quality=judged.quality,
            runs="fp32",
        )

    def _weigh(self, bits: Mapping[str, int | None]) -> float:
        """Returns the bytes of the layers' weights; one that several share counts once a width."""
        sizes: dict[tuple[str, int | None], float] = {}
        for layer in self._network.layers:
            if layer.operand:
                width = bits[layer.output]
                count = self._network.weights[layer.operand].size
                sizes[layer.operand, width] = count * (32 if width is None else width) / 8
        return sum(sizes.values())

    def _doubt_labels(self) -> tuple[str, ...]:
        if not self._judge.ignores_labels:
            return ()
        return (
            f"FP32 gets none of {self._judge.count} labels right: what is kept of its own answers is counted instead",
        )

    def _count_samples(self) -> dict[str, int]:
        tuning = 0 if self._request.tuning is None else self._open(self._request.tuning).count
        return {"calibration": self._samples.count, "tuning": tuning, "evaluation": self._judge.count}


def _list_notes(plan: Row) -> tuple[str, ...]:
    """Returns what to know of the plan."""
    wide = sorted({bits for bits in plan.bits.values() if bits is not None and bits > MOST_PLANNED_BITS})
    if not wide:
        return ()
    return (f"plan.json leaves layers of {' and '.join(map(str, wide))} bits in float: no integer kernel has them",)


def _list_plain(chooser: Chooser) -> list[Choice]:
    """Returns the choices of the granularity that the plan does not have: without the user's limits."""
    settings = replace(chooser.settings, max_drop=None, max_error=None)
    return list_choices(dataclasses.replace(chooser, settings=settings), None, None)


def _describe_layer(layer: Layer, found: Sensitivity, bits: int) -> MixedLayer:
    return MixedLayer(
        output=layer.output,
        node=layer.name,
        operator=layer.operator,
        weight=layer.weight,
        errors={str(width): error for width, error in found.errors.items()},
        norm=found.norm,
        gain=found.gain,
        nuclear_norm=found.nuclear_norm,
        bits=bits,
    )
