"""What tests of TensorRT do in a child process: it finds the stand-in module and the fake driver, or the real ones."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from modelwright.core.nvidia.cuda import CudaDevice
from modelwright.core.records.artifact import Artifact, open_artifact, verify_files
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.machine import Gpu, Machine, normalize_architecture
from modelwright.core.records.shapes import ShapeRange, parse_shapes, resolve_shapes
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.exporters.onnx.file import read_graph, read_signature
from modelwright.harness.building import build_targets
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.measure_artifacts import MeasureSettings, measure_artifacts, require_runnable
from modelwright.harness.run.profile_operators import profile_in_child
from modelwright.harness.run.told import Executed
from modelwright.profiles import detect_host
from modelwright.targets.building.choices import BuildChoices
from modelwright.targets.contract import BuildRequest, RunSettings
from modelwright.targets.table import get_target


def build_engine(
    target: str,
    model: str,
    folder: str,
    capability: str = "8.9",
    samples: str | None = None,
    options: Mapping[str, Any] | None = None,
    shapes: Sequence[str] = (),
    ranges: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds with a target's own code alone: no export, no proof, no manifest; `ranges` pass unchecked."""
    path, directory = Path(model), Path(folder)
    directory.mkdir(parents=True, exist_ok=True)
    signature = read_signature(path, read_graph(path))
    with ExitStack() as stack:
        scratch, shared = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        result = get_target(target).build(
            BuildRequest(
                model_path=path,
                signature=signature,
                directory=directory,
                machine=make_machine(capability),
                calibration=open_samples(SampleRef(path=Path(samples)), signature) if samples else None,
                tuning=None,
                reference=None,
                scratch=scratch,
                shared=shared,
                progress=lambda _text: None,
                options=BuildChoices().options_of(target) | dict(options or {}),
                shapes=resolve_shapes(parse_shapes(shapes), signature, {})
                | decode(dict[str, ShapeRange], ranges or {}),
            )
        )
    return {"recipe": dict(result.recipe), "requires": dict(result.requires), "notes": list(result.notes)}


def make_machine(capability: str) -> Machine:
    import platform

    return Machine(
        name="made-up",
        architecture=normalize_architecture(platform.machine()),
        instruction_sets=frozenset({"avx2"}),
        cores=2,
        gpu=Gpu(name=f"GPU of {capability}", compute_capability=capability, memory_bytes=8 * 2**30),
    )


def build_artifacts(
    model: str,
    samples: str,
    out: str,
    targets: list[str],
    profile: str = "host",
    options: Sequence[str] = (),
    shapes: Sequence[str] = (),
) -> dict[str, Any]:
    """Builds as the command line does; returns manifests, and what is missing with its reason."""
    built = build_targets(
        model,
        samples=samples,
        out=out,
        targets=targets,
        profile=profile,
        options=options,
        shapes=shapes,
        overwrite=True,
    )
    return {
        "manifests": {name: encode(artifact.manifest) for name, artifact in built.artifacts.items()},
        "absent": {absent.target: absent.error.to_dict() for absent in built.absent},
    }


def verify(folder: str) -> str | None:
    """Does what `modelwright verify` does; returns the note."""
    artifact = open_artifact(Path(folder))
    verify_files(artifact)
    return require_runnable(artifact.manifest.target, artifact, detect_host())


def check_artifact(target: str, requires: Mapping[str, Any]) -> list[Any]:
    """Holds what a manifest requires against this machine."""
    readiness = get_target(target).check_artifact(requires, detect_host().machine())
    return [readiness.ok, readiness.reason, readiness.hint]


def check_build(target: str) -> list[Any]:
    readiness = get_target(target).check_build(detect_host().machine())
    return [readiness.ok, readiness.reason, readiness.hint]


def _flatten(executed: Executed) -> dict[str, Any]:
    return {**executed.facts, "precision": executed.precision, "source": executed.source}


def measure(folders: dict[str, str], **settings: Any) -> dict[str, Any]:
    """Measures a few short rounds; returns what is worth asserting."""
    host = detect_host()
    effort = Effort(name="test", rounds=3, window_s=0.02)
    artifacts = {name: open_artifact(Path(folder)) for name, folder in folders.items()}
    measured = measure_artifacts(
        artifacts, MeasureSettings(effort=effort, **settings), host, host, samples=None, prove=True
    ).by_name
    return {
        name: {
            "failure": None if one.failure is None else one.failure.to_dict(),
            "settings": None if one.opened is None else encode(one.opened.settings),
            "executed": None if one.finished is None else _flatten(one.finished.precision_executed),
            "rounds": len(one.windows),
            "computations": [len(window.compute_latencies_ms) for window in one.windows.values()],
            "cosine": None if one.proof is None or one.proof.packed is None else one.proof.packed.fidelity.cosine,
        }
        for name, one in measured.items()
    }


@contextmanager
def _load(folder: str, output: str | None = None, **settings: Any) -> Any:
    artifact = open_artifact(Path(folder))
    verify_files(artifact)
    manifest = artifact.manifest
    target = get_target(manifest.target)
    signature = manifest.signature
    if output is not None:
        signature = replace(signature, outputs=(replace(signature.outputs[0], name=output),))
    run_settings = RunSettings(device="cuda", **settings)
    with target.load(artifact.directory, manifest.model_file, manifest.recipe, signature, run_settings) as session:
        yield session, artifact


def load(folder: str, output: str | None = None) -> dict[str, Any]:
    """Loads an artifact, as one with another name of its output if given, and describes what it is; nothing runs."""
    with _load(folder, output) as (session, _):
        return session.describe_execution()


def run_shape(folder: str, shape: list[int]) -> list[int]:
    """Runs one inference on zeros of a shape; returns the shape of the output."""
    with _load(folder) as (session, artifact):
        signature = artifact.manifest.signature
        outputs = session.run({signature.inputs[0].name: np.zeros(shape, signature.inputs[0].dtype)})
        return list(outputs[signature.outputs[0].name].shape)


def profile_operators(folder: str) -> Any:
    """Profiles an artifact as the harness does, in this process."""
    return profile_in_child(folder, threads=1, batch=1, device="cuda", options={}, samples=None)


def _read_rows(artifact: Artifact, samples: str, count: int) -> list[dict[str, Any]]:
    return list(open_samples(SampleRef(path=Path(samples)), artifact.manifest.signature).feeds(limit=count))


def compare_ways_to_run(folder: str, samples: str, cuda_graph: bool = False) -> dict[str, Any]:
    """Runs the same rows alone, in a batch, bound, and as computations on the device, each in an order of its own.

    Returns:
        The largest difference from running each alone, of every way; and whether graphs were used.
    """
    with _load(folder, cuda_graph=cuda_graph, streams=2) as (session, artifact):
        rows = _read_rows(artifact, samples, 4)
        name = artifact.manifest.signature.outputs[0].name
        alone = [session.run(row)[name] for row in rows]
        kept = [value.copy() for value in alone]
        batch = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
        batched = session.run(batch)[name]
        again = session.run(rows[0])[name]
        calls = [session.bind(row) for row in rows]
        bound = []
        for index in (2, 0, 3, 1):
            calls[index]()
            bound.append(np.abs(_read_device(session, 0)[name] - kept[index]).max())
        computed, graphs = [], []
        computations = {
            (index, lane): session.bind_computation(rows[index], lane) for index in range(4) for lane in (0, 1)
        }
        session.run(rows[3])  # must not change what the computations see
        for (index, lane), computation in sorted(computations.items(), reverse=True):
            computation.enqueue()
            computed.append(np.abs(_read_device(session, lane)[name] - kept[index]).max())
            graphs.append(computation.uses_graph)
        return {
            "alone": float(max(np.abs(a - b).max() for a, b in zip(alone, kept, strict=True))),
            "batched": float(np.abs(batched - np.concatenate(kept)).max()),
            "again": float(np.abs(again - kept[0]).max()),
            "bound": float(max(bound)),
            "computed": float(max(computed)),
            "scale": float(np.abs(kept).max()),
            "spread": float(np.abs(kept[0] - kept[1]).max()),
            "graphs": sorted(set(graphs)),
            "streams": len({computation.stream for computation in computations.values()}),
            "contexts": sum(len(lane.executions) for lane in session._lanes.values()),
            "executed": session.describe_execution(),
        }


def _read_device(session: Any, lane: int) -> dict[str, Any]:
    """Returns the outputs that lie on the device after the last work on a stream."""
    execution = session._lanes[lane].executions[0]
    execution.fetch_outputs()
    execution.stream.synchronize()
    return dict(execution.read_outputs())


def load_with_little_memory(folder: str, left_bytes: int) -> None:
    """Loads an artifact while something else holds all but a little of the GPU's memory."""
    with CudaDevice() as device:
        held = device.allocate(max(1, device.memory_info()[0] - left_bytes))
        try:
            load(folder)
        finally:
            held.close()
