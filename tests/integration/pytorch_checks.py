"""What `test_pytorch_on_gpu.py` does in child processes, on a real GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.nvidia.cuda import CudaDevice
from modelwright.core.records.artifact import Artifact, open_artifact
from modelwright.targets import get_target
from modelwright.targets.contract import RunSettings

ROWS = 4


def is_cuda_usable() -> str | None:
    """Returns why the installed torch cannot use a GPU; None when it can."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built for the CPU"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} is built for CUDA {torch.version.cuda} and sees no GPU"
    try:
        return None if float(torch.ones(8, device="cuda").sum()) == 8.0 else "a sum on the GPU is wrong"
    except RuntimeError as error:
        return f"torch {torch.__version__} cannot compute on this GPU: {str(error).splitlines()[0]}"


def compare_with_cpu(directory: str, eager_target: str, *, streams: int) -> list[dict[str, Any]]:
    """Runs an artifact on the CPU, eagerly, and on the GPU in every way that the harness does.

    Returns:
        Two records, without and with a CUDA graph.
    """
    artifact = open_artifact(Path(directory))
    manifest = artifact.manifest
    assert artifact.reference_path is not None
    with np.load(artifact.reference_path) as packed:
        rows = {name.removeprefix("input:"): packed[name] for name in packed.files if name.startswith("input:")}
    one = {name: np.ascontiguousarray(value[0]) for name, value in rows.items()}
    many = {name: np.concatenate(list(value[:ROWS])) for name, value in rows.items()}
    described = (artifact.directory, manifest.model_file, manifest.recipe, manifest.signature)
    with get_target(eager_target).load(*described, RunSettings(device="cpu")) as session:
        expected = {"one": session.run(one), "many": session.run(many)}
    with CudaDevice() as gpu:
        return [
            _run_on_gpu(
                gpu, artifact, RunSettings(device="cuda", cuda_graph=graph, streams=streams), one, many, expected
            )
            for graph in (False, True)
        ]


def _run_on_gpu(
    gpu: CudaDevice, artifact: Artifact, settings: RunSettings, one: Any, many: Any, expected: Any
) -> dict[str, Any]:
    """Runs everything once.

    Returns:
        `errors`: way -> largest difference from the CPU's outputs, over their largest value. `streams`: handles.
        `graphs`: whether each computation launches a CUDA graph. `executed`: what the session read back.
    """
    manifest = artifact.manifest
    described = (artifact.directory, manifest.model_file, manifest.recipe, manifest.signature)
    errors: dict[str, float] = {}
    with get_target(manifest.target).load(*described, settings) as session:
        names = [spec.name for spec in manifest.signature.outputs]
        calls = {}
        for label, feeds in (("one", one), ("many", many)):
            errors[f"run {label}"] = _differ(session.run(feeds), expected[label])
            calls[label] = session.bind(feeds)
        for label, call in calls.items():
            for _ in range(3):
                call()
            results: Any = call()
            outputs = {name: value.numpy().copy() for name, value in zip(names, results, strict=True)}
            errors[f"bound {label}"] = _differ(outputs, expected[label])
        computations = [session.bind_computation(many, index) for index in range(settings.streams)]
        for _ in range(20):
            for computation in computations:
                assert computation is not None
                computation.enqueue()
        gpu.synchronize()
        errors["run after computations"] = _differ(session.run(one), expected["one"])
        return {
            "errors": errors,
            "streams": [computation.stream for computation in computations if computation is not None],
            "graphs": [computation.uses_graph for computation in computations if computation is not None],
            "executed": session.describe_execution(),
        }


def _differ(outputs: dict[str, Any], expected: dict[str, Any]) -> float:
    return max(
        float(np.abs(np.asarray(outputs[name], np.float64) - value).max() / max(np.abs(value).max(), 1e-30))
        for name, value in expected.items()
    )


def count_copies(directory: str) -> dict[str, int]:
    """Counts copies to the GPU while inferences run, by torch's profiler: of the computation alone, and end to end."""
    import torch

    artifact = open_artifact(Path(directory))
    manifest = artifact.manifest
    assert artifact.reference_path is not None
    with np.load(artifact.reference_path) as packed:
        feeds = {
            name.removeprefix("input:"): np.ascontiguousarray(packed[name][0])
            for name in packed.files
            if name.startswith("input:")
        }
    described = (artifact.directory, manifest.model_file, manifest.recipe, manifest.signature)
    with CudaDevice(), get_target(manifest.target).load(*described, RunSettings(device="cuda")) as session:
        computation = session.bind_computation(feeds)
        assert computation is not None
        counted = {}
        for name, run in (("computation", computation.enqueue), ("end to end", session.bind(feeds))):
            torch.cuda.synchronize()
            kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
            with torch.profiler.profile(activities=kinds) as profile:
                for _ in range(ROWS):
                    run()
                torch.cuda.synchronize()
            counted[name] = sum(event.count for event in profile.key_averages() if "Memcpy HtoD" in event.key)
    return counted
