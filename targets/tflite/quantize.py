"""What the TFLite targets give to the search: files made in the converter's environment, run and timed on samples."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.core.files import hash_file
from modelwright.core.records.machine import Machine
from modelwright.core.records.plan import ExecutedPlan
from modelwright.targets.contract import BuildRequest, Feeds
from modelwright.targets.quantization.judge import Outputs
from modelwright.targets.quantization.kept import LayerTimes
from modelwright.targets.quantization.quantizer import Quantizer, Trial
from modelwright.targets.quantization.savings import LayerWork
from modelwright.targets.readiness import package_versions
from modelwright.targets.tflite import client
from modelwright.targets.tflite.answers import RUNTIME, answer
from modelwright.targets.tflite.conversion import convert_rounded
from modelwright.targets.tflite.layers import Layers, Spared
from modelwright.targets.tflite.order import WORTH, choose_by_speed, find_order, find_place
from modelwright.targets.tflite.profile import list_operators, profile_file
from modelwright.targets.tflite.recipes import CANDIDATES, WEIGHTED_AND_TABLES, TfliteCandidate, list_candidates
from modelwright.targets.tflite.samples import store_samples
from modelwright.targets.tflite.session import TfliteRunner

_Wanted = tuple[TfliteCandidate, tuple[str, ...]]
"""A candidate, and its layers that are put back."""

_AT_ONCE_BYTES = 512 * 2**20
"""Files are made at a time up to this size, none of them being larger than the float one: what makes them needs memory
for all. Those that only rank layers are removed afterwards."""
_LOOKED_AT = 4
"""Samples that the noise of layers is looked at on."""


def describe_choice(precision: str, machine: Machine) -> dict[str, Any]:
    """Returns by what one of several good files is chosen: the order of them, what beats it, and what runs them."""
    order, _ = find_order(precision, machine)
    return {"order": order.names, "worth": WORTH, "run_by": package_versions(RUNTIME.replace("_", "-"))}


@dataclass(frozen=True, kw_only=True)
class QuantizedFile:
    """A file, how ONNX's names, layouts and batch sizes map to it, and what its operators really compute in.

    Attributes:
        path: The file.
        candidate: That it was made by.
        binding: Names, layouts and batch sizes.
        facts: For the recipe.
        outline: Its operators one by one; see `converter/outline.py`.
    """

    path: Path
    candidate: TfliteCandidate
    binding: Mapping[str, Any]
    facts: Mapping[str, Any]
    outline: Sequence[Mapping[str, Any]] = field(default=(), repr=False)


class TfliteQuantizer(Quantizer[TfliteCandidate, QuantizedFile]):
    """Has the converter quantize the FP32 file, after calibrating once.

    Args:
        request: Whose samples calibrate and time.
        converted: The result of the step `convert`, with its `folder`.
        precision: `fp16`, `int8`, `int8-dynamic` or `int4-weights`.

    Attributes:
        versions: Package -> version of what makes the files.
        chosen_by: What decided between those that follow FP32 as closely.
        order: The documented order of the candidates, and its source.
        timed: Name of a candidate -> how many times as fast as the first in that order it was, over how many rounds.
    """

    equally_fast = False

    def __init__(self, request: BuildRequest, converted: Mapping[str, Any], precision: str) -> None:
        self._request = request
        self._precision = precision
        self._fp32 = Path(converted["folder"], converted["file"])
        rounds = any(candidate.rounded for candidate in CANDIDATES[precision])
        self._rounded = convert_rounded(request, converted) if rounds else None
        self._binding: Mapping[str, Any] = converted["binding"]
        self._group = list_candidates(precision, rounds=self._rounded is not None)
        self._made: dict[_Wanted, QuantizedFile | BuildFailedError] = {}
        self._count = 0
        self._ranges: str | None = None
        self._weighted = Layers()
        self._outline: Sequence[Mapping[str, Any]] = ()
        self._foreseen: list[_Wanted] = []
        self._passing: list[_Wanted] = []
        self.versions: Mapping[str, str] = {}
        self._order, self._cpus = find_order(precision, request.machine)
        self.order: Mapping[str, Any] = {"for": self._cpus, **asdict(self._order)}
        self.chosen_by = "nothing else follows FP32 as closely"
        self.timed: dict[str, dict[str, float]] = {}
        if precision != "fp16":
            self._calibrate()

    def candidates(self) -> Sequence[Sequence[TfliteCandidate]]:
        return [self._group]

    def build(self, candidate: TfliteCandidate, kept: Collection[str]) -> QuantizedFile:
        key = (candidate, tuple(kept))
        if key not in self._made:
            self._make(self._find_others(key))
        made = self._made[key]
        if isinstance(made, BuildFailedError):
            raise made
        return made

    def identify(self, model: QuantizedFile) -> str | None:
        return hash_file(model.path)

    def run(self, model: QuantizedFile, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
        return answer(model.path, model.binding, feeds, self._request.progress)

    def works(self, model: QuantizedFile) -> Mapping[str, LayerWork]:
        return self._weighted.works(model.candidate)

    def costs(self, model: QuantizedFile) -> Mapping[str, float]:
        return self._weighted.costs(model.candidate)

    def estimate_noise(self, candidate: TfliteCandidate, model: QuantizedFile) -> Mapping[str, float]:  # noqa: ARG002
        return self._weighted.noise(candidate)

    def foresee(self, candidate: TfliteCandidate, choices: Iterable[tuple[str, ...]]) -> None:
        self._foreseen = [(candidate, kept) for kept in choices]

    def base(self, best: TfliteCandidate, *, as_fast: bool) -> TfliteCandidate:
        # Operators without weights, which other candidates quantize too, cannot be spared one by one: all of them go
        # back to float, and what they pass on is converted. Products that take their scales while running already are
        # spared by float alone.
        products = best.find_rule("FULLY_CONNECTED")
        has_fixed_scales = products is not None and products.mode == "static"
        return WEIGHTED_AND_TABLES if self._weighted and has_fixed_scales and not as_fast else best

    def time_layers(self, model: QuantizedFile) -> LayerTimes | None:
        samples = self._request.tuning or self._request.calibration
        if importlib.util.find_spec(RUNTIME) is None or samples is None:
            return None
        runner = TfliteRunner(model.path, model.binding)
        inputs = runner.name_inputs(next(iter(samples.feeds(1))))
        return LayerTimes.of_profile(profile_file(model.path, 1, inputs, list_operators(runner), is_float=False))

    def unchecked(self) -> TfliteCandidate:
        for candidate in self._group:
            try:
                self.build(candidate, ())
            except BuildFailedError:
                continue
            return candidate
        return self._group[0]

    def choose(self, usable: Sequence[Trial[TfliteCandidate]]) -> Trial[TfliteCandidate]:
        """Returns the first in the documented order, unless another is faster beyond doubt on such a machine."""
        if len(usable) == 1:
            return usable[0]
        ordered = sorted(usable, key=lambda trial: find_place(self._order, trial.candidate))
        self.chosen_by = f"documented order for {self._cpus}"
        if not self._request.fits_host:
            return ordered[0]
        choice = choose_by_speed(len(ordered), lambda rounds: self._time(ordered, rounds))
        names = [trial.candidate.name for trial in ordered]
        over_first = choice.speed_ratios()
        for name, ratio in zip(names, over_first, strict=True):
            self.timed[name] = {"speed_over_first": round(ratio, 3), "rounds": len(choice.rounds)}
        if choice.position:
            gain = over_first[choice.position]
            self.chosen_by = f"measured speed on this machine: {gain:.2f} times that of {names[0]}"
        else:
            self.chosen_by += ": on this machine, no other is faster beyond doubt"
        return ordered[choice.position]

    def _time(self, trials: Sequence[Trial[TfliteCandidate]], rounds: int) -> list[list[float]]:
        self._request.progress(f"timing {len(trials)} candidates, {rounds} rounds")
        files = [self.build(trial.candidate, trial.kept) for trial in trials]
        samples = self._request.tuning or self._request.calibration
        order = {
            "action": "measure",
            "files": [str(file.path) for file in files],
            "bindings": [file.binding for file in files],
            "samples": store_samples(samples, self._request.scratch / "timed", limit=1),
            "rounds": rounds,
        }
        rows: list[list[float]] = client.run_step(order, self._request.progress)["cpu_ms"]
        return rows

    def explain_kept(self, candidate: TfliteCandidate, kept: Collection[str]) -> str | None:
        """Returns what to say of the layers that were put back, where it is not that they are in float."""
        return self._weighted.explain(candidate, kept)

    def spare(self, candidate: TfliteCandidate, kept: Collection[str]) -> Spared:
        """Returns how layers are computed that are put back."""
        return self._weighted.spare(candidate, kept)

    def describe_plan(self, model: QuantizedFile, kept: Collection[str]) -> ExecutedPlan | None:  # noqa: ARG002
        """Returns what became of the plan of precisions, with some layers put back; None where there is none."""
        return None

    def _find_others(self, wanted: _Wanted) -> list[_Wanted]:
        """Returns what to make with a file: the converter takes longer to start than to make one."""
        known: list[_Wanted] = [(each, ()) for each in self._group]
        is_ranked = wanted not in known and wanted in self._foreseen
        listed = self._foreseen if is_ranked else known if wanted in known else [wanted]
        if is_ranked:
            self._remove_passing()
        first = listed.index(wanted)
        several = max(1, _AT_ONCE_BYTES // max(1, self._fp32.stat().st_size))
        others = [each for each in listed[first : first + several] if each not in self._made]
        self._passing = others if is_ranked else self._passing
        return others

    def _remove_passing(self) -> None:
        for passed in self._passing:
            made = self._made.pop(passed, None)  # none where the step that was to make it failed as a whole
            if isinstance(made, QuantizedFile):
                made.path.unlink()

    def _calibrate(self) -> None:
        request = self._request
        order: dict[str, Any] = {
            "action": "calibrate",
            "fp32": str(self._fp32),
            "binding": self._binding,
            "output": str(request.scratch),
            "fixed": self._precision == "int8",
        }
        samples = request.calibration
        if order["fixed"] and (samples is None or samples.count == 0):
            raise BuildFailedError("tflite-int8 needs calibration samples", hint="give --samples FILE.npz")
        limit = None if order["fixed"] else _LOOKED_AT
        order["samples"] = store_samples(samples, request.scratch / "calibration", limit=limit)
        found = client.run_step(order, request.progress)
        self._ranges = found["ranges"]
        self._weighted = Layers(found["layers"], found["ends"])
        self._outline = found["outline"]
        if self._precision != "int8" and not found["has_tables"]:
            self._group = [candidate for candidate in self._group if not candidate.needs_tables]

    def _make(self, wanted: Sequence[_Wanted]) -> None:
        orders: list[dict[str, Any]] = []
        for candidate, kept in wanted:
            self._count += 1
            spared = self.spare(candidate, kept)
            orders.append(
                {
                    "fp32": str(self._rounded if candidate.rounded else self._fp32),
                    "unrounded": str(self._fp32) if candidate.rounded else None,
                    "file": str(self._request.scratch / f"{self._precision}.{candidate.name}.{self._count}.tflite"),
                    "rules": [asdict(rule) for rule in candidate.rules],
                    "dynamic": spared.dynamic,
                    "float": spared.in_float,
                }
            )
        step = {"action": "quantize", "ranges": self._ranges, "orders": orders}
        result = client.run_step(step, self._request.progress)
        self.versions = result["versions"]
        for (candidate, kept), order, made in zip(wanted, orders, result["made"], strict=True):
            self._made[candidate, kept] = (
                self._explain_failure(candidate, made["failed"])
                if "failed" in made
                else QuantizedFile(
                    path=Path(order["file"]),
                    candidate=candidate,
                    binding={**self._binding, "reset_variables": made["keeps_state"]},
                    facts={name: fact for name, fact in made.items() if name != "outline"},
                    outline=made["outline"],
                )
            )

    def _explain_failure(self, candidate: TfliteCandidate, reason: str | None) -> BuildFailedError:
        if reason is None:
            return BuildFailedError(
                f"nothing in the model can be quantized to {self._precision} ({candidate.name})",
                hint="tflite-fp32 takes the model as it is",
            )
        return BuildFailedError(
            f"TFLite's quantizer fails on {candidate.name}: {reason}",
            hint="tflite-fp32 needs no quantization; ort-int8 has another quantizer",
        )
