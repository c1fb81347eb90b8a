"""Finding the CUDA driver and saying why it cannot be used, against a compiled stand-in for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_driver.build import build_fake_driver

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.nvidia.driver import LIBRARY
from modelwright.core.nvidia.probe import DriverStatus, probe_driver
from modelwright.core.process.child import run_in_child

Ask = Callable[..., Any]


def read_log(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_probe_tells_version_and_devices(ask: Ask) -> None:
    told = ask("probe", {"FAKE_CUDA_VERSION": "12090", "FAKE_CUDA_DEVICES": "2"})
    assert told == {"ok": True, "reason": None, "hint": None, "cuda_version": "12.9", "device_count": 2}


@pytest.mark.parametrize(
    ("environment", "reason", "hint"),
    [
        ({"FAKE_CUDA_INIT_ERROR": "100"}, "finds no GPU (CUDA_ERROR_NO_DEVICE (100): no CUDA-capable", "nvidia-smi -L"),
        ({"FAKE_CUDA_INIT_ERROR": "803"}, "of different versions", "reboot"),
        ({"FAKE_CUDA_INIT_ERROR": "804"}, "forward compatibility", "cuda-compat"),
        ({"FAKE_CUDA_INIT_ERROR": "34"}, "stub", "LD_LIBRARY_PATH"),
        ({"FAKE_CUDA_INIT_ERROR": "35"}, "too old", "update the NVIDIA driver"),
        ({"FAKE_CUDA_INIT_ERROR": "46"}, "another process holds it exclusively", "nvidia-smi"),
        ({"FAKE_CUDA_INIT_ERROR": "999"}, "nvidia_uvm", "nvidia-modprobe"),
        ({"FAKE_CUDA_INIT_ERROR": "12345"}, "does not start (unknown error (12345))", "nvidia-smi"),
        ({"CUDA_VISIBLE_DEVICES": ""}, 'CUDA_VISIBLE_DEVICES="" hides every GPU', "unset CUDA_VISIBLE_DEVICES"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 'CUDA_VISIBLE_DEVICES="-1" hides every GPU', "unset CUDA_VISIBLE_DEVICES"),
        ({"CUDA_VISIBLE_DEVICES": "7", "FAKE_CUDA_DEVICES": "0"}, "leaves no GPU visible", "unset"),
        ({"FAKE_CUDA_FAIL": "cuDeviceGetCount=999"}, "nvidia_uvm", "nvidia-modprobe"),
    ],
)
def test_every_fault_has_its_own_sentence(ask: Ask, environment: dict[str, str], reason: str, hint: str) -> None:
    told, error = ask("probe_and_require", environment)
    assert not told["ok"]
    assert reason in told["reason"]
    assert hint in told["hint"]
    assert told["cuda_version"] == "13.0", "the driver tells its version even where it does not start"
    assert error["kind"] == "ToolchainMissingError"
    assert error["message"] == f"CUDA cannot be used: {told['reason']}"
    assert error["hint"] == told["hint"]


def test_devices_that_the_user_hides_are_told_as_hidden(ask: Ask) -> None:
    told = ask("probe", {"CUDA_VISIBLE_DEVICES": ""})
    assert told["reason"].startswith('CUDA_VISIBLE_DEVICES="" hides every GPU')
    assert told["device_count"] == 0


def test_a_library_path_set_after_the_start_counts_for_children(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{driver}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert probe_driver() == DriverStatus(ok=True, reason=None, hint=None, cuda_version="13.0", device_count=1)


def test_a_driver_that_crashes_costs_only_the_child_that_asks_it(ask: Ask, tmp_path: Path) -> None:
    build_fake_driver(tmp_path, defines=["CRASHING"])
    told = ask("probe", {"LD_LIBRARY_PATH": str(tmp_path)})
    assert not told["ok"]
    assert "asking the NVIDIA driver crashed" in told["reason"]
    assert "SIGABRT" in told["reason"]


def test_asking_leaves_the_asking_process_alone(ask: Ask, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    ask("probe_twice_and_count", {"FAKE_CUDA_LOG": str(log)})
    assert read_log(log) == ["cuInit"], "one child asks, once; the process that calls initialises nothing"


def test_a_broken_library_is_not_an_absent_one(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / LIBRARY).write_bytes(b"not a library")
    told = ask("probe", {"LD_LIBRARY_PATH": str(tmp_path)})
    assert told["reason"].startswith("the NVIDIA driver is broken: ")
    assert LIBRARY in told["reason"]
    assert "again" in told["hint"]


def test_an_old_driver_without_the_newer_symbols_works(ask: Ask, tmp_path: Path) -> None:
    build_fake_driver(tmp_path, defines=["OLD_DRIVER"])
    environment = {"LD_LIBRARY_PATH": str(tmp_path), "FAKE_CUDA_LOG": str(tmp_path / "calls")}
    assert ask("describe_device", environment)["uuid"] == "GPU-00112233-4455-6677-8899-aabbccddeeff"
    assert ask("launch_graph", environment)[1][9] == 9.0
    assert ask("time_with_events", environment, spin=False)
    calls = read_log(tmp_path / "calls")
    assert "cuGraphInstantiate_v2" in calls
    assert "cuEventElapsedTime" in calls


def test_the_newer_symbols_are_preferred(ask: Ask, tmp_path: Path) -> None:
    environment = {"FAKE_CUDA_LOG": str(tmp_path / "calls")}
    ask("launch_graph", environment)
    ask("time_with_events", environment, spin=False)
    calls = read_log(tmp_path / "calls")
    assert "cuGraphInstantiateWithFlags" in calls
    assert "cuEventElapsedTime_v2" in calls


def test_a_driver_that_lacks_what_is_needed_is_too_old(ask: Ask, tmp_path: Path) -> None:
    build_fake_driver(tmp_path, defines=["ANCIENT_DRIVER"])
    told = ask("probe", {"LD_LIBRARY_PATH": str(tmp_path)})
    assert told["reason"] == "the NVIDIA driver is too old: its libcuda.so.1 has no cuDevicePrimaryCtxSetFlags_v2"
    assert told["hint"] == "update the NVIDIA driver"


def test_a_machine_without_a_driver_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    status = probe_driver()
    if status.reason is None or "is not there" not in status.reason:
        pytest.skip("this machine has an NVIDIA driver")
    assert status.reason == "no NVIDIA driver: libcuda.so.1 is not there"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    with pytest.raises(ToolchainMissingError, match=r"no NVIDIA driver: libcuda\.so\.1 is not there") as caught:
        run_in_child("cuda_children:describe_device", {}, purpose="using CUDA")
    assert "install the NVIDIA driver" in (caught.value.hint or "")
