"""What the TFLite targets give to the search: files made in the converter's environment, run and timed on samples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.targets.contract import BuildRequest, Feeds
from modelwright.targets.quantization.judge import Outputs
from modelwright.targets.quantization.quantizer import Quantizer, Trial
from modelwright.targets.readiness import package_versions
from modelwright.targets.tflite import client
from modelwright.targets.tflite.answers import RUNTIME, answer
from modelwright.targets.tflite.recipes import CANDIDATES, WEIGHTED_AND_TABLES, TfliteCandidate
from modelwright.targets.tflite.samples import store_samples

_CLOSE = 1.1
"""Files whose times differ by less are equally fast; then the smaller one is taken."""


def describe_choice() -> dict[str, Any]:
    """Returns by what one of several good files is chosen: how close two times count as equal, and what runs them."""
    return {"equally_fast": _CLOSE, "run_by": package_versions(RUNTIME.replace("_", "-"))}


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
        precision: `fp16`, `int8` or `int8-dynamic`.

    Attributes:
        versions: Package -> version of what makes the files.
        timed: Name of a candidate -> its `latency_ms` and `speedup_over_fp32`, where they were timed.
    """

    def __init__(self, request: BuildRequest, converted: Mapping[str, Any], precision: str) -> None:
        self._request = request
        self._precision = precision
        self._fp32 = Path(converted["folder"], converted["file"])
        self._binding: Mapping[str, Any] = converted["binding"]
        self._group: Sequence[TfliteCandidate] = CANDIDATES[precision]
        self._made: dict[tuple[str, tuple[str, ...]], QuantizedFile | BuildFailedError] = {}
        self._ranges: str | None = None
        self._layers: dict[str, Mapping[str, Any]] = {}
        self.versions: Mapping[str, str] = {}
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

    def estimate_gains(self) -> Mapping[str, float]:
        return {name: layer["noise"] for name, layer in self._layers.items()}

    def base(self, best: TfliteCandidate) -> TfliteCandidate:
        # Operators without weights, which other candidates quantize too, cannot be spared one by one.
        return WEIGHTED_AND_TABLES if self._layers else best

    def unchecked(self) -> TfliteCandidate:
        for candidate in self._group:
            try:
                self.build(candidate, ())
            except BuildFailedError:
                continue
            return candidate
        return self._group[0]

    def choose(self, usable: Sequence[Trial[TfliteCandidate]]) -> Trial[TfliteCandidate]:
        """Returns the fastest; of equally fast ones the smallest."""
        if len(usable) == 1:
            return usable[0]
        self._request.progress(f"timing {len(usable)} candidates")
        files = [self.build(trial.candidate, trial.kept) for trial in usable]
        samples = self._request.tuning or self._request.calibration
        order = {
            "action": "measure",
            "files": [str(self._fp32), *(str(file.path) for file in files)],
            "bindings": [self._binding, *(file.binding for file in files)],
            "samples": store_samples(samples, self._request.scratch / "timed", limit=1),
        }
        fp32_ms, *times_ms = client.run_step(order, self._request.progress)["latency_ms"]
        for trial, time_ms in zip(usable, times_ms, strict=True):
            self.timed[trial.candidate.name] = {"latency_ms": time_ms, "speedup_over_fp32": fp32_ms / time_ms}
        close = [number for number, time_ms in enumerate(times_ms) if time_ms <= min(times_ms) * _CLOSE]
        return usable[min(close, key=lambda number: files[number].path.stat().st_size)]

    def explain_kept(self, kept: Collection[str]) -> str | None:
        """Returns what the user has to know of the layers that got no fixed scales."""
        if not kept:
            return None
        dynamic = sum(self._is_dynamic(name) for name in kept)
        counts = {"take 8-bit scales while running": dynamic, "stay in float": len(kept) - dynamic}
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"fixed scales cannot hold the inputs of some operators: {told}"

    def _is_dynamic(self, name: str) -> bool:
        return bool(self._layers[name]["operator"] == "FULLY_CONNECTED")

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
        if self._precision == "int8-dynamic" and not found["has_tables"]:
            self._group = [candidate for candidate in self._group if not candidate.needs_tables]

    def _make(self, wanted: Sequence[tuple[TfliteCandidate, tuple[str, ...]]]) -> None:
        orders: list[dict[str, Any]] = []
        for candidate, kept in wanted:
            file = self._request.scratch / f"{self._precision}.{candidate.name}.{len(self._made) + len(orders)}.tflite"
            dynamic = [name for name in kept if self._is_dynamic(name)]
            orders.append(
                {
                    "file": str(file),
                    "rules": [asdict(rule) for rule in candidate.rules],
                    "dynamic": dynamic,
                    "float": [name for name in kept if name not in dynamic],
                }
            )
        step = {"action": "quantize", "fp32": str(self._fp32), "ranges": self._ranges, "orders": orders}
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
