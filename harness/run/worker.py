"""The child side of a measurement: one artifact, loaded and timed in a process of its own.

Nothing else happens in this process, so its memory is the artifact's and its runtime's. The module keeps the loaded
session between calls; `modelwright.core.process.child` calls its functions by name.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError, ToolchainMissingError
from modelwright.core.nvidia.cuda import CudaDevice
from modelwright.core.nvidia.driver import explain_out_of_memory
from modelwright.core.outputs.fidelity import compare_outputs, count_correct
from modelwright.core.outputs.tasks.roles import find_roles
from modelwright.core.records.artifact import Artifact, open_artifact, verify_files
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.signature import Signature
from modelwright.core.samples.sample_set import Array, SampleRef, open_samples
from modelwright.harness.run.crew import Calls, Crew
from modelwright.harness.run.device_timing import Lane, time_computations
from modelwright.harness.run.inputs import read_inputs, read_reference_file, take_reference_row
from modelwright.harness.run.told import Executed
from modelwright.targets.contract import Computation, Device, RunSettings, Session, Target
from modelwright.targets.options import Value
from modelwright.targets.table import get_target

WARM_UP_SHARE = 0.1
"""Part of a window spent unmeasured at its start: other artifacts ran in between and took the caches."""
GPU_WARM_UP_S = 0.1
"""The least of it on a GPU, whose clocks fall while it waits for its turn and take tens of milliseconds to rise again;
with the inferences end to end that follow, the computation alone gets the 0.2 s that `trtexec` warms up for."""
END_TO_END_SHARE = 0.5
"""Part of a GPU session's window for inferences end to end; the rest is for the computation alone."""


@dataclass
class _State:
    """What stays loaded between calls."""

    target: Target | None = None
    artifact: Artifact | None = None
    session: Session | None = None
    calls: list[Callable[[], object]] = field(default_factory=list)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    turn: int = 0
    gpu: CudaDevice | None = None
    lanes: list[Lane] = field(default_factory=list)
    compute_turn: int = 0
    crew: Crew | None = None


_state = _State()


def open_in_child(
    directory: str,
    threads: int,
    batch: int,
    samples: dict[str, Any] | None,
    device: Device = "cpu",
    cuda_graph: bool = False,
    spin: bool = False,
    streams: int = 1,
    requests: int = 1,
    options: dict[str, Value] | None = None,
) -> dict[str, Any]:
    """Loads an artifact and runs it once.

    Args:
        directory: The artifact's folder; its files are hashed here, before they are loaded and again afterwards.
        threads: Intra-operator threads.
        batch: Samples an inference.
        samples: Inputs to run on; None for the ones packed with the artifact.
        device: Where it is to run.
        cuda_graph: Whether its computation is to be launched as a CUDA graph.
        spin: Whether to wait for the GPU by polling.
        streams: Inferences in flight on the GPU while the computation alone is timed.
        requests: Inferences in flight on the CPU.
        options: Settings of the runtime that are not to be at their defaults.

    Returns:
        `seal` of the artifact that was loaded, `import_ms`, `load_ms`, `first_inference_ms`, `runtime_bytes` (private
        memory with the runtime imported and nothing loaded; None where the system does not tell), `settings` as they
        really apply, with a reason where they are not what was asked for, and `gpu`: None on the CPU; else `uuid`,
        `name`, `compute_capability`, `context_ms` (creating the CUDA context, which `load_ms` does not hold) and
        `device_bytes_delta`: by how much the card's free memory shrank from before loading until every input was bound
        and had run once. The context itself is not in it, and what other processes took or gave back meanwhile is.

    Raises:
        BadInputError: Its files are not those of its manifest.
        MeasurementInvalidError: It cannot run as asked, or not at all.
        ToolchainMissingError: The runtime or the NVIDIA driver is absent or broken.
    """
    settings = RunSettings(
        threads=threads,
        device=device,
        cuda_graph=cuda_graph,
        spin=spin,
        streams=streams,
        requests=requests if device == "cpu" else 1,
        options=options or {},
    )
    artifact = open_artifact(Path(directory))
    verify_files(artifact)
    target = _state.target = get_target(artifact.manifest.target)
    inputs = read_inputs(artifact, samples, batch)

    started = time.perf_counter()
    _import_runtime(target.record.run_packages)
    import_ms = _elapsed_ms(started)
    runtime_bytes = read_private_bytes(artifact.directory)

    started = time.perf_counter()
    # Before the runtime is loaded: how a context waits is settled when it is created.
    _state.gpu = _state.stack.enter_context(CudaDevice(spin=spin)) if device == "cuda" else None
    context_ms = _elapsed_ms(started)
    free_bytes = None if _state.gpu is None else _state.gpu.memory_info()[0]

    failure = f"{target.record.name} cannot be loaded at batch {batch}"
    with _explaining_failure(artifact, "cannot run"), _explaining_gpu_memory(failure):
        started = time.perf_counter()
        _state.session = _load(artifact, settings)
        load_ms = _elapsed_ms(started)
        _state.artifact = artifact
        _require_device(_state.session, target.record.name, device)
        _state.calls = [_state.session.bind(feeds) for feeds in inputs]

        started = time.perf_counter()
        _state.calls[0]()
        first_inference_ms = _elapsed_ms(started)
        if settings.requests > 1:
            _state.crew = _open_crew(artifact, settings, _state.session, inputs)
        if _state.gpu is not None:
            _state.lanes = _bind_lanes(_state.session, inputs, streams, target.record.name, _state.gpu)
    verify_files(artifact)  # what was swapped after the first look may be what was loaded
    gc.collect()
    gc.freeze()  # what is loaded stays: the collections between the windows need not walk through it
    return {
        "seal": artifact.seal,
        "import_ms": import_ms,
        "load_ms": load_ms,
        "first_inference_ms": first_inference_ms,
        "runtime_bytes": runtime_bytes,
        "settings": {"threads": threads, "batch": batch, "inputs": len(inputs), **_describe_settings(settings)},
        "gpu": None if _state.gpu is None else _describe_gpu(_state.gpu, context_ms, free_bytes),
    }


def _load(artifact: Artifact, settings: RunSettings) -> Session:
    with _explaining_failure(artifact, "cannot load"):
        return _state.stack.enter_context(_open(artifact, settings))


def _open(artifact: Artifact, settings: RunSettings) -> contextlib.AbstractContextManager[Session]:
    manifest = artifact.manifest
    return get_target(manifest.target).load(
        artifact.directory, manifest.model_file, manifest.recipe, manifest.signature, settings
    )


def _open_crew(artifact: Artifact, settings: RunSettings, session: Session, inputs: Sequence[dict[str, Array]]) -> Crew:
    """Makes as many callers as there are to be inferences in flight; each one loads for itself what serves one only."""

    @contextlib.contextmanager
    def join() -> Iterator[Calls]:
        shared = session.share()
        if shared is not None:
            yield [shared.bind(feeds) for feeds in inputs]
            return
        with _open(artifact, settings) as own:
            yield [own.bind(feeds) for feeds in inputs]

    return Crew([join] * settings.requests)


@contextlib.contextmanager
def _explaining_failure(artifact: Artifact, what: str) -> Iterator[None]:
    """Turns whatever a runtime raises on a file, or on a recipe that came from anywhere, into one error."""
    manifest = artifact.manifest
    try:
        yield
    except ModelwrightError:
        raise
    except Exception as error:
        raise MeasurementInvalidError(
            f"{artifact.directory.name}: {manifest.target} {what} {manifest.model_file}",
            hint="the file is damaged, or was made for another version of the runtime: build it again",
            detail=f"{type(error).__name__}: {error}",
        ) from error


def _require_device(session: Session, name: str, device: Device) -> None:
    """Refuses numbers of one device under the name of another."""
    if session.device != device:
        raise MeasurementInvalidError(
            f"{name} was to run on {device}, but runs on {session.device}",
            hint="see what its runtime supports here: modelwright targets",
        )


def _bind_lanes(
    session: Session, inputs: Sequence[dict[str, Array]], streams: int, name: str, gpu: CudaDevice
) -> list[Lane]:
    """Binds the computation on every input to each stream and runs it; no lanes where a session has none to time.

    Raises:
        MeasurementInvalidError: It cannot keep that many inferences in flight.
    """
    lanes: list[Lane] = []
    for index in range(streams):
        bound = [session.bind_computation(feeds, index) for feeds in inputs]
        computations = [computation for computation in bound if computation is not None]
        if len(computations) == len(bound):
            lanes.append(Lane.on_device(computations, gpu))
    if lanes and len({lane.computations[0].stream for lane in lanes}) < streams:
        raise MeasurementInvalidError(
            f"{name} cannot keep {streams} inferences in flight on the GPU", hint="measure it with --streams 1"
        )
    for lane in lanes:  # once each, so that no lazy set-up is left for the first window
        for computation in lane.computations:
            computation.enqueue()
    gpu.synchronize()
    return lanes


def _describe_settings(asked: RunSettings) -> dict[str, Any]:
    """Returns how the session really runs; what only concerns a GPU is absent on the CPU."""
    told = {"requests": asked.requests, "options": dict(asked.options)}
    if _state.gpu is None:
        return {"device": "cpu", **told}
    computations: list[Computation] = [computation for lane in _state.lanes for computation in lane.computations]
    graph = bool(computations) and all(computation.uses_graph for computation in computations)
    untimed = None if computations else "the runtime does not let its computation be timed alone"
    no_graph = None if graph or not asked.cuda_graph else untimed or "the runtime cannot capture it in a CUDA graph"
    return {
        "device": "cuda",
        **told,
        "cuda_graph": graph,
        "cuda_graph_reason": no_graph,
        "spin": _state.gpu.spin,
        "streams": max(1, len(_state.lanes)),
        "streams_reason": untimed if asked.streams > 1 else None,
        "computation_reason": untimed,
    }


def _describe_gpu(gpu: CudaDevice, context_ms: float, free_bytes: int | None) -> dict[str, Any]:
    return {
        "uuid": gpu.uuid,
        "name": gpu.name,
        "compute_capability": gpu.compute_capability,
        "context_ms": context_ms,
        "device_bytes_delta": None if free_bytes is None else free_bytes - gpu.memory_info()[0],
    }


@contextlib.contextmanager
def _explaining_gpu_memory(failure: str) -> Iterator[None]:
    """Turns every vendor's way to run out of the GPU's memory into one error, which says how much is free."""
    try:
        yield
    except Exception as error:
        words = None if _state.target is None else _state.target.explain_memory(error)
        if _state.gpu is None or words is None or "the GPU is out of memory" in str(error):
            raise
        raise explain_out_of_memory(failure, _state.gpu.memory_info(), words) from error


def run_window(window_s: float) -> dict[str, Any]:
    """Runs inferences for about `window_s` seconds, at least one.

    Returns:
        `latencies_ns`: of every measured inference, from inputs to outputs in the host's memory. `inferences`: all that
        ran, warm-up included, and `elapsed_s` over all of them, for meters that saw them all. On a GPU the window has a
        second part, whose inferences are in none of these: `compute_latencies_ns`, `compute_inferences` and
        `compute_elapsed_s` are the same for the computation alone, by the device's own clock, and `compute_enqueue_ns`
        is the median of what the host took to queue it; all None where there is no such part.
    """
    with _explaining_gpu_memory("the inference cannot run"), _without_collecting():
        warm_up_s = max(window_s * WARM_UP_SHARE, GPU_WARM_UP_S if _state.gpu is not None else 0.0)
        if not _state.lanes:
            return {**_time_calls(window_s, warm_up_s), **_time_lanes(0.0)}
        compute_s = window_s * (1 - END_TO_END_SHARE)
        return {**_time_calls(window_s - compute_s, warm_up_s), **_time_lanes(compute_s)}


def _time_calls(window_s: float, warm_up_s: float) -> dict[str, Any]:
    """Times inferences end to end by the wall clock."""
    if _state.crew is not None:
        told = zip(("latencies_ns", "inferences", "elapsed_s"), _state.crew.run(window_s, warm_up_s), strict=True)
        return dict(told)
    clock = time.perf_counter_ns
    calls, turn = _state.calls, _state.turn
    count = len(calls)
    latencies: list[int] = []
    warm_up_ns = int(warm_up_s * 1e9)
    warmed = 0
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
    _state.turn = turn
    return {"latencies_ns": latencies, "inferences": warmed + len(latencies), "elapsed_s": elapsed_s}


def _time_lanes(window_s: float) -> dict[str, Any]:
    """Times computations alone by the device's events; None for everything where there are none to time."""
    if not _state.lanes:
        names = ("compute_latencies_ns", "compute_inferences", "compute_elapsed_s", "compute_enqueue_ns")
        return dict.fromkeys(names)
    times = time_computations(_state.lanes, window_s, warm_up_s=window_s * WARM_UP_SHARE, turn=_state.compute_turn)
    _state.compute_turn += times.inferences
    return {
        "compute_latencies_ns": times.latencies_ns,
        "compute_inferences": times.inferences,
        "compute_elapsed_s": times.elapsed_s,
        "compute_enqueue_ns": statistics.median(times.enqueue_ns),
    }


def run_energy_window(duration_s: float) -> dict[str, Any]:
    """Runs inferences end to end, one after the other without a pause, while the parent reads a slow meter.

    Args:
        duration_s: How long; at least one inference runs.

    Returns:
        `inferences` and `elapsed_s`.
    """
    clock = time.perf_counter
    calls, turn = _state.calls, _state.turn
    inferences = 0
    with _explaining_gpu_memory("the inference cannot run"), _without_collecting():
        begin = clock()
        while True:
            calls[turn % len(calls)]()
            turn += 1
            inferences += 1
            elapsed_s = clock() - begin
            if elapsed_s >= duration_s:
                break
    _state.turn = turn
    return {"inferences": inferences, "elapsed_s": elapsed_s}


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Keeps the garbage collector out of what is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def finish_in_child() -> dict[str, Any]:
    """Returns the memory at its peak and now, and what really ran, read back from the runtime."""
    assert _state.session is not None
    assert _state.artifact is not None
    peak_bytes, steady_bytes = read_peak_bytes(), read_private_bytes(_state.artifact.directory)
    try:
        executed = _state.session.describe_execution()
    except Exception as error:  # introspection must not cost a measurement that is already taken
        executed = {"precision": None, "reason": f"{type(error).__name__}: {error}"}
    return {
        "peak_memory_bytes": peak_bytes,
        "steady_memory_bytes": steady_bytes,
        "precision_executed": encode(Executed.of(executed)),
    }


def prove_on_reference() -> dict[str, Any] | None:
    """Compares the loaded artifact with the answers packed with it; None when none are packed.

    Where it was proved, its answers are held against its own of then: a few samples cannot prove it again, but they
    show whether it answers here as it did there. Else they are held against FP32's.
    """
    assert _state.artifact is not None
    assert _state.session is not None
    path = _state.artifact.reference_path
    if path is None:
        return None
    arrays = read_reference_file(path)
    rows = [take_reference_row(arrays, index) for index in range(len(next(iter(arrays.values()))))]
    proof = _state.artifact.manifest.proof
    is_proved = proof is not None and all(row.proved for row in rows)
    expected = [row.proved if is_proved else row.expected for row in rows]
    roles = find_roles(expected) if proof is None or proof.roles is None else proof.roles
    with _explaining_failure(_state.artifact, "cannot run"):
        fidelity = compare_outputs(expected, (_state.session.run(row.feeds) for row in rows), roles)
    return {"fidelity": encode(fidelity), "count": len(rows), "as_proved": is_proved}


def check_samples_in_child(samples: dict[str, Any], signature: dict[str, Any]) -> None:
    """Reads all samples once and refuses those that do not fit, before anything is measured on them."""
    open_samples(decode(SampleRef, samples), decode(Signature, signature))


def count_correct_in_child(samples: dict[str, Any]) -> dict[str, Any] | None:
    """Counts right answers of the loaded artifact on labelled samples; None without labels."""
    assert _state.artifact is not None
    assert _state.session is not None
    opened = open_samples(decode(SampleRef, samples), _state.artifact.manifest.signature, checked=True)
    if opened.labels is None:
        return None
    correct = sum(
        count_correct(_state.session.run(feeds), label)
        for feeds, label in zip(opened.feeds(), opened.labels, strict=True)
    )
    return {"correct": int(correct), "count": opened.count}


def read_peak_bytes() -> int | None:
    """Returns the largest resident set of this process since it started (`VmHWM`), which fork does not inherit."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def read_private_bytes(folder: Path) -> int | None:
    """Returns what only this process needs now: its anonymous memory, and what it has mapped of the files in a folder.

    The code of libraries is left out, which siblings share: it would be this process's own while no other has the
    library loaded, and not any more afterwards, without anything having changed here. A proportional set size moves
    with the siblings just so.

    Args:
        folder: The artifact's, whose mapped files are its memory as what is read from them would be.
    """
    own, total = False, 0
    inside = f"{folder.resolve()}{os.sep}"
    try:
        with Path("/proc/self/smaps").open(errors="surrogateescape") as mappings:
            for line in mappings:
                first, *others = line.split(None, 5)
                if not first.endswith(":"):  # the head of a mapping: range, permissions, offset, device, inode, path
                    own = len(others) == 5 and others[4].startswith(inside)
                elif first == ("Rss:" if own else "Anonymous:"):
                    total += int(others[0]) * 1024
    except OSError:
        return None
    return total


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
