"""Energy: read from a meter where the machine has one, estimated from the profile's power model where not.

The two never mix: every figure carries its source, `measured:METER` or `estimated:tdp_util`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from modelwright.harness.meters.energy import Energy
from modelwright.profiles.meters import hwmon_sensors, rapl_counters, why_unreadable

IDLE_S = 2.0
"""Seconds of idleness metered before the first round."""
_SAMPLING_INTERVAL_S = 0.05


class Meter(Protocol):
    """Counts the joules that a machine has used."""

    name: str
    scope: str

    def __enter__(self) -> Self:
        """Starts counting."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops counting."""
        ...

    def read_j(self) -> float:
        """Returns the joules used since the start."""
        ...


class RaplMeter:
    """The CPU packages' energy counters, by the kernel's powercap interface.

    Counters wrap; the kernel says where (`max_energy_range_uj`). Subdomains are parts of a package and not added.
    """

    name = "rapl"
    scope = "CPU package"

    def __init__(self, counters: Sequence[Path]) -> None:
        self._counters = [path for path in counters if path.parent.name.count(":") == 1]
        self._ranges_uj = [self._read_range(path) for path in self._counters]
        self._last_uj: list[int] = []
        self._total_uj = 0

    def __enter__(self) -> Self:
        self._last_uj = [int(path.read_text()) for path in self._counters]
        self._total_uj = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def read_j(self) -> float:
        now_uj = [int(path.read_text()) for path in self._counters]
        for last, now, range_uj in zip(self._last_uj, now_uj, self._ranges_uj, strict=True):
            self._total_uj += now - last if now >= last else now - last + range_uj
        self._last_uj = now_uj
        return self._total_uj / 1e6

    @staticmethod
    def _read_range(path: Path) -> int:
        try:
            return int((path.parent / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            return 2**32


class HwmonMeter:
    """Power sensors of the kernel's hwmon interface, sampled and integrated by a thread that mostly sleeps.

    Sensors: `power*_input` in microwatts, `energy*_input` in microjoules, or the INA3221's `curr*_input` in
    milliamperes beside `in*_input` in millivolts.
    """

    name = "hwmon"
    scope = "board"

    def __init__(self, sensors: Sequence[Path]) -> None:
        self._sensors = _choose_sensors([path for path in sensors if why_unreadable(path) is None])
        self._joules = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._integrate, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def read_j(self) -> float:
        with self._lock:
            return self._joules

    def read_power_w(self) -> float:
        """Returns the power now, in watts, over all chosen sensors."""
        return sum(_read_sensor_w(path) for path in self._sensors)

    def _integrate(self) -> None:
        last_s, last_w = time.monotonic(), self.read_power_w()
        while not self._stop.wait(_SAMPLING_INTERVAL_S):
            now_s, now_w = time.monotonic(), self.read_power_w()
            with self._lock:
                self._joules += (now_s - last_s) * (now_w + last_w) / 2
            last_s, last_w = now_s, now_w


def _choose_sensors(paths: Sequence[Path]) -> list[Path]:
    """Keeps the sensors of power; of a Jetson's three rails the first, `VDD_IN`, is the whole board."""
    power = [path for path in paths if path.name.startswith("power")]
    if power:
        return power[:1]
    return [path for path in paths if path.name.startswith("curr")][:1]


def _read_sensor_w(path: Path) -> float:
    value = int(path.read_text())
    if path.name.startswith("curr"):
        millivolts = int(path.with_name(path.name.replace("curr", "in")).read_text())
        return value * millivolts / 1e6
    return value / 1e6


def find_meter(root: Path = Path("/")) -> Meter | None:
    """Returns the best meter of the CPU or the board that can be read now; None without one."""
    counters = [path for path in rapl_counters(root) if why_unreadable(path) is None]
    if any(path.parent.name.count(":") == 1 for path in counters):
        return RaplMeter(counters)
    sensors = [path for path in hwmon_sensors(root) if why_unreadable(path) is None]
    if any(path.name.startswith(("power", "curr")) for path in sensors):
        return HwmonMeter(sensors)
    return None


def measure_idle_power_w(meter: Meter, duration_s: float = IDLE_S) -> float:
    """Returns the mean power in watts while nothing of ours runs."""
    before_j, started = meter.read_j(), time.monotonic()
    time.sleep(duration_s)
    return (meter.read_j() - before_j) / (time.monotonic() - started)


def describe_measured(
    meter: Meter, energy_j: float, inferences: int, elapsed_s: float, idle_power_w: float | None
) -> Energy:
    """Returns the energy of metered windows; the idle share is told apart, not taken away."""
    if inferences == 0 or energy_j <= 0:
        return Energy(reason=f"the meter {meter.name} did not move")
    above_idle_j = None
    if idle_power_w is not None:
        above_idle_j = max(0.0, energy_j - idle_power_w * elapsed_s) / inferences
    return Energy(
        per_inference_j=energy_j / inferences,
        above_idle_per_inference_j=above_idle_j,
        idle_power_w=idle_power_w,
        mean_power_w=energy_j / elapsed_s,
        source=f"measured:{meter.name}",
        scope=meter.scope,
    )
