"""What the TFLite targets give to the search: files made in the converter's environment, run and timed on samples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.machine import Machine
from modelwright.targets.contract import BuildRequest, Feeds
from modelwright.targets.quantization.judge import Outputs
from modelwright.targets.quantization.quantizer import Quantizer, Trial
from modelwright.targets.readiness import package_versions
from modelwright.targets.tflite import client
from modelwright.targets.tflite.answers import RUNTIME, answer
from modelwright.targets.tflite.conversion import convert_rounded
from modelwright.targets.tflite.order import WORTH, choose_by_speed, find_order, find_place
from modelwright.targets.tflite.recipes import CANDIDATES, WEIGHTED_AND_TABLES, TfliteCandidate
from modelwright.targets.tflite.samples import store_samples

_DYNAMIC = frozenset({"CONV_2D", "FULLY_CONNECTED"})
"""What XNNPACK runs in 8 bits with scales that it takes while running."""


def describe_choice(precision: str, machine: Machine) -> dict[str, Any]:
    """Returns by what one of several good files is chosen: the order of them, what beats it, and what runs them."""
    order, _ = find_order(precision, machine)
    return {"order": order.names, "worth": WORTH, "run_by": package_versions(RUNTIME.replace("_", "-"))}


@dataclass(frozen=True, kw_only=True)
class QuantizedFile:
    """A file, how ONNX's names, layouts and batch sizes map to it, and what its operators really compute in."""

    path: Path
    binding: Mapping[str, Any]
    facts: Mapping[str, Any]


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
        self._group: Sequence[TfliteCandidate] = [
            candidate for candidate in CANDIDATES[precision] if self._rounded is not None or not candidate.rounded
        ]
        self._made: dict[tuple[str, tuple[str, ...]], QuantizedFile | BuildFailedError] = {}
        self._ranges: str | None = None
        self._layers: dict[str, Mapping[str, Any]] = {}
        self._ends: dict[str, str] = {}
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
        key = (candidate.name, tuple(kept))
        if key not in self._made:
            # The converter takes longer to start than to make a file: all candidates are made at once.
            first = candidate in self._group and not kept
            self._make([(each, ()) for each in self._group] if first else [(candidate, tuple(kept))])
        made = self._made[key]
        if isinstance(made, BuildFailedError):
            raise made
        return made

    def run(self, model: QuantizedFile, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
        return answer(model.path, model.binding, feeds, self._request.progress)

    def costs(self, model: QuantizedFile) -> Mapping[str, float]:  # noqa: ARG002 - the FP32 file says it
        totals = {kind: sum(layer[kind] for layer in self._layers.values()) or 1.0 for kind in ("work", "weights")}
        shares = {}
        for name, layer in self._layers.items():
            # A lookup works for nothing, but its table may be half of the file.
            kind = "weights" if layer["operator"] == "GATHER" else "work"
            # A matrix product that takes its scales while running is as fast as one with fixed ones.
            shares[name] = 0.0 if self._is_dynamic(name) else layer[kind] / totals[kind]
        return shares

    def estimate_noise(self, candidate: TfliteCandidate, model: QuantizedFile) -> Mapping[str, float]:  # noqa: ARG002
        return {name: layer["noise"] for name, layer in self._layers.items()}

    def foresee(self, candidate: TfliteCandidate, choices: Iterable[tuple[str, ...]]) -> None:
        self._make([(candidate, kept) for kept in choices])

    def base(self, best: TfliteCandidate) -> TfliteCandidate:
        # Operators without weights, which other candidates quantize too, cannot be spared one by one; and weights that
        # were rounded for what all rounding before them makes are no float weights.
        return WEIGHTED_AND_TABLES if self._layers and self._precision == "int8" else best

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

    def explain_kept(self, kept: Collection[str]) -> str | None:
        """Returns what the user has to know of the layers that got no fixed scales."""
        if not kept:
            return None
        dynamic = sum(self._is_dynamic(name) for name in kept)
        counts = {"take 8-bit scales while running": dynamic, "stay in float": len(kept) - dynamic}
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"fixed scales cannot hold the inputs of some operators: {told}"

    def _is_dynamic(self, name: str) -> bool:
        return name in self._layers and bool(self._layers[name]["operator"] == "FULLY_CONNECTED")

    def _calibrate(self) -> None:
        request = self._request
        order: dict[str, Any] = {
            "action": "calibrate",
            "fp32": str(self._fp32),
            "binding": self._binding,
            "output": str(request.scratch),
        }
        if self._precision == "int8":
            if request.calibration is None or request.calibration.count == 0:
                raise BuildFailedError("tflite-int8 needs calibration samples", hint="give --samples FILE.npz")
            order["calibration"] = store_samples(request.calibration, request.scratch / "calibration")
        found = client.run_step(order, request.progress)
        self._ranges = found["ranges"]
        self._layers = {layer["name"]: layer for layer in found["layers"]}
        self._ends = {end["name"]: end["operator"] for end in found["ends"]}
        if self._precision != "int8" and not found["has_tables"]:
            self._group = [candidate for candidate in self._group if not candidate.needs_tables]

    def _make(self, wanted: Sequence[tuple[TfliteCandidate, tuple[str, ...]]]) -> None:
        orders: list[dict[str, Any]] = []
        for candidate, kept in wanted:
            file = self._request.scratch / f"{self._precision}.{candidate.name}.{len(self._made) + len(orders)}.tflite"
            ends = self._ends if candidate.spares_ends else {}
            spared = dict.fromkeys((*kept, *ends))
            dynamic = [name for name in spared if self._is_dynamic(name) or ends.get(name) in _DYNAMIC]
            orders.append(
                {
                    "fp32": str(self._rounded if candidate.rounded else self._fp32),
                    "file": str(file),
                    "rules": [asdict(rule) for rule in candidate.rules],
                    "dynamic": dynamic,
                    "float": [name for name in spared if name not in dynamic],
                }
            )
        step = {"action": "quantize", "ranges": self._ranges, "orders": orders}
        result = client.run_step(step, self._request.progress)
        self.versions = result["versions"]
        for (candidate, kept), order, made in zip(wanted, orders, result["made"], strict=True):
            self._made[candidate.name, kept] = (
                self._explain_failure(candidate, made["failed"])
                if "failed" in made
                else QuantizedFile(
                    path=Path(order["file"]),
                    binding={**self._binding, "reset_variables": made["keeps_state"]},
                    facts=made,
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
