"""Work by the CUDA driver API, against a compiled stand-in for it, in child processes as in real use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.core.errors import MeasurementInvalidError, ToolchainMissingError

Ask = Callable[..., Any]


def read_log(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_device_is_described_in_the_vendors_spelling(ask: Ask) -> None:
    environment = {"FAKE_CUDA_NAME": "NVIDIA X", "FAKE_CUDA_CC": "12.0", "FAKE_CUDA_MEMORY_BYTES": "4194304"}
    assert ask("describe_device", environment) == {
        "name": "NVIDIA X",
        "uuid": "GPU-00112233-4455-6677-8899-aabbccddeeff",
        "compute_capability": "12.0",
        "spin": False,
        "total_bytes": 4 << 20,
        "taken_bytes": 1 << 20,
        "given_back_bytes": 1 << 20,
    }


def test_a_slice_of_a_partitioned_card_has_an_identity_of_its_own(ask: Ask) -> None:
    described = ask("describe_device", {"FAKE_CUDA_MIG_UUID": "f" * 32})
    assert described["uuid"] == "MIG-ffffffff-ffff-ffff-ffff-ffffffffffff"


# CU_CTX_SCHED_SPIN is 1 and CU_CTX_SCHED_BLOCKING_SYNC 4; CU_EVENT_BLOCKING_SYNC is 1; CU_STREAM_NON_BLOCKING is 1.
@pytest.mark.parametrize(("spin", "context_flags", "event_flags"), [(False, 4, 1), (True, 1, 0)])
def test_spinning_and_blocking_reach_context_and_events(
    ask: Ask, tmp_path: Path, spin: bool, context_flags: int, event_flags: int
) -> None:
    log = tmp_path / "calls"
    assert ask("time_with_events", {"FAKE_CUDA_LOG": str(log)}, spin=spin)
    calls = read_log(log)
    assert calls.index(f"cuDevicePrimaryCtxSetFlags_v2 {context_flags}") < calls.index("cuDevicePrimaryCtxRetain")
    assert calls.count(f"cuEventCreate {event_flags}") == calls.count("cuEventDestroy_v2") == 2
    assert "cuStreamCreate 1" in calls
    assert "cuStreamDestroy_v2" in calls
    assert calls[-1] == "cuDevicePrimaryCtxRelease_v2"


def test_what_waits_is_read_back_from_a_context_that_others_made(ask: Ask) -> None:
    # 708 is CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE, which drivers before CUDA 11 answer.
    described = ask("describe_device", {"FAKE_CUDA_FAIL": "cuDevicePrimaryCtxSetFlags_v2=708"}, spin=True)
    assert described["spin"] is False


def test_values_survive_the_way_to_the_device_and_back(ask: Ask) -> None:
    back, from_pinned = ask("copy_there_and_back")
    assert back == [float(value) for value in range(10)]
    assert from_pinned == [7.0, *(float(value) for value in range(1, 10))]


def test_copies_past_an_end_are_refused_before_the_driver_is_asked(ask: Ask) -> None:
    assert ask("refuse_bad_copies") == [
        "the array is not C-contiguous",
        "44 bytes do not fit a device buffer of 40",
        "40 bytes do not fit host memory of 8",
        "the array to copy to is not writable",
    ]


def test_a_captured_graph_works_only_when_launched(ask: Ask, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    captured_only, launched = ask("launch_graph", {"FAKE_CUDA_LOG": str(log)})
    assert captured_only == [0.0] * 10
    assert launched == [float(value) for value in range(10)]
    calls = read_log(log)
    assert "cuStreamBeginCapture_v2 1" in calls, "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL"
    assert calls.count("cuGraphDestroy") == calls.count("cuGraphExecDestroy") == 1


def test_an_error_while_capturing_takes_the_stream_out_of_its_capture(ask: Ask) -> None:
    assert ask("fail_in_capture") == [float(value) for value in range(10)]


def test_out_of_memory_says_how_much_is_free(ask: Ask) -> None:
    with pytest.raises(MeasurementInvalidError) as caught:
        ask("allocate", {"FAKE_CUDA_MEMORY_BYTES": str(64 << 20)}, size_bytes=1 << 30)
    assert caught.value.message == (
        "CUDA cannot allocate 1,073,741,824 bytes on the GPU: the GPU is out of memory; 64 of 64 MiB are free"
    )
    assert "--batch" in (caught.value.hint or "")
    assert caught.value.detail == "CUDA_ERROR_OUT_OF_MEMORY (2): out of memory"


@pytest.mark.parametrize(
    ("function", "fail", "message"),
    [
        ("copy_there_and_back", "cuStreamSynchronize=700", "CUDA_ERROR_ILLEGAL_ADDRESS (700): an illegal memory"),
        ("copy_there_and_back", "cuMemcpyDtoHAsync_v2=719@2", "copy 40 bytes from the GPU: CUDA_ERROR_LAUNCH_FAILED"),
        ("launch_graph", "cuStreamEndCapture=900", "capture the work in a CUDA graph: CUDA_ERROR_STREAM_CAPTURE_UNS"),
        ("launch_graph", "cuGraphLaunch=4321", "launch a CUDA graph: unknown error (4321)"),
    ],
)
def test_a_failed_call_has_cudas_name_and_text(ask: Ask, function: str, fail: str, message: str) -> None:
    with pytest.raises(MeasurementInvalidError) as caught:
        ask(function, {"FAKE_CUDA_FAIL": fail})
    assert caught.value.message.startswith("CUDA cannot ")
    assert message in caught.value.message


def test_a_card_that_another_process_holds_is_named(ask: Ask) -> None:
    with pytest.raises(ToolchainMissingError, match=r"CUDA cannot use Fake GPU: .* holds it exclusively"):
        ask("describe_device", {"FAKE_CUDA_FAIL": "cuDevicePrimaryCtxRetain=46"})


def test_a_device_that_is_not_there_is_refused(ask: Ask) -> None:
    with pytest.raises(ToolchainMissingError, match="there is no GPU 1: 1 visible"):
        ask("describe_device", index=1)


def test_leaving_a_device_gives_the_context_back_to_whom_it_was_of(ask: Ask) -> None:
    ask("nest_contexts")
