"""Looks at a card that a script plays: what is counted as throttling, and whose processes are whose."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from fake_driver.build import build_fake_driver, use_fake_nvml

from modelwright.core.nvidia.nvml import Nvml, Process
from modelwright.harness.meters.gpu_watch import (
    GpuWatch,
    Observation,
    OtherProcess,
    Spread,
    WindowOnGpu,
    find_throttling,
    read_own_bytes,
    sort_processes,
    summarize,
)

OURS, STRANGER = 101, 999


@dataclass
class ScriptedCard:
    """Says what it is told to."""

    sm: int | None = 1980
    reasons: tuple[str, ...] | None = ()
    counters: Mapping[str, int] | None = field(default_factory=lambda: {"SwPowerCap": 0, "SwThermalSlowdown": 0})
    listed: tuple[Process, ...] | None = (Process(pid=OURS, used_bytes=2**30),)
    unavailable: Mapping[str, str] = field(default_factory=dict)

    def clocks_mhz(self) -> Mapping[str, int | None]:
        return {"sm": self.sm, "memory": 3201}

    def throttle_reasons(self) -> tuple[str, ...] | None:
        return self.reasons

    def throttled_ns(self) -> Mapping[str, int] | None:
        return self.counters

    def temperature_c(self) -> int | None:
        return 55

    def power_w(self) -> float | None:
        return 310.0

    def processes(self) -> tuple[Process, ...] | None:
        return self.listed


def look(at_s: float = 0.0, *, clock: int = 1980, cap_ms: float = 0, heat_ms: float = 0, **more: object) -> Observation:
    counters = {"SwPowerCap": int(cap_ms * 1e6), "SwThermalSlowdown": int(heat_ms * 1e6)}
    card = ScriptedCard(sm=clock, counters=counters)
    for name, value in more.items():
        setattr(card, name, value)
    return GpuWatch(card, clock=lambda: at_s).observe({OURS})


def window(index: int, **after: object) -> WindowOnGpu:
    """A window of 0.2 s."""
    return WindowOnGpu(before=look(index), after=look(index + 0.2, **after))  # type: ignore[arg-type]


def test_a_look_holds_what_the_card_says() -> None:
    seen = look(12.5, reasons=("SyncBoost",))
    assert (seen.at_s, seen.sm_clock_mhz, seen.memory_clock_mhz) == (12.5, 1980, 3201)
    assert (seen.temperature_c, seen.power_w, seen.reasons) == (55, 310.0, ("SyncBoost",))
    assert seen.other_processes == ()
    assert read_own_bytes(seen, OURS) == (2**30, None)
    assert read_own_bytes(seen, 5) == (None, "process 5 holds no context on this GPU")


def test_a_look_tells_what_it_took() -> None:
    times = iter([10.0, 10.004, 10.2, 10.206])
    watch = GpuWatch(ScriptedCard(), clock=lambda: next(times))
    before, after = watch.observe({OURS}), watch.observe({OURS})
    assert (before.at_s, after.at_s) == (10.0, 10.2)
    assert summarize([WindowOnGpu(before=before, after=after)]).look_ms == pytest.approx(5.0)
    assert summarize([]).look_ms is None


def test_counters_find_the_throttling_between_two_looks() -> None:
    assert find_throttling(window(0, cap_ms=3.0)) == ("SwPowerCap",)
    assert find_throttling(window(0, cap_ms=3.0, heat_ms=100.0)) == ("SwPowerCap", "SwThermalSlowdown")
    assert find_throttling(window(0, cap_ms=1.9)) == (), "under 1 % of 200 ms"
    assert find_throttling(window(0, reasons=("SwPowerCap",))) == (), "the counter saw the whole window"


def test_what_has_no_counter_is_taken_from_the_look_after_the_window() -> None:
    assert find_throttling(window(0, reasons=("HwPowerBrakeSlowdown",))) == ("HwPowerBrakeSlowdown",)
    assert find_throttling(window(0, reasons=("SwPowerCap", "HwSlowdown"), counters=None)) == (
        "SwPowerCap",
        "HwSlowdown",
    )
    before = WindowOnGpu(before=look(0, reasons=("HwSlowdown",)), after=look(0.2))
    assert find_throttling(before) == (), "it ended before the window"


def test_settings_are_no_throttling() -> None:
    names = ("ApplicationsClocksSetting", "SyncBoost", "DisplayClockSetting")
    assert find_throttling(window(0, reasons=names)) == ()
    record = summarize([window(0, reasons=names)])
    assert record.throttled_share == 0.0
    assert record.clock_settings == tuple(sorted(names))


def test_the_record_of_a_row() -> None:
    windows = [window(0), window(1, clock=1200, cap_ms=50), window(2, clock=1500), window(3, clock=1410, cap_ms=9)]
    record = summarize(windows)
    assert record.windows == 4
    assert record.sm_clock_mhz == Spread(min=1200, median=1455, max=1980)
    assert record.memory_clock_mhz == Spread(min=3201, median=3201, max=3201)
    assert record.throttled_share == 0.5
    assert record.throttle_reasons == {"SwPowerCap": 2}
    assert record.flagged == (1, 3)
    assert record.other_processes == ()
    assert record.unavailable == {}


def test_what_was_not_seen_is_not_free_of_throttling() -> None:
    record = summarize(
        [window(0, reasons=None, counters=None, unavailable={"throttle_reasons": "NVML: Not Supported"})]
    )
    assert record.throttled_share is None
    assert record.unavailable["throttle_reasons"] == "NVML: Not Supported"
    assert summarize([]).sm_clock_mhz is None


def test_strangers_on_the_card_are_named_with_their_most_memory() -> None:
    ours = Process(pid=OURS, used_bytes=1)
    record = summarize(
        [
            window(0, listed=(ours, Process(pid=STRANGER, used_bytes=100))),
            window(1, listed=(ours, Process(pid=STRANGER, used_bytes=700), Process(pid=1000, used_bytes=None))),
            window(2, listed=(ours, Process(pid=STRANGER, used_bytes=300))),
        ]
    )
    assert record.other_processes == (OtherProcess(pid=999, used_bytes=700), OtherProcess(pid=1000, used_bytes=None))


@pytest.mark.parametrize("listed", [(), (Process(pid=31337, used_bytes=100),)])
def test_in_a_container_nobody_can_be_told_apart(listed: tuple[Process, ...]) -> None:
    others, own, reason = sort_processes(listed, {OURS})
    assert (others, own) == (None, {})
    assert reason is not None
    assert "--pid=host" in reason
    seen = look(listed=listed)
    assert seen.other_processes is None
    used, why = read_own_bytes(seen, OURS)
    assert used is None
    assert why is not None
    assert "container" in why
    hidden = WindowOnGpu(before=seen, after=seen)
    assert summarize([hidden]).other_processes is None


def test_before_anything_is_loaded_all_are_strangers() -> None:
    assert sort_processes((Process(pid=5, used_bytes=1),), ())[0] == (Process(pid=5, used_bytes=1),)


def test_the_real_calls_fit_the_watch(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("FAKE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FAKE_NVML_PROCESSES", f"{OURS}:4096,{STRANGER}:?")
    library = build_fake_driver(tmp_path_factory.mktemp("driver")) / "libnvidia-ml.so.1"
    use_fake_nvml(monkeypatch, library)
    with Nvml() as nvml:
        watch = GpuWatch(nvml.devices()[0])
        before = watch.observe({OURS})
        monkeypatch.setenv("FAKE_NVML_POWER_CAP_NS", "60000000000")
        record = summarize([WindowOnGpu(before=before, after=watch.observe({OURS}))])
    assert record.flagged == (0,)
    assert record.sm_clock_mhz == Spread(min=2520, median=2520, max=2520)
    assert record.other_processes == (OtherProcess(pid=STRANGER, used_bytes=None),)
    assert before.own_bytes == {OURS: 4096}
