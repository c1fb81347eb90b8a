"""The child side of a measurement: one artifact, loaded and timed in a process of its own.

Nothing else happens in this process, so its memory is the artifact's and its runtime's. The module keeps the loaded
session between calls; `modelwright.core.child` calls its functions by name.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.artifact import Artifact, open_artifact
from modelwright.core.errors import BadInputError, MeasurementInvalidError, ModelwrightError, ToolchainMissingError
from modelwright.core.fidelity import FidelityMeter, count_correct
from modelwright.core.samples import Array, SampleRef, open_samples
from modelwright.core.signature import Signature
from modelwright.targets.base import RunSettings, Session
from modelwright.targets.table import get_target

ROTATED_INPUTS = 8
"""Different inputs taken in turn, so that no run finds its input in the cache by luck alone."""
WARM_UP_SHARE = 0.1
"""Part of a window spent unmeasured at its start: other artifacts ran in between and took the caches."""


@dataclass
class _State:
    """What stays loaded between calls."""

    artifact: Artifact | None = None
    session: Session | None = None
    calls: list[Callable[[], object]] = field(default_factory=list)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    turn: int = 0


_state = _State()


def open_in_child(directory: str, threads: int, batch: int, samples: dict[str, Any] | None) -> dict[str, Any]:
    """Loads an artifact and runs it once.

    Args:
        directory: The artifact's folder; its hashes have been verified by the parent.
        threads: Intra-operator threads.
        batch: Samples an inference.
        samples: Inputs to run on; None for the ones packed with the artifact.

    Returns:
        `import_ms`, `load_ms`, `first_inference_ms`, `runtime_bytes` (proportional set size with the runtime imported
        and nothing loaded; None where the system does not tell) and `settings`.
    """
    artifact = open_artifact(Path(directory))
    target = get_target(artifact.manifest.target)
    inputs = _read_inputs(artifact, samples, batch)

    started = time.perf_counter()
    _import_runtime(target.record.run_packages)
    import_ms = _elapsed_ms(started)
    runtime_bytes = read_proportional_bytes()

    started = time.perf_counter()
    _state.session = _load(artifact, threads)
    load_ms = _elapsed_ms(started)
    _state.artifact = artifact
    _state.calls = [_state.session.bind(feeds) for feeds in inputs]

    started = time.perf_counter()
    _state.calls[0]()
    first_inference_ms = _elapsed_ms(started)
    return {
        "import_ms": import_ms,
        "load_ms": load_ms,
        "first_inference_ms": first_inference_ms,
        "runtime_bytes": runtime_bytes,
        "settings": {"threads": threads, "batch": batch, "inputs": len(inputs)},
    }


def _load(artifact: Artifact, threads: int) -> Session:
    manifest = artifact.manifest
    try:
        return _state.stack.enter_context(
            get_target(manifest.target).load(
                artifact.directory,
                manifest.model_file,
                manifest.recipe,
                manifest.signature,
                RunSettings(threads=threads),
            )
        )
    except ModelwrightError:
        raise
    except Exception as error:  # a runtime's loader can raise anything
        raise MeasurementInvalidError(
            f"{artifact.directory.name}: {manifest.target} cannot load {manifest.model_file}",
            hint="the file is damaged, or was made for another version of the runtime: build it again",
        ) from error


def run_window(window_s: float) -> dict[str, Any]:
    """Runs inferences for about `window_s` seconds, at least one.

    Returns:
        `latencies_ns`: of every measured inference. `inferences`: all that ran, warm-up included, and `elapsed_s`
        over all of them, for meters that saw them all.
    """
    clock = time.perf_counter_ns
    calls, turn = _state.calls, _state.turn
    count = len(calls)
    latencies: list[int] = []
    warm_up_ns = int(window_s * WARM_UP_SHARE * 1e9)
    warmed = 0
    gc.collect()
    gc.disable()
    try:
        begin = clock()
        while clock() - begin < warm_up_ns:
            calls[turn % count]()
            turn += 1
            warmed += 1
        end = clock() + int(window_s * 1e9)
        while True:
            call = calls[turn % count]
            started = clock()
            call()
            stopped = clock()
            latencies.append(stopped - started)
            turn += 1
            if stopped >= end:
                break
        elapsed_s = (clock() - begin) / 1e9
    finally:
        gc.enable()
    _state.turn = turn
    return {"latencies_ns": latencies, "inferences": warmed + len(latencies), "elapsed_s": elapsed_s}


def finish_in_child() -> dict[str, Any]:
    """Returns the memory at its peak and now, and what really ran, read back from the runtime."""
    peak_bytes, steady_bytes = read_peak_bytes(), read_proportional_bytes()
    assert _state.session is not None
    try:
        executed = _state.session.describe_execution()
    except Exception as error:  # introspection must not cost a measurement that is already taken
        executed = {"precision": None, "reason": f"{type(error).__name__}: {error}"}
    return {"peak_memory_bytes": peak_bytes, "steady_memory_bytes": steady_bytes, "precision_executed": executed}


def prove_on_reference() -> dict[str, Any] | None:
    """Compares the loaded artifact with the FP32 outputs packed with it; None when none are packed."""
    assert _state.artifact is not None
    assert _state.session is not None
    path = _state.artifact.reference_path
    if path is None:
        return None
    meter = FidelityMeter()
    arrays = _read_reference(path)
    count = len(next(iter(arrays.values())))
    for index in range(count):
        feeds, expected = _reference_row(arrays, index)
        meter.add(expected, _state.session.run(feeds))
    return {"fidelity": meter.result().to_dict(), "count": count, "correct": None, "correct_fp32": None}


def check_samples_in_child(samples: dict[str, Any], signature: dict[str, Any]) -> None:
    """Reads all samples once and refuses those that do not fit, before anything is measured on them."""
    open_samples(SampleRef.from_dict(samples), Signature.from_dict(signature))


def count_correct_in_child(samples: dict[str, Any]) -> dict[str, Any] | None:
    """Counts right answers of the loaded artifact on labelled samples; None without labels."""
    assert _state.artifact is not None
    assert _state.session is not None
    opened = open_samples(SampleRef.from_dict(samples), _state.artifact.manifest.signature, checked=True)
    if opened.labels is None:
        return None
    correct = sum(
        count_correct(_state.session.run(feeds), label)
        for feeds, label in zip(opened.feeds(), opened.labels, strict=True)
    )
    return {"correct": int(correct), "count": opened.count}


def read_peak_bytes() -> int | None:
    """Returns the largest resident set of this process since it started (`VmHWM`), which fork does not inherit."""
    return _read_proc_bytes("/proc/self/status", "VmHWM:")


def read_proportional_bytes() -> int | None:
    """Returns the proportional set size now: pages shared with other processes count by their share."""
    return _read_proc_bytes("/proc/self/smaps_rollup", "Pss:")


def _read_proc_bytes(path: str, key: str) -> int | None:
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def _read_inputs(artifact: Artifact, samples: dict[str, Any] | None, batch: int) -> list[dict[str, Array]]:
    signature = artifact.manifest.signature
    if samples is None:
        return _read_packed_inputs(artifact, batch)
    opened = open_samples(SampleRef.from_dict(samples), signature, checked=True)
    if batch == 1:
        return list(opened.feeds(limit=ROTATED_INPUTS))
    return [
        opened.batch([(first * batch + offset) % opened.count for offset in range(batch)])
        for first in range(min(ROTATED_INPUTS, max(1, opened.count // batch)))
    ]


def _read_packed_inputs(artifact: Artifact, batch: int) -> list[dict[str, Array]]:
    path = artifact.reference_path
    if path is None:
        raise MeasurementInvalidError(
            f"{artifact.directory} has no inputs packed with it", hint="give some with --samples"
        )
    arrays = _read_reference(path)
    rows = [_reference_row(arrays, index)[0] for index in range(len(next(iter(arrays.values()))))]
    if batch == 1:
        return rows[:ROTATED_INPUTS]
    return [
        {
            name: np.concatenate([rows[(first * batch + offset) % len(rows)][name] for offset in range(batch)])
            for name in rows[0]
        }
        for first in range(min(ROTATED_INPUTS, max(1, len(rows) // batch)))
    ]


def _read_reference(path: Path) -> dict[str, Array]:
    """Reads the inputs and FP32 outputs packed with an artifact; they are few and small."""
    try:
        with np.load(path, allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadInputError(f"{path} cannot be read: {error}", hint="build the artifact again") from error
    if len({len(array) if array.ndim else 0 for array in arrays.values()} - {0}) != 1:
        raise BadInputError(f"{path} does not hold samples", hint="build the artifact again")
    return arrays


def _reference_row(arrays: dict[str, Array], index: int) -> tuple[dict[str, Array], dict[str, Array]]:
    feeds = {name.removeprefix("input:"): a[index] for name, a in arrays.items() if name.startswith("input:")}
    expected = {name.removeprefix("output:"): a[index] for name, a in arrays.items() if name.startswith("output:")}
    return {name: np.ascontiguousarray(value) for name, value in feeds.items()}, expected


def _import_runtime(packages: Sequence[str] | Any) -> None:
    """Imports what the target runs on, before anything is loaded, so that its share of the memory can be told."""
    for alternatives in packages:
        for name in alternatives.split("|"):
            try:
                importlib.import_module(name)
                break
            except ModuleNotFoundError:
                continue
            except Exception as error:  # a vendor's import can raise anything
                raise ToolchainMissingError(f"{name} is installed but does not import", detail=str(error)) from error


def _elapsed_ms(started_s: float) -> float:
    return (time.perf_counter() - started_s) * 1e3
