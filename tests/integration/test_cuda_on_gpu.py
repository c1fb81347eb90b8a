"""The CUDA binding and the timing on a real GPU: `pytest -m gpu`. Each test has a child process and a fresh context."""

from __future__ import annotations

import importlib.util
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError, ToolchainMissingError
from modelwright.core.nvidia.probe import probe_driver
from modelwright.core.process.child import run_in_child

pytestmark = pytest.mark.gpu

Ask = Callable[..., Any]
PATHS = (Path(__file__).parent, Path(__file__).parents[1] / "unit" / "core" / "nvidia")


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Calls a function of `cuda_checks` or `cuda_children` in a child; skips where there is no GPU."""
    status = probe_driver()
    if not status.ok:
        pytest.skip(f"needs an NVIDIA GPU: {status.reason}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, PATHS)), prepend=os.pathsep)

    def call(function: str, **params: Any) -> Any:
        return run_in_child(function, params, purpose="using CUDA", crash_error=MeasurementInvalidError, timeout_s=300)

    return call


_seen_by_torch: list[bool] = []


@pytest.fixture
def ask_torch(ask: Ask) -> Ask:
    """The same, where PyTorch sees the GPU; asked once."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs PyTorch")
    if not _seen_by_torch:
        _seen_by_torch.append(ask("cuda_checks:is_cuda_seen_by_torch"))
    if not _seen_by_torch[0]:
        pytest.skip("needs a PyTorch that sees the GPU; this one is built for the CPU, or for another driver")
    return ask


def test_the_driver_tells_a_version_and_devices() -> None:
    status = probe_driver()
    if not status.ok:
        pytest.skip(f"needs an NVIDIA GPU: {status.reason}")
    assert status.device_count >= 1
    assert status.cuda_version is not None
    assert int(status.cuda_version.split(".")[0]) >= 11


def test_the_uuid_is_in_nvmls_spelling(ask: Ask) -> None:
    described = ask("cuda_children:describe_device")
    kind, _, digits = described["uuid"].partition("-")
    assert kind in ("GPU", "MIG")
    assert [len(part) for part in digits.split("-")] == [8, 4, 4, 4, 12]


@pytest.mark.parametrize("spin", [False, True])
def test_the_context_waits_as_asked(ask: Ask, spin: bool) -> None:
    assert ask("cuda_children:describe_device", spin=spin)["spin"] is spin
    assert ask("cuda_children:time_with_events", spin=spin)


def test_values_survive_the_way_to_the_device_and_back(ask: Ask) -> None:
    back, from_pinned = ask("cuda_children:copy_there_and_back")
    assert back == [float(value) for value in range(10)]
    assert from_pinned == [7.0, *(float(value) for value in range(1, 10))]
    assert ask("cuda_checks:copy_large")


def test_a_captured_graph_works_only_when_launched(ask: Ask) -> None:
    captured_only, launched = ask("cuda_children:launch_graph")
    assert captured_only == [0.0] * 10
    assert launched == [float(value) for value in range(10)]


def test_an_error_while_capturing_takes_the_stream_out_of_its_capture(ask: Ask) -> None:
    assert ask("cuda_children:fail_in_capture") == [float(value) for value in range(10)]


def test_contexts_nest(ask: Ask) -> None:
    ask("cuda_children:nest_contexts")


def test_memory_is_told_and_taken(ask: Ask) -> None:
    memory = ask("cuda_checks:read_memory")
    assert 0 < memory["free"] <= memory["total"]
    # Other programs may take or give back some meanwhile.
    assert memory["taken"] == pytest.approx(256 << 20, rel=0.25)


def test_out_of_memory_is_cudas_and_leaves_the_context_alive(ask: Ask) -> None:
    message, detail = ask("cuda_checks:allocate_too_much")
    assert "the GPU is out of memory; " in message
    assert detail.startswith("CUDA_ERROR_OUT_OF_MEMORY (2)")


def test_a_device_that_is_not_there_is_refused(ask: Ask) -> None:
    with pytest.raises(ToolchainMissingError, match="there is no GPU 99"):
        ask("cuda_children:describe_device", index=99)


@pytest.mark.parametrize("visible", ["", "-1"])
def test_hidden_devices_are_told_as_hidden(ask: Ask, monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    status = probe_driver()
    assert not status.ok
    assert f'CUDA_VISIBLE_DEVICES="{visible}" hides every GPU' in (status.reason or "")
    with pytest.raises(ModelwrightError, match="hides every GPU"):
        ask("cuda_children:describe_device")


def test_device_is_described_as_pytorch_describes_it(ask_torch: Ask) -> None:
    compared = ask_torch("cuda_checks:compare_descriptions")
    assert compared["ours"] == compared["torch"]
    if compared["torch_uuid"]:
        assert compared["uuid"].endswith(compared["torch_uuid"].removeprefix("GPU-"))


def test_pointers_of_pytorch_are_ours(ask_torch: Ask) -> None:
    read, written = ask_torch("cuda_checks:read_torch_tensor")
    assert read == [float(value) for value in range(8)]
    assert written == read[::-1]


def test_events_agree_with_pytorchs(ask_torch: Ask) -> None:
    ours_ms, theirs_ms = ask_torch("cuda_checks:compare_events")
    assert ours_ms > 0.0
    assert ours_ms == pytest.approx(theirs_ms, rel=0.02)


def test_work_of_pytorch_is_captured_and_launched(ask_torch: Ask) -> None:
    assert ask_torch("cuda_checks:launch_captured_torch") == [
        [0.0] * 4,
        [0.0, 2.0, 4.0, 6.0],
        [2.0, 4.0, 6.0, 8.0],
    ]


@pytest.mark.parametrize("spin", [False, True])
def test_inferences_queued_ahead_do_not_count_their_wait(ask_torch: Ask, spin: bool) -> None:
    times = ask_torch("cuda_checks:time_products", streams=1, spin=spin)
    assert times["spin"] is spin
    assert len(times["latencies_ns"]) >= 2
    mean_ns = times["elapsed_s"] / times["inferences"] * 1e9
    # Were the wait for the inference before in it, the latency would be twice the time for one.
    assert statistics.median(times["latencies_ns"]) == pytest.approx(mean_ns, rel=0.15)
    assert statistics.median(times["enqueue_ns"]) < statistics.median(times["latencies_ns"])


def test_streams_share_the_device(ask_torch: Ask) -> None:
    alone, shared = (ask_torch("cuda_checks:time_products", streams=streams, spin=False) for streams in (1, 2))
    # A product of this size fills any GPU: two at a time take about twice as long each, and as many get done.
    ratio = statistics.median(shared["latencies_ns"]) / statistics.median(alone["latencies_ns"])
    assert 1.3 < ratio < 3.0
    assert shared["inferences"] / shared["elapsed_s"] == pytest.approx(
        alone["inferences"] / alone["elapsed_s"], rel=0.3
    )
