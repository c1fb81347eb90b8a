"""Asking the driver, with a compiled stand-in for its library: what it says, and what happens when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_driver.build import build_fake_driver, use_fake_nvml

from modelwright.profiles.gpus import GpuProbe, probe_gpus, select_visible, sort_as_cuda
from modelwright.profiles.schema import Accelerator

ABSENT = "libmodelwright-absent.so.1"
T4_AND_H200 = ("Tesla T4;NVIDIA H200", "7.5;9.0")
SECOND = "GPU-01112233-4455-6677-8899-aabbccddeeff"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_fake_driver(tmp_path_factory.mktemp("driver")) / "libnvidia-ml.so.1"


@pytest.fixture(autouse=True)
def two_cards(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("FAKE_", "CUDA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "2")
    monkeypatch.setenv("FAKE_CUDA_NAME", T4_AND_H200[0])
    monkeypatch.setenv("FAKE_CUDA_CC", T4_AND_H200[1])
    use_fake_nvml(monkeypatch, library)


def names(probe: GpuProbe) -> list[str]:
    return [card.name for card in probe.accelerators]


def test_the_driver_tells_all_about_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "1")
    monkeypatch.setenv("FAKE_NVML_DRIVER_VERSION", "570.10")
    monkeypatch.setenv("FAKE_CUDA_VERSION", "12080")
    probe = probe_gpus(ABSENT)
    assert probe.accelerators == (
        Accelerator(
            kind="cuda",
            name="Tesla T4",
            compute_capability="7.5",
            memory_bytes=2**33,
            driver_version="570.10",
            cuda_version="12.8",
        ),
    )
    assert probe.has_power_meter
    assert probe.uuid == "GPU-00112233-4455-6677-8899-aabbccddeeff"


def test_the_first_card_is_the_one_that_cuda_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(probe_gpus(ABSENT)) == ["NVIDIA H200", "Tesla T4"], "the faster, though second on the bus"
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert names(probe_gpus(ABSENT)) == ["Tesla T4", "NVIDIA H200"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1", ["Tesla T4"]),
        (SECOND, ["NVIDIA H200"]),
        ("MIG-1234", []),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_hidden_gpus_do_not_count(monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert names(probe_gpus(ABSENT)) == expected


def test_a_slice_of_a_card_is_what_its_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_MIG_UUID", "ffeeddccbbaa99887766554433221100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-ffeeddcc-bbaa-9988-7766-554433221100")
    probe = probe_gpus(ABSENT)
    assert [card.compute_capability for card in probe.accelerators] == ["7.5"]
    assert not probe.has_power_meter, "the card's meter covers all its slices"


def test_what_the_driver_does_not_tell_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NVML_NOT_SUPPORTED", "power,memory")
    probe = probe_gpus(ABSENT)
    assert probe.accelerators[0].memory_bytes is None
    assert not probe.has_power_meter


@pytest.mark.parametrize(("fail", "told"), [("", "Orin 8.7 8589934592 13.0 False"), ("cuDeviceGetAttribute=999", "")])
def test_without_nvml_cuda_is_asked(tmp_path: Path, library: Path, fail: str, told: str) -> None:
    """As on a Jetson; in a process of its own, in which nothing else finds that driver afterwards."""
    (tmp_path / "libcuda.so.1").symlink_to(library.with_name("libcuda.so.1"))
    code = """
from modelwright.profiles.gpus import probe_gpus
probe = probe_gpus()
for card in probe.accelerators:
    print(card.name, card.compute_capability, card.memory_bytes, card.cuda_version, probe.has_power_meter)
"""
    card = {"FAKE_CUDA_NAME": "Orin", "FAKE_CUDA_CC": "8.7", "FAKE_CUDA_DEVICES": "1", "FAKE_CUDA_FAIL": fail}
    variables = {**os.environ, **card, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=variables)
    assert done.stdout.strip() == told


def test_a_missing_or_broken_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NVML_INIT_ERROR", "9")
    assert probe_gpus(ABSENT) == GpuProbe()
    use_fake_nvml(monkeypatch, None)
    assert probe_gpus(ABSENT) == GpuProbe()
    # A library without the calls, as a driver that is too old.
    use_fake_nvml(monkeypatch, "libc.so.6")
    assert probe_gpus("libc.so.6") == GpuProbe()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2]),
        ("1", [1]),
        ("2,0", [2, 0]),
        ("1,7,0", [1]),
        ("-1", []),
        ("GPU-bb", [1]),
        ("GPU-c,GPU-aa", [2, 0]),
        ("GPU-aa,GPU-ff,GPU-bb", [0]),
        ("GPU-", []),
        (" 1 , 2 ", [1, 2]),
        ("1,", [1]),
    ],
)
def test_visible_gpus(visible: str | None, expected: list[int]) -> None:
    assert select_visible(["GPU-aa11", "GPU-bb22", "GPU-cc33"], visible) == expected


def test_capabilities_are_ordered_as_numbers() -> None:
    assert sort_as_cuda(["8.6", "12.0", "9.0", "8.6", None], None) == [1, 2, 0, 3, 4]
    assert sort_as_cuda(["8.6", "12.0"], "PCI_BUS_ID") == [0, 1]
