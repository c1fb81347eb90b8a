"""Energy: read from a meter where the machine has one, estimated from the profile's power model where not.

The two never mix: every figure carries its source, `measured:METER` or `estimated:tdp_util`.
"""

from __future__ import annotations

import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from modelwright.harness.meters.energy import Energy
from modelwright.harness.meters.power_samples import Power, Sample, list_power, summarize_power
from modelwright.profiles.kernel_files import read_text
from modelwright.profiles.meters import hwmon_sensors, rapl_counters, why_unreadable

IDLE_S = 2.0
"""Seconds of idleness metered before the first round."""
SAMPLING_INTERVAL_S = 0.05
"""Between two looks at a meter. RAPL's counters step about every millisecond, which is 2 % of it."""
BOARD_INPUTS = frozenset({"VDD_IN", "POM_5V_IN"})
"""Labels of the rails that feed a whole Jetson module or board, by NVIDIA's developer guide (Jetson Linux, "Power
Supply Modes"); others of its INA3221 feed parts."""
_Read = TypeVar("_Read")
_Result = TypeVar("_Result")


class Meter(ABC):
    """Counts the joules that a machine has used. One that fails says so and costs nothing else.

    Attributes:
        name: Stands in the source of a figure.
        scope: What it covers.
        failure: Why it counts no longer; None while it does.
    """

    name: str
    scope: str
    failure: str | None = None

    def __enter__(self) -> Self:
        """Starts counting."""
        self._try(self._start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops counting."""
        self._stop()

    def read_j(self) -> float | None:
        """Returns the joules used since the start; None once it has failed."""
        return self._try(self._read_j)

    def _try(self, read: Callable[[], _Read]) -> _Read | None:
        if self.failure is None:
            try:
                return read()
            except Exception as error:  # the sensor is gone, or tells no number; nothing of it may cost a run
                self.failure = f"the meter {self.name} failed: {error}"
        return None

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _read_j(self) -> float: ...

    def _stop(self) -> None:
        """Ends what `_start` began; nothing by default."""
        return


class RaplMeter(Meter):
    """The CPU packages' energy counters, by the kernel's powercap interface.

    Counters wrap; the kernel says where (`max_energy_range_uj`). Subdomains are parts of a package and not added; nor
    is `psys`, the whole platform, of which the packages are a part.
    """

    name = "rapl"
    scope = "CPU package"

    def __init__(self, counters: Sequence[Path]) -> None:
        self._counters = [path for path in counters if _is_package(path)]
        self._ranges_uj = [self._read_range(path) for path in self._counters]
        self._last_uj: list[int] = []
        self._total_uj = 0

    def _start(self) -> None:
        self._last_uj = [int(path.read_text()) for path in self._counters]
        self._total_uj = 0

    def _read_j(self) -> float:
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


def _is_package(counter: Path) -> bool:
    """Whether a counter is a package's: not a part of one, not the platform around them."""
    return counter.parent.name.count(":") == 1 and read_text(counter.parent / "name") != "psys"


class HwmonMeter(Meter):
    """A power sensor of the kernel's hwmon interface, read at both ends of whatever is metered and by a thread between.

    `power*_input` is in microwatts; an INA3221 has `curr*_input` in milliamperes beside `in*_input` in millivolts. A
    sensor tells the mean of a conversion that has just ended, so each read-out stands for the time before it, back to
    the one before: what a window took ends with the window, however short it is.

    Args:
        sensor: The file to read.
        clock: Seconds; replaced in tests.
    """

    name = "hwmon"

    def __init__(self, sensor: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sensor = sensor
        self._clock = clock
        self.scope = name_scope(sensor)
        self._joules = 0.0
        self._last_s = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="hwmon meter", daemon=True)

    def read_power_w(self) -> float:
        """Returns the power now, in watts."""
        value = int(self._sensor.read_text())
        if self._sensor.name.startswith("curr"):
            millivolts = int(self._sensor.with_name(self._sensor.name.replace("curr", "in")).read_text())
            return value * millivolts / 1e6
        return value / 1e6

    def _start(self) -> None:
        self.read_power_w()
        self._last_s = self._clock()
        self._thread.start()

    def _stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _read_j(self) -> float:
        with self._lock:
            power_w, now_s = self.read_power_w(), self._clock()
            self._joules += (now_s - self._last_s) * power_w
            self._last_s = now_s
            return self._joules

    def _sample(self) -> None:
        while self.failure is None and not self._ended.wait(SAMPLING_INTERVAL_S):
            self.read_j()


def choose_sensor(paths: Sequence[Path]) -> Path | None:
    """Returns the sensor to read: one of a board's whole input before others, `power*_input` before `curr*_input`."""
    return min(paths, key=lambda path: (name_scope(path) != "board", not path.name.startswith("power")), default=None)


def name_scope(sensor: Path) -> str:
    """Returns what a sensor covers: the board only where it says that it measures a board's input."""
    chip = read_text(sensor.parent / "name") or "unnamed"
    label = None
    for kind in ("power", "curr", "in"):
        number = re.sub(r"\D", "", sensor.name)
        label = label or read_text(sensor.parent / f"{kind}{number}_label")
    if label in BOARD_INPUTS:
        return "board"
    return f"sensor {chip} {label}" if label else f"sensor {chip}"


def find_meter(root: Path = Path("/")) -> Meter | None:
    """Returns the best meter of the CPU or the board that can be read now; None without one."""
    counters = [path for path in rapl_counters(root) if why_unreadable(path) is None]
    if any(_is_package(path) for path in counters):
        return RaplMeter(counters)
    sensor = choose_sensor([path for path in hwmon_sensors(root) if why_unreadable(path) is None])
    return None if sensor is None else HwmonMeter(sensor)


@dataclass(frozen=True, kw_only=True)
class Metered:
    """What a meter told while something ran.

    Attributes:
        energy_j: Joules; None without a meter, and once it has failed.
        power: Mean power of successive whiles; empty where there is no energy.
    """

    energy_j: float | None = None
    power: tuple[Power, ...] = ()


def run_metered(
    meter: Meter | None, run: Callable[[], _Result], *, interval_s: float = SAMPLING_INTERVAL_S
) -> tuple[_Result, Metered]:
    """Runs something on this thread, which mostly waits for another process, while a second one looks at the meter.

    Args:
        meter: Read at both ends and in between; None meters nothing.
        run: What is metered.
        interval_s: Between two looks.
    """
    if meter is None:
        return run(), Metered()
    looks: list[Sample] = []
    ended = threading.Event()

    def look() -> bool:
        value = meter.read_j()
        if value is not None:
            looks.append(Sample(time.monotonic(), value))
        return value is not None

    def keep_looking() -> None:
        while not ended.wait(interval_s) and look():
            pass

    look()
    thread = threading.Thread(target=keep_looking, name="power samples", daemon=True)
    thread.start()
    try:
        result = run()
    finally:
        ended.set()
        thread.join()
    if not look() or len(looks) < 2:
        return result, Metered()
    return result, Metered(energy_j=looks[-1].value - looks[0].value, power=list_power(looks, interval_s))


def measure_idle_power_w(meter: Meter, duration_s: float = IDLE_S) -> float | None:
    """Returns the mean power in watts while nothing of ours runs; None where the meter fails."""
    before_j, started = meter.read_j(), time.monotonic()
    time.sleep(duration_s)
    after_j = meter.read_j()
    return None if before_j is None or after_j is None else (after_j - before_j) / (time.monotonic() - started)


def describe_measured(
    meter: Meter,
    energy_j: float,
    inferences: int,
    elapsed_s: float,
    idle_power_w: float | None,
    power: Sequence[Power] = (),
) -> Energy:
    """Returns the energy of metered windows; the idle share is told apart, not taken away."""
    if meter.failure is not None:
        return Energy(reason=meter.failure)
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
        power=summarize_power(power),
        source=f"measured:{meter.name}",
        scope=meter.scope,
    )
