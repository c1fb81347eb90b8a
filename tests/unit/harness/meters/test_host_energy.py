from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.harness.meters.energy import Energy, estimate_carbon
from modelwright.harness.meters.host_energy import (
    HwmonMeter,
    RaplMeter,
    describe_measured,
    find_meter,
)
from modelwright.harness.meters.power_model import estimate_energy
from modelwright.profiles import find_region, load_profile


def rapl(root: Path, *, packages: tuple[int, ...], range_uj: int = 1_000_000) -> list[Path]:
    counters = []
    for index, value in enumerate(packages):
        for name in (f"intel-rapl:{index}", f"intel-rapl:{index}:0"):
            folder = root / "sys/class/powercap" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "energy_uj").write_text(f"{value}\n")
            (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
            counters.append(folder / "energy_uj")
    return counters


def test_rapl_adds_packages_not_their_parts_and_survives_the_wrap(tmp_path: Path) -> None:
    rapl(tmp_path, packages=(100, 900_000))
    meter = find_meter(tmp_path)
    assert isinstance(meter, RaplMeter)
    with meter:
        rapl(tmp_path, packages=(200_100, 100_000))
        assert meter.read_j() == pytest.approx(0.2 + 0.2)
        rapl(tmp_path, packages=(300_100, 200_000))
        assert meter.read_j() == pytest.approx(0.3 + 0.3)


def test_hwmon_converts_both_kinds_of_sensors(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/hwmon/hwmon0"
    folder.mkdir(parents=True)
    (folder / "name").write_text("ina3221\n")
    (folder / "curr1_input").write_text("2000\n")
    (folder / "in1_input").write_text("5000\n")
    meter = find_meter(tmp_path)
    assert isinstance(meter, HwmonMeter)
    assert meter.read_power_w() == pytest.approx(10.0)
    (folder / "power1_input").write_text("7500000\n")
    meter = find_meter(tmp_path)
    assert isinstance(meter, HwmonMeter)
    assert meter.read_power_w() == pytest.approx(7.5)


def test_no_meter_is_none(tmp_path: Path) -> None:
    assert find_meter(tmp_path) is None


def test_measured_energy_tells_the_idle_share_apart(tmp_path: Path) -> None:
    rapl(tmp_path, packages=(0,))
    meter = find_meter(tmp_path)
    assert meter is not None
    record = describe_measured(meter, energy_j=50.0, inferences=100, elapsed_s=5.0, idle_power_w=4.0)
    assert record.per_inference_j == pytest.approx(0.5)
    assert record.above_idle_per_inference_j == pytest.approx(0.3)
    assert record.source == "measured:rapl"


def test_a_meter_that_stands_still_gives_no_figure(tmp_path: Path) -> None:
    rapl(tmp_path, packages=(0,))
    meter = find_meter(tmp_path)
    assert meter is not None
    record = describe_measured(meter, energy_j=0.0, inferences=100, elapsed_s=5.0, idle_power_w=None)
    assert record.per_inference_j is None
    assert record.source is None
    assert "did not move" in record.reason


def test_estimate_of_the_desktop_is_its_tdp_share_times_the_latency() -> None:
    profile = load_profile("desktop-i5-10400")
    record = estimate_energy(profile.power, 10.0, profile)
    assert record.per_inference_j == pytest.approx(65 * 0.4 * 0.010)
    assert record.above_idle_per_inference_j == pytest.approx((65 * 0.4 - 5) * 0.010)
    assert record.source == "estimated:tdp_util"


def test_without_power_figures_there_is_no_estimate() -> None:
    record = estimate_energy(None, 10.0, load_profile("desktop-i5-10400"))
    assert record.per_inference_j is None
    assert "no power figures" in record.reason


def test_carbon_of_a_kilowatt_hour_is_the_regions_figure() -> None:
    record = estimate_carbon(Energy(per_inference_j=3.6e6), find_region("DE"))
    assert record.per_inference_g == pytest.approx(420)
    assert estimate_carbon(Energy(per_inference_j=None), find_region("DE")).per_inference_g is None
