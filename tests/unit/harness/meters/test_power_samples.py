"""Samples of power, from looks at a counter whose power is known."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.harness.meters.host_energy import Meter, Metered, RaplMeter, describe_measured, run_metered
from modelwright.harness.meters.power_samples import Power, Sample, list_power, summarize_power


def test_each_while_has_its_own_power_and_what_remains_belongs_to_the_last() -> None:
    looks = [Sample(10.0, 100.0), Sample(11.0, 105.0), Sample(12.0, 125.0), Sample(12.25, 130.0)]
    assert list_power(looks, 1.0) == ((5.0, 1.0), (20.0, 1.25))
    assert list_power(looks, 0.25) == ((5.0, 1.0), (20.0, 1.0), (20.0, 0.25))
    assert list_power(looks, 100.0) == (pytest.approx((30 / 2.25, 2.25)),)


@pytest.mark.parametrize("looks", [[], [Sample(1.0, 5.0)], [Sample(1.0, 5.0), Sample(1.0, 6.0)]])
def test_what_took_no_time_has_no_power(looks: list[Sample]) -> None:
    assert list_power(looks, 0.05) == ()
    assert summarize_power(list_power(looks, 0.05)) is None


def test_the_joules_of_the_samples_are_those_of_the_counter() -> None:
    looks = [Sample(at_s, at_s**2) for at_s in (0.0, 0.05, 0.1001, 0.13, 0.19, 0.2)]
    for least_s in (0.01, 0.05, 0.07, 1.0):
        assert sum(watts * seconds for watts, seconds in list_power(looks, least_s)) == pytest.approx(0.2**2)


def test_the_spread_is_that_of_the_samples() -> None:
    found = summarize_power([Power(10.0, 0.05), Power(14.0, 0.05), Power(12.0, 0.06)])
    assert found is not None
    assert (found.count, found.interval_s) == (3, 0.05)
    assert (found.min_w, found.median_w, found.max_w, found.std_w) == (10.0, 12.0, 14.0, 2.0)
    one = summarize_power([Power(10.0, 0.05)])
    assert one is not None
    assert one.std_w is None, "one sample has no spread, which is another thing than a spread of 0"


def make_counter(folder: Path) -> tuple[RaplMeter, Callable[[int], None]]:
    """Returns a meter of one package, and how to set its counter at once, as the kernel does."""
    zone = folder / "intel-rapl:0"
    zone.mkdir()
    (zone / "max_energy_range_uj").write_text("1000000000\n")

    def count(microjoules: int) -> None:
        (zone / "next").write_text(f"{microjoules}\n")
        (zone / "next").rename(zone / "energy_uj")

    count(0)
    return RaplMeter([zone / "energy_uj"]), count


def test_a_run_is_metered_from_its_start_to_its_end(tmp_path: Path) -> None:
    meter, count = make_counter(tmp_path)

    def run() -> str:
        for microjoules in (1_000_000, 3_000_000, 6_000_000):
            time.sleep(0.03)
            count(microjoules)
        return "done"

    with meter:
        count(500_000)  # before the run
        result, metered = run_metered(meter, run, interval_s=0.01)
    assert result == "done"
    assert metered.energy_j == pytest.approx(5.5)
    assert len(metered.power) > 2
    assert sum(power.watts * power.seconds for power in metered.power) == pytest.approx(5.5)
    energy = describe_measured(meter, 5.5, 11, 0.5, None, metered.power)
    assert energy.power is not None
    assert energy.power.count == len(metered.power)
    assert (energy.per_inference_j, energy.mean_power_w) == (0.5, 11.0)


def test_without_a_meter_nothing_is_started() -> None:
    before = threading.active_count()
    assert run_metered(None, threading.active_count) == (before, Metered())


def test_a_meter_that_fails_meanwhile_costs_its_figures_only(tmp_path: Path) -> None:
    meter, _count = make_counter(tmp_path)

    def run() -> int:
        (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
        return 7

    with meter:
        assert run_metered(meter, run) == (7, Metered())
    assert "the meter rapl failed" in (meter.failure or "")


def test_what_the_run_raises_is_raised_and_the_looking_ends(tmp_path: Path) -> None:
    meter, _count = make_counter(tmp_path)
    before = threading.active_count()
    with meter, pytest.raises(ZeroDivisionError):
        run_metered(meter, lambda: 1 // 0)
    assert threading.active_count() == before


def test_samples_of_a_known_course_of_power() -> None:
    """10 W and 30 W in turns: each sample is one of them, the mean would hide both."""

    class Course(Meter):
        name, scope = "scripted", "course"

        def __init__(self) -> None:
            self._watts = itertools.cycle((10.0, 30.0))
            self._joules, self._last_s = 0.0, 0.0

        def _start(self) -> None:
            self._last_s = time.monotonic()

        def _read_j(self) -> float:
            now_s = time.monotonic()
            self._joules += next(self._watts) * (now_s - self._last_s)
            self._last_s = now_s
            return self._joules

    with Course() as meter:
        _, metered = run_metered(meter, lambda: time.sleep(0.1), interval_s=0.01)
    found = summarize_power(metered.power[:-1])  # the last one may hold a while of both
    assert found is not None
    assert found.min_w == pytest.approx(10.0, rel=0.05)
    assert found.max_w == pytest.approx(30.0, rel=0.05)
