"""The child side of a measurement: one artifact, loaded and timed in a process of its own.

Nothing else happens in this process, so its memory is the artifact's and its runtime's. The parent calls functions of
this module and of `windows.py` by name (`modelwright.core.process.child`); `loaded.py` keeps the session in between.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError, ToolchainMissingError
from modelwright.core.nvidia.cuda import CudaDevice
from modelwright.core.outputs.fidelity import compare_outputs, count_correct
from modelwright.core.outputs.tasks.roles import find_roles
from modelwright.core.records.artifact import Artifact, open_artifact, verify_files
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.signature import Signature
from modelwright.core.samples.sample_set import Array, SampleRef, open_samples
from modelwright.harness.run.crew import Calls, Crew
from modelwright.harness.run.device_timing import Lane
from modelwright.harness.run.inputs import read_inputs, read_reference_file, take_reference_row
from modelwright.harness.run.loaded import explaining_gpu_memory, loaded
from modelwright.harness.run.memory import read_peak_bytes, read_private_bytes
from modelwright.harness.run.told import Executed
from modelwright.targets.contract import Computation, Device, RunSettings, Session
from modelwright.targets.options import Value
from modelwright.targets.table import get_target


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
    target = loaded.target = get_target(artifact.manifest.target)
    inputs = read_inputs(artifact, samples, batch)

    started = time.perf_counter()
    import_runtime(target.record.run_packages)
    import_ms = _elapsed_ms(started)
    runtime_bytes = read_private_bytes(artifact.directory)

    started = time.perf_counter()
    # Before the runtime is loaded: how a context waits is settled when it is created.
    loaded.gpu = loaded.stack.enter_context(CudaDevice(spin=spin)) if device == "cuda" else None
    context_ms = _elapsed_ms(started)
    free_bytes = None if loaded.gpu is None else loaded.gpu.memory_info()[0]

    failure = f"{target.record.name} cannot be loaded at batch {batch}"
    with _explaining_failure(artifact, "cannot run"), explaining_gpu_memory(failure):
        started = time.perf_counter()
        loaded.session = _load(artifact, settings)
        load_ms = _elapsed_ms(started)
        loaded.artifact = artifact
        _require_device(loaded.session, target.record.name, device)
        loaded.calls = [loaded.session.bind(feeds) for feeds in inputs]

        started = time.perf_counter()
        loaded.calls[0]()
        first_inference_ms = _elapsed_ms(started)
        if settings.requests > 1:
            loaded.crew = _open_crew(artifact, settings, loaded.session, inputs)
        if loaded.gpu is not None:
            loaded.lanes = _bind_lanes(loaded.session, inputs, streams, target.record.name, loaded.gpu)
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
        "gpu": None if loaded.gpu is None else _describe_gpu(loaded.gpu, context_ms, free_bytes),
    }


def _load(artifact: Artifact, settings: RunSettings) -> Session:
    with _explaining_failure(artifact, "cannot load"):
        return loaded.stack.enter_context(_open(artifact, settings))


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
    if loaded.gpu is None:
        return {"device": "cpu", **told}
    computations: list[Computation] = [computation for lane in loaded.lanes for computation in lane.computations]
    graph = bool(computations) and all(computation.uses_graph for computation in computations)
    untimed = None if computations else "the runtime does not let its computation be timed alone"
    no_graph = None if graph or not asked.cuda_graph else untimed or "the runtime cannot capture it in a CUDA graph"
    return {
        "device": "cuda",
        **told,
        "cuda_graph": graph,
        "cuda_graph_reason": no_graph,
        "spin": loaded.gpu.spin,
        "streams": max(1, len(loaded.lanes)),
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


def finish_in_child() -> dict[str, Any]:
    """Returns the memory at its peak and now, and what really ran, read back from the runtime."""
    assert loaded.session is not None
    assert loaded.artifact is not None
    peak_bytes, steady_bytes = read_peak_bytes(), read_private_bytes(loaded.artifact.directory)
    memory = None
    # Before what really ran is read back: a compiled program is run eagerly for that, which takes more memory.
    with contextlib.suppress(Exception):
        memory = loaded.session.read_device_memory()
    try:
        executed = loaded.session.describe_execution()
    except Exception as error:  # introspection must not cost a measurement that is already taken
        executed = {"precision": None, "reason": f"{type(error).__name__}: {error}"}
    return {
        "peak_memory_bytes": peak_bytes,
        "steady_memory_bytes": steady_bytes,
        "precision_executed": encode(Executed.of(executed)),
        "device_memory": encode(memory),
    }


def prove_on_reference() -> dict[str, Any] | None:
    """Compares the loaded artifact with the answers packed with it; None when none are packed.

    Where it was proved, its answers are held against its own of then: a few samples cannot prove it again, but they
    show whether it answers here as it did there. Else they are held against FP32's.
    """
    assert loaded.artifact is not None
    assert loaded.session is not None
    path = loaded.artifact.reference_path
    if path is None:
        return None
    arrays = read_reference_file(path)
    rows = [take_reference_row(arrays, index) for index in range(len(next(iter(arrays.values()))))]
    proof = loaded.artifact.manifest.proof
    is_proved = proof is not None and all(row.proved for row in rows)
    expected = [row.proved if is_proved else row.expected for row in rows]
    roles = find_roles(expected) if proof is None or proof.roles is None else proof.roles
    with _explaining_failure(loaded.artifact, "cannot run"):
        fidelity = compare_outputs(expected, (loaded.session.run(row.feeds) for row in rows), roles)
    return {"fidelity": encode(fidelity), "count": len(rows), "as_proved": is_proved}


def check_samples_in_child(samples: dict[str, Any], signature: dict[str, Any]) -> None:
    """Reads all samples once and refuses those that do not fit, before anything is measured on them."""
    open_samples(decode(SampleRef, samples), decode(Signature, signature))


def count_correct_in_child(samples: dict[str, Any]) -> dict[str, Any] | None:
    """Counts right answers of the loaded artifact on labelled samples; None without labels."""
    assert loaded.artifact is not None
    assert loaded.session is not None
    opened = open_samples(decode(SampleRef, samples), loaded.artifact.manifest.signature, checked=True)
    if opened.labels is None:
        return None
    correct = sum(
        count_correct(loaded.session.run(feeds), label)
        for feeds, label in zip(opened.feeds(), opened.labels, strict=True)
    )
    return {"correct": int(correct), "count": opened.count}


def import_runtime(packages: Sequence[str] | Any) -> None:
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
