"""The two steps of a conversion, each from a request to a result, both in JSON values.

`convert` turns ONNX into an FP32 file; `quantize` turns that file into another precision.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx

from .inspect_file import describe_file
from .lower import Lowered, lower
from .quantize import (
    CANDIDATES,
    SIGNAL_TO_NOISE_DB,
    Candidate,
    Ranges,
    collect_ranges,
    make_candidate,
    make_mixed,
    read_table_ranges,
)
from .samples import Array, Samples
from .select_candidate import choose, measure_batched, measure_cosine, measure_times, run_samples
from .sensitivity import rank_by_noise

FP32_COSINE = 0.9999
_PROBE_BATCH = 3
_PACKAGES = ("onnx2tf", "ai-edge-quantizer", "ai-edge-litert", "onnx", "numpy")

Progress = Callable[[str], None]


class ConversionError(Exception):
    """The conversion could not be made, or gave wrong values."""


def convert(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Converts ONNX to `fp32.tflite`.

    Args:
        request: `onnx` (path), `output` (folder), `dynamic_batch`, `samples` (`{"inputs": {name: .npy}, "outputs":
            {name: .npy}}`) and/or `shapes` ({input name: shape of one feed}).
        progress: Takes a line about what is going on.
    """
    output = Path(request["output"])
    samples = Samples(request["samples"]) if request.get("samples") else None
    shapes = dict(samples.shapes()) if samples else {name: tuple(shape) for name, shape in request["shapes"].items()}
    dynamic_batch = bool(request["dynamic_batch"]) and all(shape[:1] == (1,) for shape in shapes.values())
    file = output / "fp32.tflite"

    def find_fault(lowered: Lowered) -> str | None:
        _complete_binding(lowered, splits_batch=dynamic_batch)
        file.write_bytes(lowered.data)
        if samples is None or not samples.has_outputs:
            return None
        progress("checking the values of the FP32 file")
        cosines = measure_cosine(file, lowered.binding, samples)
        if lowered.binding["dynamic_batch"] and samples.count >= _PROBE_BATCH:
            for name, value in measure_batched(file, lowered.binding, samples, _PROBE_BATCH).items():
                cosines[name] = min(cosines[name], value)
        wrong = [f"{name} {value:.4f}" for name, value in cosines.items() if value < FP32_COSINE]
        return f"wrong values after a resize or conversion (cosine with ONNX: {', '.join(wrong)})" if wrong else None

    progress("converting ONNX to TFLite")
    model = onnx.load(request["onnx"])
    with tempfile.TemporaryDirectory(dir=output) as work:
        lowered = lower(model, shapes, Path(work), dynamic_batch=dynamic_batch, is_right=_guard(find_fault))
    if not lowered.binding["dynamic_batch"]:
        fault = find_fault(lowered)
        if fault is not None:
            raise ConversionError(f"the FP32 file does not follow the ONNX model: {fault}")
    cosines = measure_cosine(file, lowered.binding, samples) if samples and samples.has_outputs else {}
    facts = describe_file(lowered.data)
    return {
        "file": file.name,
        "binding": lowered.binding,
        "recipe": {"converter": "onnx2tf flatbuffer_direct", **facts},
        "cosine": cosines,
        "notes": lowered.notes,
        "versions": _versions(),
    }


def _guard(find_fault: Callable[[Lowered], str | None]) -> Callable[[Lowered], str | None]:
    """Lets a file that does not even load count as a wrong one."""

    def guarded(lowered: Lowered) -> str | None:
        try:
            return find_fault(lowered)
        except (RuntimeError, ValueError) as error:
            return f"the resizable file does not run: {error}"

    return guarded


def _complete_binding(lowered: Lowered, *, splits_batch: bool) -> None:
    """Adds what can only be read from the file: the tensors' positions, and whether it keeps state."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=lowered.data)
    for kind, details in (
        ("inputs", interpreter.get_input_details()),
        ("outputs", interpreter.get_output_details()),
    ):
        positions = {detail["name"]: position for position, detail in enumerate(details)}
        for entry in lowered.binding[kind]:
            if entry["tensor"] not in positions:
                raise ConversionError(f"{kind[:-1]} {entry['name']} is not in the converted file")
            entry["position"] = positions[entry["tensor"]]
    lowered.binding["reset_variables"] = describe_file(lowered.data)["keeps_state"]
    lowered.binding["splits_batch"] = splits_batch and not lowered.binding["dynamic_batch"]


def quantize(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Converts the FP32 file to another precision.

    Args:
        request: `fp32` (path), `binding`, `output` (folder), `precision` (`fp16`, `int8`, `int8-dynamic`),
            `min_cosine`, `calibration` and `tuning` (samples as in `convert`; calibration only for `int8`).
        progress: Takes a line about what is going on.
    """
    fp32, binding, precision = Path(request["fp32"]), request["binding"], str(request["precision"])
    data, min_cosine = fp32.read_bytes(), float(request["min_cosine"])
    calibration = Samples(request["calibration"]) if request.get("calibration") else None
    tuning = Samples(request["tuning"]) if request.get("tuning") else calibration
    names = {entry["name"]: entry["tensor"] for entry in binding["inputs"]}
    ranges: Ranges | None = None
    if precision == "int8":
        if calibration is None:
            raise ConversionError("static INT8 needs calibration samples")
        progress(f"calibrating on {calibration.count} samples")
        ranges = collect_ranges(data, names, calibration, progress)
    elif precision == "int8-dynamic":
        ranges = read_table_ranges(data)
    workshop = _Workshop(fp32, binding, Path(request["output"]), precision, ranges, tuning, min_cosine, progress)
    candidates = CANDIDATES[precision]
    if precision == "int8-dynamic" and not ranges:
        candidates = tuple(candidate for candidate in candidates if not candidate.needs_tables)
    follows = [workshop.attempt(candidate) for candidate in candidates]
    if precision == "int8" and not any(follows) and ranges and calibration is not None:
        ranked = rank_by_noise(data, names, calibration, ranges)
        for limit_db in SIGNAL_TO_NOISE_DB:
            mixed = [workshop.attempt(make_mixed(limit_db, ranked, tables=tables)) for tables in (True, False)]
            if any(mixed):
                break
    trials, failures = workshop.trials, workshop.failures
    if not trials:
        text = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise ConversionError(f"nothing in the model can be quantized to {precision}. {text}".strip())
    if tuning is not None:
        workshop.measure_times(next(tuning.feeds(1)))
    chosen = trials[choose(trials, min_cosine) if tuning is not None else 0]
    return _finish(request, trials, chosen, failures)


class _Workshop:
    """Makes candidates of one precision and keeps what was seen of each.

    Attributes:
        trials: Those that could be made and run.
        failures: Name -> why it could not.
    """

    def __init__(
        self,
        fp32: Path,
        binding: Mapping[str, Any],
        output: Path,
        precision: str,
        ranges: Ranges | None,
        tuning: Samples | None,
        min_cosine: float,
        progress: Progress,
    ) -> None:
        self._fp32, self._data, self._binding = fp32, fp32.read_bytes(), binding
        self._output, self._precision, self._ranges = output, precision, ranges
        self._tuning, self._min_cosine, self._progress = tuning, min_cosine, progress
        needs_reference = tuning is not None and not tuning.has_outputs
        self._reference = run_samples(fp32, binding, tuning) if tuning is not None and needs_reference else None
        self._seen = {hashlib.sha256(self._data).digest()}
        self.trials: list[dict[str, Any]] = []
        self.failures: dict[str, str] = {}

    def attempt(self, candidate: Candidate) -> bool:
        """Makes and checks one candidate; says whether it follows FP32."""
        self._progress(f"trying {self._precision}: {candidate.name}")
        file = self._output / f"{self._precision}.{candidate.name}.tflite"
        try:
            made = make_candidate(self._data, candidate, self._ranges)
            digest = hashlib.sha256(made).digest()
            if digest in self._seen:
                return False
            self._seen.add(digest)
            file.write_bytes(made)
            cosines = measure_cosine(file, self._binding, self._tuning, self._reference) if self._tuning else {}
        except Exception as error:  # AEQ and the runtime raise all kinds of errors for graphs they cannot take
            self.failures[candidate.name] = f"{type(error).__name__}: {error}"
            file.unlink(missing_ok=True)
            return False
        trial = _describe_trial(candidate, file, cosines, self._binding)
        self.trials.append(trial)
        return trial["min_cosine"] is None or bool(trial["min_cosine"] >= self._min_cosine)

    def measure_times(self, feeds: Mapping[str, Array]) -> None:
        """Adds every trial's time, measured in turns with FP32."""
        paths = [self._fp32, *(self._output / trial["file"] for trial in self.trials)]
        times = measure_times(paths, self._binding, feeds)
        for trial, latency_ms in zip(self.trials, times[1:], strict=True):
            trial["latency_ms"], trial["speedup_over_fp32"] = latency_ms, times[0] / latency_ms


def _find_worst(cosines: Mapping[str, float], binding: Mapping[str, Any]) -> float | None:
    """Returns the smallest cosine of the float outputs; indices and flags count only where there are no others."""
    floats = {entry["name"] for entry in binding["outputs"] if str(entry["dtype"]).startswith(("float", "bfloat"))}
    judged = [value for name, value in cosines.items() if name in floats] or list(cosines.values())
    return min(judged, default=None)


def _describe_trial(
    candidate: Candidate, file: Path, cosines: Mapping[str, float], binding: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "file": file.name,
        "dynamic_operators": len(candidate.dynamic_scopes),
        "float_operators": len(candidate.float_scopes),
        "rules": [{"mode": rule.mode, "operators": list(rule.operators)} for rule in candidate.rules],
        "cosine": dict(cosines),
        "min_cosine": _find_worst(cosines, binding),
        "size_bytes": file.stat().st_size,
    }


def _finish(
    request: Mapping[str, Any], trials: list[dict[str, Any]], chosen: dict[str, Any], failures: Mapping[str, str]
) -> dict[str, Any]:
    """Keeps the chosen file under the precision's name and removes the others."""
    output, precision = Path(request["output"]), str(request["precision"])
    file = output / f"{precision}.tflite"
    (output / chosen["file"]).replace(file)
    for trial in trials:
        (output / trial["file"]).unlink(missing_ok=True)
    facts = describe_file(file.read_bytes())
    notes = []
    worst = chosen["min_cosine"]
    goal = float(request["min_cosine"])
    if worst is not None and worst < goal:
        notes.append(f"no way of quantizing reaches a cosine of {goal:g} with FP32: the best has {worst:.4f}")
    if chosen["dynamic_operators"] or chosen["float_operators"]:
        notes.append(
            "fixed scales cannot hold the inputs of some operators: "
            f"{chosen['dynamic_operators']} take 8-bit scales while running, {chosen['float_operators']} stay in float"
        )
    return {
        "file": file.name,
        "binding": {**request["binding"], "reset_variables": facts["keeps_state"]},
        "recipe": {
            "quantizer": "ai-edge-quantizer",
            "chosen": chosen["name"],
            "calibration": "min-max over all samples" if precision == "int8" else None,
            "trials": [{key: value for key, value in trial.items() if key != "file"} for trial in trials],
            "failed_trials": dict(failures),
            **facts,
        },
        "cosine": chosen["cosine"],
        "notes": notes,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _PACKAGES}
