"""The PyTorch targets on a real GPU, from the source to the measurement: `pytest -m gpu`."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError
from modelwright.core.nvidia.probe import probe_driver
from modelwright.core.process.child import run_in_child
from modelwright.core.records.artifact import Artifact
from modelwright.harness.building import Built, build_targets
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.measure_artifacts import Measured, MeasureSettings, measure_artifacts
from modelwright.profiles import detect_host
from modelwright.targets import get_target
from modelwright.targets.pytorch.target import check_compiler, find_cuda_build

pytestmark = pytest.mark.gpu

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
EAGER = ("torch-fp32", "torch-fp16", "torch-bf16")
COMPILED = ("torch-compile-fp32", "torch-compile-fp16")
ALL = (*EAGER, *COMPILED)
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 6e-2}
"""Largest difference between two devices, over the largest output: FP16 and BF16 round their sums at other places."""
ROUNDS = 6


@pytest.fixture(scope="session")
def usable() -> None:
    """Skips where PyTorch has no GPU, and says why."""
    status = probe_driver()
    if not status.ok:
        pytest.skip(f"needs an NVIDIA GPU: {status.reason}")
    if find_cuda_build() is None:
        pytest.skip("needs a PyTorch that is built for CUDA")
    reason = ask("is_cuda_usable")
    if reason is not None:
        pytest.skip(f"needs a PyTorch that can use the GPU: {reason}")


def ask(function: str, **params: Any) -> Any:
    """Calls a function of `pytorch_checks` in a child with a fresh context; its log comes with a failure."""
    try:
        return run_in_child(
            f"pytorch_checks:{function}",
            params,
            purpose="using PyTorch on the GPU",
            crash_error=MeasurementInvalidError,
            timeout_s=600,
            environment={
                "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
            },
        )
    except ModelwrightError as error:
        pytest.fail(describe(error))


def describe(error: ModelwrightError) -> str:
    return "\n".join(filter(None, (type(error).__name__, error.message, error.hint, error.detail)))


@pytest.fixture(scope="session")
def built(usable: None, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_targets(
        f"{DIGITS / 'model.py'}:create_model",
        samples=DIGITS / "samples.npz",
        out=tmp_path_factory.mktemp("digits") / "artifacts",
        targets=ALL,
        evaluation_limit=128,
    )


@pytest.fixture
def find(built: Built) -> Callable[[str], Artifact]:
    """Returns an artifact by its target; skips where the compiler is missing, fails with the build's own words."""

    def get(name: str) -> Artifact:
        if name in COMPILED and not check_compiler().ok:
            pytest.skip(str(check_compiler().reason))
        for absent in built.absent:
            if absent.target == name:
                pytest.fail(f"{name} is {absent.status}: {describe(absent.error)}")
        return built.artifacts[name]

    return get


def measure(artifacts: dict[str, Artifact], *, meter_gpu: bool = False, **settings: Any) -> dict[str, Measured]:
    host = detect_host()
    effort = Effort(name="test", rounds=ROUNDS, window_s=0.1)
    chosen = MeasureSettings(effort=effort, device="cuda", **settings)
    measured = measure_artifacts(artifacts, chosen, host, host, samples=None, prove=True, meter_gpu=meter_gpu).by_name
    for name, result in measured.items():
        if result.failure is not None:
            pytest.fail(f"{name}: {describe(result.failure)}")
    return dict(measured)


def test_the_gpu_is_what_auto_chooses(usable: None) -> None:
    machine = detect_host().machine()
    assert machine.gpu is not None
    for name in ALL:
        assert get_target(name).choose_device(machine) == "cuda"
        assert get_target(name).choose_device(machine, "cpu") == "cpu"


@pytest.mark.parametrize("name", ALL)
def test_it_is_built_and_follows_fp32(find: Callable[[str], Artifact], name: str) -> None:
    proof = find(name).manifest.proof
    assert proof is not None, find(name).manifest.proof_reason
    fidelity = proof.fidelity
    assert fidelity.cosine >= (0.99999 if name.endswith("fp32") else 0.999), fidelity
    assert proof.device == "cuda"
    assert fidelity.agreement >= 0.98, fidelity


@pytest.mark.parametrize("name", ALL)
def test_outputs_on_the_gpu_are_those_of_the_cpu(find: Callable[[str], Artifact], name: str) -> None:
    precision = name.rsplit("-", 1)[1]
    told = ask("compare_with_cpu", directory=str(find(name).directory), eager_target=f"torch-{precision}", streams=2)
    for record, cuda_graph in zip(told, (False, True), strict=True):
        check_record(record, name, precision, cuda_graph=cuda_graph)


def test_the_computation_alone_copies_no_input(find: Callable[[str], Artifact]) -> None:
    told = ask("count_copies", directory=str(find("torch-fp32").directory))
    assert told["computation"] == 0, told
    assert told["end to end"] >= 4, "each inference end to end copies its input, which the profiler sees"


def check_record(told: dict[str, Any], name: str, precision: str, *, cuda_graph: bool) -> None:
    assert max(told["errors"].values()) <= TOLERANCES[precision], told["errors"]
    assert len(set(told["streams"])) == 2, "each stream has a handle of its own"
    assert 0 not in told["streams"], "the default stream would wait for all others"
    assert told["graphs"] == [cuda_graph, cuda_graph]
    executed = told["executed"]
    assert executed["device"] == "cuda"
    assert executed["precision"] == precision, executed
    assert executed["tf32"] == {"matmul": False, "cudnn": False}
    assert executed["cudnn_benchmark"] is False
    assert executed["cuda_graph"] == cuda_graph
    if name in COMPILED:
        assert executed["compiler"]["graph_breaks"] == 0, executed["compiler"]


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_all_precisions_are_measured_side_by_side(find: Callable[[str], Artifact], cuda_graph: bool) -> None:
    gpu = detect_host().machine().gpu
    assert gpu is not None
    for name, result in measure({name: find(name) for name in EAGER}, cuda_graph=cuda_graph).items():
        assert result.opened is not None
        assert result.finished is not None
        settings = result.opened.settings
        assert (settings.device, settings.cuda_graph, settings.streams) == ("cuda", cuda_graph, 1), settings
        assert settings.computation_reason is None
        assert result.opened.gpu is not None
        assert result.opened.gpu.name == gpu.name
        assert (result.opened.gpu.device_bytes_delta or 0) > 0
        memory = result.finished.device_memory
        assert memory is not None
        assert 0 < memory.allocated_bytes <= memory.peak_bytes <= memory.reserved_bytes
        executed = result.finished.precision_executed
        assert executed.precision == name.rsplit("-", 1)[1], executed
        assert executed.facts["device_name"] == gpu.name
        assert len(result.windows) == ROUNDS
        for window in result.windows.values():
            assert window.latencies_ms, "inferences end to end"
            assert window.compute_latencies_ms, "computations alone"
            assert min(window.compute_latencies_ms) > 0.0
        assert result.proof is not None
        assert result.proof.packed is not None
        assert (result.proof.packed.fidelity.cosine or 0.0) >= 0.999, result.proof


def test_compiled_programs_are_measured(find: Callable[[str], Artifact]) -> None:
    for name, result in measure({name: find(name) for name in COMPILED}).items():
        assert result.finished is not None
        executed = result.finished.precision_executed
        assert executed.facts["execution"] == "torch.compile"
        assert executed.precision == name.rsplit("-", 1)[1], executed
        assert executed.facts["compiler"]["graphs"] >= 1, executed.facts["compiler"]
        assert all(window.compute_latencies_ms for window in result.windows.values())


@pytest.mark.parametrize("computation", [False, True])
def test_energy_is_metered_or_the_reason_is_told(find: Callable[[str], Artifact], computation: bool) -> None:
    artifacts = {"torch-fp32": find("torch-fp32")}
    on_gpu = measure(artifacts, meter_gpu=True, meter_computation=computation)["torch-fp32"].on_gpu
    assert on_gpu is not None
    energy = on_gpu.energy
    print(f"energy: {energy}\nobserved: {on_gpu.observed}\nmemory: {on_gpu.memory_bytes} ({on_gpu.memory_reason})")
    if energy.per_inference_j is None:
        assert energy.reason
    else:
        assert energy.source in ("measured:nvml", "measured:nvml-power")
        assert energy.per_inference_j > 0.0
        assert (energy.mean_power_w or 0.0) > 0.0
        assert energy.transfers is not computation
        assert energy.power is not None
        assert energy.power.count >= 10
        assert energy.power.min_w <= energy.power.median_w <= energy.power.max_w
    assert on_gpu.memory_bytes or on_gpu.memory_reason
    assert on_gpu.observed.windows == ROUNDS or on_gpu.observed.unavailable


def test_two_inferences_in_flight_and_a_batch(find: Callable[[str], Artifact]) -> None:
    result = measure({"torch-fp16": find("torch-fp16")}, streams=2, batch=4)["torch-fp16"]
    assert result.opened is not None
    assert result.opened.settings.streams == 2, result.opened.settings
    assert result.opened.settings.batch == 4
    assert all(window.compute_latencies_ms for window in result.windows.values())


def test_two_identical_artifacts_are_compared_round_by_round(find: Callable[[str], Artifact]) -> None:
    artifact = find("torch-fp32")
    measured = measure({"first": artifact, "second": artifact})
    first, second = (measured[name].windows for name in ("first", "second"))
    assert sorted(first) == sorted(second) == list(range(ROUNDS))
    ratios = [
        statistics.median(first[number].compute_latencies_ms) / statistics.median(second[number].compute_latencies_ms)
        for number in range(ROUNDS)
    ]
    assert all(ratio > 0.0 for ratio in ratios)
    # Whether they agree within a percent is a matter of the benchmarks; here the log shows what was seen.
    print(f"compute time, first over second, by round: {[round(ratio, 4) for ratio in ratios]}")


def test_one_artifact_on_both_devices(find: Callable[[str], Artifact]) -> None:
    artifact = find("torch-fp32")
    host = detect_host()
    effort = Effort(name="test", rounds=2, window_s=0.05)
    result = measure_artifacts(
        {"torch-fp32": artifact}, MeasureSettings(effort=effort, device="cpu"), host, host, samples=None
    ).by_name["torch-fp32"]
    assert result.failure is None, describe(result.failure)
    assert result.opened is not None
    assert result.opened.settings.device == "cpu"
    assert not any(window.compute_latencies_ms for window in result.windows.values())
