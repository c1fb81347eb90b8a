"""The child side of measuring on a GPU, in real child processes, on a compiled stand-in for the NVIDIA driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_driver.build import build_fake_driver

from modelwright.core.errors import MeasurementInvalidError, ToolchainMissingError
from modelwright.core.nvidia.probe import probe_driver
from modelwright.core.process.child import Child
from modelwright.core.records.artifact import (
    BuildHost,
    Manifest,
    Requires,
    SampleProvenance,
    write_manifest,
)  # fmt: skip
from modelwright.core.records.artifact_files import REFERENCE, hash_files, measure_size
from modelwright.core.records.exported import SourceModel
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.harness.run.windows import END_TO_END_SHARE, GPU_WARM_UP_S

HERE = "gpu_sessions"
MIB = 1 << 20
INPUTS = 3


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_fake_driver(tmp_path_factory.mktemp("driver"))


HASH = "0" * 64


def make_artifact(folder: Path, **recipe: Any) -> Path:
    """Writes an artifact of the doubling runtime with three inputs, [0, 1, 2, 3], [10, ...] and [20, ...]."""
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"2")
    x = (np.arange(4, dtype=np.float32) + 10 * np.arange(INPUTS, dtype=np.float32)[:, None]).reshape(INPUTS, 1, 4)
    np.savez(folder / REFERENCE, **{"input:x": x, "output:y": 2 * x})
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 4)),),
    )
    machine = Machine(name="host", architecture="x86_64", instruction_sets=frozenset(), cores=2)
    manifest = Manifest(
        target="doubling-fp32", model_file="model.bin", files=hash_files(folder), size_bytes=measure_size(folder),
        signature=signature,
        source=SourceModel(
            kind="onnx", path="p", sha256=HASH, num_parameters=0, opset=18, onnx_sha256=HASH, onnx_size_bytes=1,
            comparison=None,
        ),
        samples=SampleProvenance(), machine=machine, requires=Requires(), recipe=recipe, versions={},
        build_host=BuildHost(architecture="x86_64", system="Linux", python="3.11"), build_s=1.0, proof=None,
        proof_reason="test", notes=(), key=HASH, created="c",
    )  # fmt: skip
    write_manifest(folder, manifest)
    return folder


class Worker:
    """A child with the worker in it."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def open(self, directory: Path, **settings: Any) -> dict[str, Any]:
        params = {"threads": 1, "batch": 1, "samples": None, "device": "cuda", "directory": str(directory)}
        result = self._child.call(f"{HERE}:open_doubling", params | settings, timeout_s=60)
        assert isinstance(result, dict)
        return result

    def ask(self, function: str, **params: Any) -> Any:
        return self._child.call(function, params, timeout_s=60)


@pytest.fixture
def environment(driver: Path) -> dict[str, str]:
    """Of the child; tests add to it before they use `gpu_worker`."""
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))),
        "LD_LIBRARY_PATH": str(driver),
        "CUDA_VISIBLE_DEVICES": "0",
        "FAKE_CUDA_MEMORY_BYTES": str(256 * MIB),
    }


@pytest.fixture
def gpu_worker(environment: dict[str, str]) -> Iterator[Worker]:
    with Child("measuring doubling", crash_error=MeasurementInvalidError, environment=environment) as child:
        yield Worker(child)


def test_opening_tells_the_card_its_memory_and_what_applies(tmp_path: Path, gpu_worker: Worker) -> None:
    opened = gpu_worker.open(make_artifact(tmp_path / "a"), spin=True, streams=2, cuda_graph=True)
    assert opened["settings"] == {
        "threads": 1,
        "batch": 1,
        "inputs": INPUTS,
        "options": {},
        "requests": 1,
        "device": "cuda",
        "cuda_graph": True,
        "cuda_graph_reason": None,
        "spin": True,
        "streams": 2,
        "streams_reason": None,
        "computation_reason": None,
    }
    gpu = opened["gpu"]
    assert gpu["uuid"] == "GPU-00112233-4455-6677-8899-aabbccddeeff"
    assert (gpu["name"], gpu["compute_capability"]) == ("Fake GPU", "8.9")
    # The weights, and an input and an output of 16 bytes for each of three inputs on two streams.
    assert gpu["device_bytes_delta"] == MIB + 2 * INPUTS * 2 * 16
    assert gpu["context_ms"] > 0.0


def test_defaults_are_blocking_one_stream_and_no_graph(tmp_path: Path, gpu_worker: Worker) -> None:
    settings = gpu_worker.open(make_artifact(tmp_path / "a"))["settings"]
    assert (settings["spin"], settings["streams"], settings["cuda_graph"]) == (False, 1, False)
    assert settings["cuda_graph_reason"] is None


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_window_has_inferences_end_to_end_and_computations_alone(
    tmp_path: Path, gpu_worker: Worker, cuda_graph: bool
) -> None:
    gpu_worker.open(make_artifact(tmp_path / "a"), streams=2, cuda_graph=cuda_graph)
    gpu_worker.ask(f"{HERE}:clear_computed")
    told = gpu_worker.ask(f"{HERE}:run_window_for", window_s=0.2)
    assert told["inferences"] == told["runs"] > len(told["latencies_ns"]) > 0
    assert told["compute_inferences"] > len(told["compute_latencies_ns"]) > 0
    # Both parts together are the window and its warm-up; the rest of the call is between them.
    assert told["elapsed_s"] + told["compute_elapsed_s"] <= told["wall_s"]
    assert told["elapsed_s"] >= GPU_WARM_UP_S + 0.2 * END_TO_END_SHARE, "the clocks had the time to rise"
    assert sum(told["latencies_ns"]) <= told["elapsed_s"] * 1e9
    assert sum(told["compute_latencies_ns"]) <= told["compute_elapsed_s"] * 1e9
    assert 0 < told["compute_enqueue_ns"] < told["compute_elapsed_s"] * 1e9
    expected = [[2.0 * (value + 10 * index) for value in range(4)] for index in range(INPUTS)]
    assert gpu_worker.ask(f"{HERE}:read_computed") == expected * 2, "every input was computed on every stream"


def test_the_proof_still_runs_beside_the_computations(tmp_path: Path, gpu_worker: Worker) -> None:
    gpu_worker.open(make_artifact(tmp_path / "a"))
    gpu_worker.ask("modelwright.harness.run.windows:run_window", window_s=0.01)
    proof = gpu_worker.ask("modelwright.harness.run.worker:prove_on_reference")
    assert proof["count"] == INPUTS
    assert proof["fidelity"]["cosine"] == pytest.approx(1.0)


def test_an_energy_window_runs_end_to_end_for_its_time(tmp_path: Path, gpu_worker: Worker) -> None:
    gpu_worker.open(make_artifact(tmp_path / "a"))
    told = gpu_worker.ask("modelwright.harness.run.windows:run_energy_window", duration_s=0.1)
    assert set(told) == {"inferences", "elapsed_s", "transfers"}
    assert told["transfers"] is True
    assert told["inferences"] > 1
    assert told["elapsed_s"] >= 0.1
    assert gpu_worker.ask("modelwright.harness.run.windows:run_energy_window", duration_s=0.0)["inferences"] == 1


def test_an_energy_window_of_the_computation_alone_copies_no_input(tmp_path: Path, gpu_worker: Worker) -> None:
    gpu_worker.open(make_artifact(tmp_path / "a"))
    told = gpu_worker.ask(f"{HERE}:run_energy_window_for", duration_s=0.1, computation=True)
    assert (told["transfers"], told["runs"]) == (False, 0)
    assert told["inferences"] > 1
    assert told["elapsed_s"] >= 0.1
    end_to_end = gpu_worker.ask(f"{HERE}:run_energy_window_for", duration_s=0.02, computation=False)
    assert (end_to_end["transfers"], end_to_end["runs"]) == (True, end_to_end["inferences"])


def test_energy_is_end_to_end_where_there_is_no_computation_and_says_so(tmp_path: Path, gpu_worker: Worker) -> None:
    gpu_worker.open(make_artifact(tmp_path / "a", most_streams=0))
    told = gpu_worker.ask("modelwright.harness.run.windows:run_energy_window", duration_s=0.02, computation=True)
    assert told["transfers"] is True


def test_a_graph_that_is_not_used_is_not_reported(tmp_path: Path, gpu_worker: Worker) -> None:
    settings = gpu_worker.open(make_artifact(tmp_path / "a", graph=False), cuda_graph=True)["settings"]
    assert settings["cuda_graph"] is False
    assert settings["cuda_graph_reason"] == "the runtime cannot capture it in a CUDA graph"


def test_a_session_without_computations_is_timed_end_to_end_alone(tmp_path: Path, gpu_worker: Worker) -> None:
    opened = gpu_worker.open(make_artifact(tmp_path / "a", most_streams=0), cuda_graph=True, streams=3)
    reason = "the runtime does not let its computation be timed alone"
    settings = opened["settings"]
    assert (settings["cuda_graph"], settings["streams"]) == (False, 1)
    assert settings["computation_reason"] == settings["cuda_graph_reason"] == settings["streams_reason"] == reason
    told = gpu_worker.ask(f"{HERE}:run_window_for", window_s=0.05)
    assert told["inferences"] == told["runs"] > 1
    assert told["elapsed_s"] >= 0.05, "the whole window"
    for name in ("compute_latencies_ns", "compute_inferences", "compute_elapsed_s", "compute_enqueue_ns"):
        assert told[name] is None


def test_more_streams_than_a_session_has_are_refused(tmp_path: Path, gpu_worker: Worker) -> None:
    with pytest.raises(MeasurementInvalidError, match="cannot keep 3 inferences in flight") as caught:
        gpu_worker.open(make_artifact(tmp_path / "a", most_streams=2), streams=3)
    assert caught.value.hint == "measure it with --streams 1"


def test_a_session_on_another_device_than_asked_for_is_refused(tmp_path: Path, gpu_worker: Worker) -> None:
    with pytest.raises(MeasurementInvalidError, match="was to run on cuda, but runs on cpu"):
        gpu_worker.open(make_artifact(tmp_path / "a", device="cpu"))


def test_too_large_a_model_says_how_much_is_free(tmp_path: Path, gpu_worker: Worker) -> None:
    with pytest.raises(MeasurementInvalidError, match="the GPU is out of memory; 256 of 256 MiB are free") as caught:
        gpu_worker.open(make_artifact(tmp_path / "a", weights_bytes=1 << 30))
    assert "--batch" in (caught.value.hint or "")


@pytest.mark.parametrize("runs", [0, 1])
def test_a_runtime_that_runs_out_of_memory_gets_the_same_words(tmp_path: Path, gpu_worker: Worker, runs: int) -> None:
    with pytest.raises(MeasurementInvalidError) as caught:
        gpu_worker.open(make_artifact(tmp_path / "a", runs_until_out_of_memory=runs))
        gpu_worker.ask("modelwright.harness.run.windows:run_window", window_s=0.01)
    assert "the GPU is out of memory; 255 of 256 MiB are free" in caught.value.message
    assert caught.value.detail == "RuntimeError: CUDA error: out of memory"


def test_hidden_devices_are_refused_before_anything_is_loaded(tmp_path: Path, environment: dict[str, str]) -> None:
    with (
        Child("measuring", environment=environment | {"CUDA_VISIBLE_DEVICES": ""}) as child,
        pytest.raises(ToolchainMissingError, match='CUDA_VISIBLE_DEVICES="" hides every GPU') as caught,
    ):
        Worker(child).open(make_artifact(tmp_path / "a"))
    assert "unset CUDA_VISIBLE_DEVICES" in (caught.value.hint or "")


def test_a_machine_without_a_driver_gets_one_clear_error(tmp_path: Path, environment: dict[str, str]) -> None:
    """The real thing: no library of that name can be found by the child."""
    if "is not there" not in (probe_driver().reason or ""):
        pytest.skip("this machine has an NVIDIA driver")
    with (
        Child("measuring", environment=environment | {"LD_LIBRARY_PATH": ""}) as child,
        pytest.raises(ToolchainMissingError, match=r"no NVIDIA driver: libcuda\.so\.1 is not there") as caught,
    ):
        Worker(child).open(make_artifact(tmp_path / "a"))
    assert "install the NVIDIA driver" in (caught.value.hint or "")
