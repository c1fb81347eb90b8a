"""NVML's calls, against a compiled stand-in for the driver's library whose cards are environment variables."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pynvml
import pytest
from fake_driver.build import build_fake_driver, use_fake_nvml

from modelwright.core.errors import MeasurementInvalidError, ToolchainMissingError
from modelwright.core.nvidia.nvml import Nvml, Process, name_reasons


@pytest.fixture(autouse=True)
def _fake(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FAKE_")]:
        monkeypatch.delenv(name)
    use_fake_nvml(monkeypatch, driver / "libnvidia-ml.so.1")


def test_the_driver_and_its_card() -> None:
    with Nvml() as nvml:
        assert nvml.driver_version() == "580.65.06"
        assert nvml.cuda_version() == "13.0"
        (card,) = nvml.devices()
        assert (card.name, card.compute_capability) == ("Fake GPU", "8.9")
        assert card.memory_bytes == 8 * 2**30
        assert card.pci_bus_id == "00000000:01:00.0"
        assert card.uuid == "GPU-00112233-4455-6677-8899-aabbccddeeff"
        assert not card.is_mig
        assert dict(card.unavailable) == {}


def test_readings_come_in_the_units_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NVML_POWER_MW", "312500")
    monkeypatch.setenv("FAKE_NVML_REASONS", "0x25")
    monkeypatch.setenv("FAKE_NVML_POWER_CAP_NS", "7000")
    monkeypatch.setenv("FAKE_NVML_PROCESSES", "4711:1048576,4712:?")
    with Nvml() as nvml:
        card = nvml.devices()[0]
        assert card.power_w() == 312.5
        before_s = time.monotonic()
        energy_j = card.energy_j()
        after_s = time.monotonic()
        assert energy_j is not None
        # The stand-in's counter: power times the monotonic clock, in whole steps of 0.1 s.
        assert (before_s - 0.1) * 312.5 - 0.01 <= energy_j <= after_s * 312.5
        assert card.clocks_mhz() == {"sm": 2520, "memory": 10501}
        assert card.temperature_c() == 41
        assert card.throttle_reasons() == ("SwPowerCap", "SwThermalSlowdown"), "idleness is no reason"
        assert card.throttled_ns() == {"SwPowerCap": 7000, "SwThermalSlowdown": 0}
        assert card.memory() == (2**29, 2**33)
        assert card.processes() == (Process(pid=4711, used_bytes=2**20), Process(pid=4712, used_bytes=None))


def test_what_is_not_supported_is_none_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NVML_NOT_SUPPORTED", "energy,power,clocks,reasons,counters,temperature,processes,memory")
    with Nvml() as nvml:
        card = nvml.devices()[0]
        assert card.memory_bytes is None
        assert card.energy_j() is None
        assert card.power_w() is None
        assert card.clocks_mhz() == {"sm": None, "memory": None}
        assert card.throttle_reasons() is None
        assert card.throttled_ns() is None
        assert card.temperature_c() is None
        assert card.processes() is None
        assert dict(card.unavailable) == dict.fromkeys(
            (
                *("memory_bytes", "energy_j", "power_w", "clocks_mhz.sm", "clocks_mhz.memory"),
                *("throttle_reasons", "throttled_ns", "temperature_c", "processes"),
            ),
            "NVML: Not Supported",
        )
        monkeypatch.delenv("FAKE_NVML_NOT_SUPPORTED")
        assert card.energy_j() is not None
        assert "energy_j" not in card.unavailable, "a reading that came back has no reason"


def test_more_processes_than_fit_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NVML_PROCESSES", ",".join(f"{1000 + index}:{index}" for index in range(40)))
    with Nvml() as nvml:
        found = nvml.devices()[0].processes()
    assert found == tuple(Process(pid=1000 + index, used_bytes=index) for index in range(40))


def test_an_old_driver_is_asked_under_the_old_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_nvml(monkeypatch, build_fake_driver(tmp_path, defines=["OLD_DRIVER"]) / "libnvidia-ml.so.1")
    monkeypatch.setenv("FAKE_NVML_REASONS", "0x8")
    monkeypatch.setenv("FAKE_NVML_PROCESSES", "12:34")
    with Nvml() as nvml:
        card = nvml.devices()[0]
        assert card.throttle_reasons() == ("HwSlowdown",)
        assert card.processes() == (Process(pid=12, used_bytes=34),)


def test_cards_are_found_by_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "2")
    monkeypatch.setenv("FAKE_CUDA_NAME", "Tesla T4;NVIDIA H200")
    with Nvml() as nvml:
        assert [card.name for card in nvml.devices()] == ["Tesla T4", "NVIDIA H200"]
        second = nvml.device_by_uuid("GPU-01112233-4455-6677-8899-aabbccddeeff")
        assert (second.name, second.pci_bus_id) == ("NVIDIA H200", "00000000:02:00.0")
        assert nvml.device_by_uuid("01112233-4455-6677-8899-aabbccddeeff").uuid == second.uuid, "as PyTorch says it"
        with pytest.raises(MeasurementInvalidError, match=r"does not find the GPU GPU-1234 .*Not Found"):
            nvml.device_by_uuid("GPU-1234")


def test_a_slice_of_a_card_has_no_meter_but_the_cards_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_MIG_UUID", "ffeeddccbbaa99887766554433221100")
    with Nvml() as nvml:
        part = nvml.device_by_uuid("MIG-ffeeddcc-bbaa-9988-7766-554433221100")
        assert part.is_mig
        assert nvml.device_by_uuid("GPU-ffeeddcc-bbaa-9988-7766-554433221100").uuid == part.uuid
        assert (part.compute_capability, part.pci_bus_id) == ("8.9", "00000000:01:00.0")
        assert part.clocks_mhz() == {"sm": 2520, "memory": 10501}
        assert part.throttle_reasons() == ()
        assert part.temperature_c() == 41
        assert part.energy_j() is None
        assert part.power_w() is None
        assert "a MIG instance has no meter of its own" in part.unavailable["energy_j"]


def test_no_driver_and_a_broken_one_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NVML_INIT_ERROR", "18")
    with pytest.raises(ToolchainMissingError, match="Driver/library version mismatch"), Nvml():
        pass
    use_fake_nvml(monkeypatch, None)
    with pytest.raises(ToolchainMissingError, match="no NVIDIA driver"), Nvml():
        pass
    use_fake_nvml(monkeypatch, "libc.so.6")
    with pytest.raises(ToolchainMissingError, match="this driver's NVML does not have the call"), Nvml():
        pass
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ToolchainMissingError, match="binding to NVML is not installed"), Nvml():
        pass


def test_a_lost_gpu_is_an_error_not_a_missing_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    with Nvml() as nvml:
        card = nvml.devices()[0]
        monkeypatch.setenv("FAKE_NVML_NOT_SUPPORTED", "power")
        monkeypatch.setenv("FAKE_NVML_REFUSAL", "15")
        with pytest.raises(MeasurementInvalidError, match="cannot be read any more"):
            card.power_w()
    with pytest.raises(MeasurementInvalidError, match="before it is opened"):
        nvml.devices()


@pytest.mark.parametrize(("code", "words"), [("4", "Unknown Error"), ("999", "Unknown Error"), ("-5", "Unknown Error")])
def test_any_other_refusal_is_a_reason(monkeypatch: pytest.MonkeyPatch, code: str, words: str) -> None:
    monkeypatch.setenv("FAKE_NVML_NOT_SUPPORTED", "energy,counters,processes")
    monkeypatch.setenv("FAKE_NVML_REFUSAL", code)
    with Nvml() as nvml:
        card = nvml.devices()[0]
        assert (card.energy_j(), card.throttled_ns(), card.processes()) == (None, None, None)
        assert set(card.unavailable.values()) == {f"NVML: {words}"}


def test_text_that_is_none_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_NAME", os.fsdecode(b"GPU \xff"))
    with Nvml() as nvml:
        (card,) = nvml.devices()
        assert card.name == "NVIDIA GPU"
        assert "cannot be read" in card.unavailable["name"]


def test_a_call_that_the_binding_lacks_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption")
    with Nvml() as nvml:
        card = nvml.devices()[0]
        assert card.energy_j() is None
        assert "nvmlDeviceGetTotalEnergyConsumption" in card.unavailable["energy_j"]


def test_the_binding_finds_the_library_by_its_name_and_is_imported_where_it_is_needed(driver: Path) -> None:
    """As in real use, in a process of its own: the other tests give it the library themselves."""
    code = """
import sys
import modelwright.harness.meters.gpu_bench, modelwright.profiles
from modelwright.core.nvidia.nvml import Nvml
assert "pynvml" not in sys.modules
with Nvml() as nvml:
    print(nvml.devices()[0].uuid)
"""
    variables = {**os.environ, "LD_LIBRARY_PATH": str(driver)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=variables)
    assert done.stdout.strip() == "GPU-00112233-4455-6677-8899-aabbccddeeff", done.stderr


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0x0, ()),
        (0x1, ()),
        (0x3, ("ApplicationsClocksSetting",)),
        (0xE8, ("HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")),
        (0x410, ("SyncBoost", "reason 0x400")),
    ],
)
def test_reasons_have_the_names_of_the_header(bits: int, names: tuple[str, ...]) -> None:
    assert name_reasons(bits) == names
