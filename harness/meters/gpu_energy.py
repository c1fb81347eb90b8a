"""Energy of a GPU board by NVML, in windows of their own that the meter's resolution supports.

NVML's energy counter moves about every 0.1 s, so the short windows in which artifacts take turns say nothing. After
the rounds each artifact runs alone for over 10 s while a thread watches the counter; the window begins and ends at
steps of the counter, so that its resolution costs less than 1 %.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeVar

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError, ToolchainMissingError
from modelwright.core.nvidia.nvml import Nvml, NvmlDevice
from modelwright.harness.meters.energy import Energy
from modelwright.harness.meters.power_samples import Power, Sample, list_power, summarize_power

MIN_WINDOW_S = 10.0
MIN_STEPS = 100
"""With fewer steps of the counter, one step more or less is over 1 %."""

MAX_WINDOW_S = 60.0
"""An artifact runs no longer than this for its energy; a counter too slow for it is given up."""

SETTLE_S = 0.5
"""Left out at the start of a run: the clocks and the power still rise."""

POWER_SETTLE_S = 1.5
"""The same where power is sampled, whose readings are means of the last second."""

POWER_INTERVAL_S = 0.5
"""Over which a sample of the power is the mean: a step of the counter is seen up to a look late, which is 2 % of it."""

SAMPLING_S = 0.01
"""Between two looks at the meter. A look takes some tens of microseconds, so the thread sleeps 99 % of the time."""

_MARGIN_S = 0.5
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class EnergyWindow:
    """What an artifact drew while it ran alone.

    Attributes:
        mean_power_w: Of the whole board, between two steps of the meter.
        metered_s: Between those two.
        steps: Of the counter in between; readings, where power was sampled.
        inferences: Over the whole run.
        elapsed_s: Of the whole run, inferences only.
        source: `measured:nvml`, or `measured:nvml-power` where power was sampled.
        scope: What the meter covers.
        power: In between, over whiles of `POWER_INTERVAL_S`.
    """

    mean_power_w: float
    metered_s: float
    steps: int
    inferences: int
    elapsed_s: float
    source: str
    scope: str
    power: tuple[Power, ...] = ()

    @property
    def per_inference_j(self) -> float:
        """Energy of one inference in joules, the board's idle share included."""
        return self.mean_power_w * self.elapsed_s / self.inferences


class BoardMeter(Protocol):
    """A board's energy counter or, where `counts` is False, its power sensor."""

    @property
    def name(self) -> str:
        """As in `measured:NAME`."""
        ...

    @property
    def scope(self) -> str:
        """What it covers."""
        ...

    @property
    def counts(self) -> bool:
        """Whether `read` gives joules since some moment; else watts."""
        ...

    def read(self) -> float:
        """Returns joules or watts."""
        ...


class MeterFailedError(MeasurementInvalidError):
    """A meter stopped telling; what is metered goes on without a figure."""


class NvmlMeter:
    """A GPU board's meter by NVML: the energy counter, or the power sensor where the card has no counter (Pascal).

    Args:
        uuid: Of the card.
    """

    scope = "GPU board"

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._nvml = Nvml()
        self._device: NvmlDevice | None = None
        self.counts = True

    @property
    def name(self) -> str:
        return "nvml" if self.counts else "nvml-power"

    def __enter__(self) -> Self:
        """Opens NVML and finds out what the card can tell.

        Raises:
            ToolchainMissingError: There is no driver, or the card has neither a counter nor a sensor.
            MeasurementInvalidError: There is no such card.
        """
        self._nvml.__enter__()
        try:
            device = self._nvml.device_by_uuid(self._uuid)
            self.counts = device.energy_j() is not None
            if not self.counts and device.power_w() is None:
                raise ToolchainMissingError(
                    f"{device.name} tells neither energy nor power ({device.unavailable['energy_j']})"
                )
        except BaseException:
            self._nvml.__exit__(None, None, None)
            raise
        self._device = device
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._device = None
        self._nvml.__exit__(kind, error, trace)

    def read(self) -> float:
        """Returns the counter in joules, or the power in watts.

        Raises:
            MeterFailedError: The card stopped telling it.
        """
        assert self._device is not None, "the meter is read while it is open"
        try:
            value = self._device.energy_j() if self.counts else self._device.power_w()
        except ModelwrightError as error:
            raise MeterFailedError(error.message, hint=error.hint) from error
        if value is None:
            raise MeterFailedError(f"the meter {self.name} of the GPU stopped: {dict(self._device.unavailable)}")
        return value


def sample_while(read: Callable[[], float], run: Callable[[], _Result]) -> tuple[_Result, list[Sample]]:
    """Runs something on this thread while another looks at a meter and sleeps in between.

    Returns:
        What `run` returned, and the looks in order; the first is before it starts.

    Raises:
        ModelwrightError: Of `run`; else of the meter, after `run` is done.
    """
    samples = [Sample(time.monotonic(), read())]
    failures: list[Exception] = []
    done = threading.Event()

    def look() -> None:
        try:
            while not done.wait(SAMPLING_S):
                value = read()
                samples.append(Sample(time.monotonic(), value))
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=look, name="energy meter", daemon=True)
    thread.start()
    try:
        result = run()
    finally:
        done.set()
        thread.join()
    if failures:
        raise failures[0]
    return result, samples


SampleWhile = Callable[[Callable[[], float], Callable[[], tuple[int, float]]], tuple[tuple[int, float], list[Sample]]]


def meter_energy(
    meter: BoardMeter, run_for: Callable[[float], tuple[int, float]], *, sample: SampleWhile = sample_while
) -> EnergyWindow | str:
    """Runs an artifact until its energy is known.

    Args:
        meter: Of the board that it runs on.
        run_for: Runs it for so many seconds; returns the inferences and the seconds that they took.
        sample: Looks at the meter meanwhile; replaced in tests.

    Returns:
        The window, or the reason why there is none: a meter that fails loses nothing else.

    Raises:
        ModelwrightError: The artifact failed.
    """
    pieces: list[_Piece] = []
    inferences, elapsed_s, asked_s = 0, 0.0, 0.0
    wanted_s = MIN_WINDOW_S + _settle_s(meter) + _MARGIN_S
    while True:
        # The artifact runs in pieces; what a longer window takes is added to what there is.
        try:
            (count, ran_s), samples = sample(meter.read, partial(run_for, wanted_s))
        except MeterFailedError as error:
            return error.message
        inferences, elapsed_s, asked_s = inferences + count, elapsed_s + ran_s, asked_s + wanted_s
        piece = _measure_piece(samples, ran_s, meter)
        if piece is None or inferences == 0:
            return _explain_standstill(meter, asked_s, inferences)
        pieces.append(piece)
        metered_s, steps = sum(item.metered_s for item in pieces), sum(item.steps for item in pieces)
        if metered_s >= MIN_WINDOW_S and steps >= MIN_STEPS:
            return EnergyWindow(
                mean_power_w=sum(item.energy_j for item in pieces) / metered_s,
                metered_s=metered_s,
                steps=steps,
                inferences=inferences,
                elapsed_s=elapsed_s,
                source=f"measured:{meter.name}",
                scope=meter.scope,
                power=tuple(power for item in pieces for power in item.power),
            )
        missing_s = max(MIN_WINDOW_S - metered_s, (MIN_STEPS - steps) * metered_s / steps)
        wanted_s = 1.1 * missing_s + _settle_s(meter) + _MARGIN_S
        if asked_s + wanted_s > MAX_WINDOW_S:
            return (
                f"the GPU's energy counter moved {steps} times in {metered_s:.0f} s: {MIN_STEPS} steps, which keep its "
                f"resolution under 1 %, would take more than {MAX_WINDOW_S:.0f} s"
            )


def measure_idle(
    meter: BoardMeter, *, wait: Callable[[float], None] = time.sleep, sample: SampleWhile = sample_while
) -> float | str:
    """Returns the board's mean power in watts while nothing runs, over a window like those that work is metered in.

    Before anything is loaded it is the card's idle power; with artifacts loaded and waiting it is what their contexts
    keep it at, which is more, because clocks stay up.

    Returns:
        Watts, or the reason why there are none.
    """

    def rest(seconds: float) -> tuple[int, float]:
        wait(seconds)
        return 1, seconds

    found = meter_energy(meter, rest, sample=sample)
    return found if isinstance(found, str) else found.mean_power_w


def describe_gpu_energy(
    window: EnergyWindow | str, idle_power_w: float | None, loaded_idle_power_w: float | None = None
) -> Energy:
    """Returns the energy of an artifact on a GPU; the idle share is told apart, not taken away.

    Args:
        window: What was metered, or why nothing was.
        idle_power_w: Of the board before anything was loaded.
        loaded_idle_power_w: Of the board with all artifacts loaded and none running.
    """
    if isinstance(window, str):
        return Energy(reason=window)
    above_idle_j = None
    if idle_power_w is not None:
        above_idle_w = max(0.0, window.mean_power_w - idle_power_w)
        above_idle_j = above_idle_w * window.elapsed_s / window.inferences
    return Energy(
        per_inference_j=window.per_inference_j,
        above_idle_per_inference_j=above_idle_j,
        idle_power_w=idle_power_w,
        loaded_idle_power_w=loaded_idle_power_w,
        mean_power_w=window.mean_power_w,
        power=summarize_power(window.power),
        source=window.source,
        scope=window.scope,
        metered_s=window.metered_s,
        counter_steps=window.steps,
    )


class _Piece(NamedTuple):
    energy_j: float
    metered_s: float
    steps: int
    power: tuple[Power, ...]


def _settle_s(meter: BoardMeter) -> float:
    return SETTLE_S if meter.counts else POWER_SETTLE_S


def _measure_piece(samples: Sequence[Sample], ran_s: float, meter: BoardMeter) -> _Piece | None:
    """Returns the energy within a run, from the first to the last step of the meter in it; None without two."""
    # The inferences end `ran_s` after the start at the earliest; after that only their results travel.
    start_s, end_s = samples[0].at_s + _settle_s(meter), samples[0].at_s + ran_s
    looks = find_steps(samples) if meter.counts else samples
    within = [look for look in looks if start_s <= look.at_s <= end_s]
    if len(within) < 2:
        return None
    counter = within
    if not meter.counts:
        joules = (0.0, *((b.at_s - a.at_s) * (a.value + b.value) / 2 for a, b in pairwise(within)))
        counter = [Sample(look.at_s, total) for look, total in zip(within, accumulate(joules), strict=True)]
    energy_j, metered_s = counter[-1].value - counter[0].value, counter[-1].at_s - counter[0].at_s
    return _Piece(energy_j, metered_s, len(within) - 1, list_power(counter, POWER_INTERVAL_S))


def find_steps(samples: Sequence[Sample]) -> list[Sample]:
    """Returns the looks that saw a counter moved since the look before."""
    return [after for before, after in pairwise(samples) if after.value != before.value]


def _explain_standstill(meter: BoardMeter, asked_s: float, inferences: int) -> str:
    if inferences == 0:
        return f"no inference ended in {asked_s:.0f} s"
    what = "energy counter did not move" if meter.counts else "power sensor gave no readings"
    return f"the GPU's {what} in {asked_s:.0f} s"
