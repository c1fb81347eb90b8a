from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.harness.meters.energy import Energy, estimate_carbon
from modelwright.harness.meters.host_energy import (
    HwmonMeter,
    RaplMeter,
    describe_measured,
    find_meter,
    measure_idle_power_w,
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


def test_the_platform_is_not_added_to_the_package_in_it(tmp_path: Path) -> None:
    """10 J of the package and 25 J of `psys`, which holds them, were 35 J of "CPU package"."""
    package, _, psys, _ = rapl(tmp_path, packages=(0, 0), range_uj=10**9)
    (package.parent / "name").write_text("package-0\n")
    (psys.parent / "name").write_text("psys\n")
    meter = find_meter(tmp_path)
    assert meter is not None
    with meter:
        package.write_text("10000000\n")
        psys.write_text("25000000\n")
        assert meter.read_j() == pytest.approx(10.0)


def test_a_counter_that_fails_between_windows_is_a_reason_not_an_error(tmp_path: Path) -> None:
    (counter, _) = rapl(tmp_path, packages=(0,))
    meter = find_meter(tmp_path)
    assert meter is not None
    with meter:
        assert meter.read_j() == 0.0
        counter.unlink()
        assert meter.read_j() is None
        counter.write_text("5000000\n")
        assert meter.read_j() is None, "what it missed meanwhile is not known"
        assert measure_idle_power_w(meter, 0.0) is None
    record = describe_measured(meter, energy_j=50.0, inferences=100, elapsed_s=5.0, idle_power_w=None)
    assert record.per_inference_j is None
    assert record.reason is not None
    assert record.reason.startswith("the meter rapl failed: ")


def sensor(root: Path, number: int = 0, **files: str) -> Path:
    folder = root / f"sys/class/hwmon/hwmon{number}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")
    return folder


def test_hwmon_converts_both_kinds_of_sensors(tmp_path: Path) -> None:
    sensor(tmp_path, name="ina3221", curr1_input="2000", in1_input="5000")
    meter = find_meter(tmp_path)
    assert isinstance(meter, HwmonMeter)
    assert meter.read_power_w() == pytest.approx(10.0)
    sensor(tmp_path, power1_input="7500000")
    meter = find_meter(tmp_path)
    assert isinstance(meter, HwmonMeter)
    assert meter.read_power_w() == pytest.approx(7.5)


def test_a_sensor_is_named_for_what_it_covers(tmp_path: Path) -> None:
    sensor(tmp_path, 0, name="nct6798", power1_input="1000000")
    assert find_meter(tmp_path) is None, "nobody knows what it measures"
    sensor(tmp_path, 1, name="ina226", power1_input="2000000")
    assert getattr(find_meter(tmp_path), "scope", None) == "sensor ina226"
    rails = {"curr1_input": "1000", "in1_input": "5000", "in1_label": "VDD_CPU_CV"}
    sensor(tmp_path, 2, name="ina3221", **rails, curr2_input="3000", in2_input="5000", in2_label="VDD_IN")
    meter = find_meter(tmp_path)
    assert isinstance(meter, HwmonMeter)
    assert meter.scope == "board"
    assert meter.read_power_w() == pytest.approx(15.0)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_windows_between_two_looks_of_the_thread_get_their_own_power(tmp_path: Path) -> None:
    """Turns of 0.1 s at 10 and 20 W: with looks every 0.05 s that knew no windows they came out as 11.5 and 18."""
    power = sensor(tmp_path, name="ina226", power1_input="10000000") / "power1_input"
    clock = Clock()
    meter = HwmonMeter(power, clock=clock)
    taken: dict[int, float] = {10: 0.0, 20: 0.0}
    for turn in range(40):
        watts = 10 if turn % 2 == 0 else 20
        before_j = meter.read_j()
        power.write_text(f"{watts}000000\n")
        for part_s in (0.03, 0.05, 0.02) if turn % 3 else (0.1,):  # looks of the thread fall anywhere
            clock.now_s += part_s
            after_j = meter.read_j()
        assert before_j is not None
        assert after_j is not None
        taken[watts] += after_j - before_j
    assert taken[10] / 2.0 == pytest.approx(10.0)
    assert taken[20] / 2.0 == pytest.approx(20.0)


def test_a_sensor_that_fails_ends_the_meter_with_a_reason(tmp_path: Path) -> None:
    power = sensor(tmp_path, name="ina226", power1_input="10000000") / "power1_input"
    meter = find_meter(tmp_path)
    assert meter is not None
    with meter:
        first_j = meter.read_j()
        assert first_j is not None
        power.write_text("no number\n")
        assert meter.read_j() is None
        power.write_text("10000000\n")
        assert meter.read_j() is None
    assert "the meter hwmon failed: invalid literal" in str(meter.failure)


def test_a_meter_that_cannot_even_start_costs_nothing_else(tmp_path: Path) -> None:
    (counter, _) = rapl(tmp_path, packages=(0,))
    meter = find_meter(tmp_path)
    assert meter is not None
    counter.unlink()
    with meter:
        assert meter.read_j() is None
    assert meter.failure is not None


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


def test_an_estimate_bills_the_cores_that_are_used() -> None:
    """One thread of 56 cores under the AMX class' figures was billed the 140 W of all of them."""
    amx, desktop = load_profile("x86-amx"), load_profile("desktop-i5-10400")
    one = estimate_energy(amx.power, 1000.0, amx, threads=1, cores=amx.cores)
    assert one.per_inference_j == pytest.approx(140 / amx.cores)
    assert f"1 of {amx.cores} cores" in str(one.model)
    two = estimate_energy(desktop.power, 1000.0, desktop, threads=2, cores=6)
    assert two.per_inference_j == pytest.approx(5 + 21 * 2 / 6)
    assert two.above_idle_per_inference_j == pytest.approx(7)
    assert two.mean_power_w == pytest.approx(12)
    for threads in (6, 12):
        every = estimate_energy(desktop.power, 1000.0, desktop, threads=threads, cores=6)
        assert every.per_inference_j == pytest.approx(26)


def test_without_power_figures_there_is_no_estimate() -> None:
    record = estimate_energy(None, 10.0, load_profile("desktop-i5-10400"))
    assert record.per_inference_j is None
    assert "no power figures" in record.reason


def test_carbon_of_a_kilowatt_hour_is_the_regions_figure() -> None:
    record = estimate_carbon(Energy(per_inference_j=3.6e6), find_region("DE"))
    assert record.per_inference_g == pytest.approx(420)
    assert estimate_carbon(Energy(per_inference_j=None), find_region("DE")).per_inference_g is None
