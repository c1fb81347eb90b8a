"""What a GPU did while artifacts took their turns: clocks, throttling, heat, and who else was on the card.

Looks are taken by the process that waits for the artifacts, right before and right after a window; nothing runs beside
one. A look is eight calls of NVML and lengthens a round, not a window; what it took is in the record (`look_ms`).
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from modelwright.core.nvidia.nvml import THROTTLING, Process
from modelwright.core.records.codec import Count, Record, Share
from modelwright.harness.kinds import Figure, Number

THROTTLED_SHARE = 0.01
"""Of a window; what the driver's counters hold beyond it is throttling, less of it is not felt."""

HIDDEN_PIDS = (
    "the driver lists no process id of ours: in a container it tells the host's ids or none "
    "(docker run --pid=host shows them)"
)


class Spread(Record, kw_only=True):
    """What a reading of the card was over an artifact's windows: lowest, middle and highest.

    Attributes:
        min: The lowest.
        median: The middle one.
        max: The highest.
    """

    min: Number
    median: Number
    max: Number


class OtherProcess(Record, kw_only=True):
    """A stranger on the card.

    Attributes:
        pid: Its process id.
        used_bytes: The most GPU memory that was seen; null where the driver does not tell.
    """

    pid: Count
    used_bytes: Count | None = None


class CardObservations(Record, kw_only=True):
    """What was observed of the card around an artifact's windows; null what could not be read.

    Attributes:
        windows: How many were observed.
        sm_clock_mhz: After a window.
        memory_clock_mhz: After a window.
        temperature_c: Before and after a window.
        power_w: After a window, by the driver's own average.
        throttled_share: Share of the windows under throttling, of those of which it is known.
        throttle_reasons: NVML's name -> windows under it.
        clock_settings: What else held the clocks, such as clocks that somebody set; NVML's names.
        flagged: The windows under throttling, counted from 0.
        other_processes: All that were ever seen; null where they cannot be told from ours.
        look_ms: What a look cost, between two windows.
        unavailable: Why what is null could not be read.
    """

    windows: Count = 0
    sm_clock_mhz: Spread | None = None
    memory_clock_mhz: Spread | None = None
    temperature_c: Spread | None = None
    power_w: Spread | None = None
    throttled_share: Share | None = None
    throttle_reasons: dict[str, Count] = msgspec.field(default_factory=dict)
    clock_settings: tuple[str, ...] = ()
    flagged: tuple[Count, ...] = ()
    other_processes: tuple[OtherProcess, ...] | None = None
    look_ms: Figure | None = None
    unavailable: dict[str, str] = msgspec.field(default_factory=dict)


class Card(Protocol):
    """What a look needs of a card; `core.nvidia.nvml.NvmlDevice` is one."""

    @property
    def unavailable(self) -> Mapping[str, str]: ...
    def clocks_mhz(self) -> Mapping[str, int | None]: ...
    def throttle_reasons(self) -> tuple[str, ...] | None: ...
    def throttled_ns(self) -> Mapping[str, int] | None: ...
    def temperature_c(self) -> int | None: ...
    def power_w(self) -> float | None: ...
    def processes(self) -> tuple[Process, ...] | None: ...


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A look at a card. None is what could not be read; `unavailable` says why.

    Attributes:
        at_s: When it began, by a monotonic clock.
        took_s: What it cost.
        reasons: That held the clocks down, as NVML names them.
        throttled_ns: By reason, since the driver was loaded.
        other_processes: On the card that are not ours.
        own_bytes: GPU memory by process id of ours.
    """

    at_s: float
    took_s: float = 0.0
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    reasons: tuple[str, ...] | None = None
    throttled_ns: Mapping[str, int] | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    other_processes: tuple[Process, ...] | None = None
    own_bytes: Mapping[int, int] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class WindowOnGpu:
    """The looks right before and right after a window."""

    before: Observation
    after: Observation


class GpuWatch:
    """Looks at one card.

    Args:
        card: An `NvmlDevice`, open while the watch is used.
        clock: Monotonic, in seconds.
    """

    def __init__(self, card: Card, clock: Callable[[], float] = time.monotonic) -> None:
        self._card = card
        self._clock = clock

    def observe(self, own_pids: Collection[int]) -> Observation:
        """Takes a look.

        Args:
            own_pids: Of the processes that run artifacts; all others are strangers.

        Raises:
            MeasurementInvalidError: The card is gone.
        """
        at_s = self._clock()
        clocks = self._card.clocks_mhz()
        reasons, throttled_ns = self._card.throttle_reasons(), self._card.throttled_ns()
        temperature_c, power_w = self._card.temperature_c(), self._card.power_w()
        processes = self._card.processes()
        others, own_bytes, hidden = sort_processes(processes, own_pids)
        unavailable = dict(self._card.unavailable)
        if hidden is not None:
            unavailable["processes"] = hidden
        return Observation(
            at_s=at_s,
            took_s=self._clock() - at_s,
            sm_clock_mhz=clocks["sm"],
            memory_clock_mhz=clocks["memory"],
            reasons=reasons,
            throttled_ns=throttled_ns,
            temperature_c=temperature_c,
            power_w=power_w,
            other_processes=others,
            own_bytes=own_bytes,
            unavailable=unavailable,
        )


def sort_processes(
    processes: Sequence[Process] | None, own_pids: Collection[int]
) -> tuple[tuple[Process, ...] | None, dict[int, int], str | None]:
    """Tells our processes on a card from others.

    Returns:
        The others, None when that cannot be told; the memory of ours by id, in bytes; and why something is missing.
    """
    if processes is None:
        return None, {}, None
    own = [process for process in processes if process.pid in own_pids]
    if own_pids and not own:
        # Ours are there but under other numbers, so every number may be one of ours.
        return None, {}, HIDDEN_PIDS
    others = tuple(process for process in processes if process.pid not in own_pids)
    own_bytes = {process.pid: process.used_bytes for process in own if process.used_bytes is not None}
    untold = "the driver does not tell the memory of processes" if len(own_bytes) < len(own) else None
    return others, own_bytes, untold


def read_own_bytes(observation: Observation, pid: int) -> tuple[int | None, str | None]:
    """Returns the GPU memory of one process of ours in bytes, or None and why."""
    if pid in observation.own_bytes:
        return observation.own_bytes[pid], None
    return None, observation.unavailable.get("processes", f"process {pid} holds no context on this GPU")


def find_throttling(window: WindowOnGpu) -> tuple[str, ...]:
    """Returns the reasons for which the clocks were held down in a window; empty when they were not.

    The driver's counters see the whole window. What they do not count is taken from the look right after it, when the
    last inference has just ended.
    """
    found = [name for name in THROTTLING if name in (window.after.reasons or ())]
    before, after = window.before.throttled_ns, window.after.throttled_ns
    if before is None or after is None:
        return tuple(found)
    elapsed_ns = (window.after.at_s - window.before.at_s) * 1e9
    counted = [name for name in after if after[name] - before.get(name, 0) > THROTTLED_SHARE * elapsed_ns]
    # A reason that has a counter is as long as the counter says: a look may catch a moment at the window's edge.
    return tuple(name for name in THROTTLING if name in counted or (name in found and name not in after))


def summarize(windows: Sequence[WindowOnGpu]) -> CardObservations:
    """Sums up an artifact's windows on the card.

    Args:
        windows: In the order of the artifact's windows; `flagged` counts them from 0.
    """
    looks = [look for window in windows for look in (window.before, window.after)]
    throttling = [find_throttling(window) for window in windows]
    known = [window for window in windows if window.after.reasons is not None or window.after.throttled_ns is not None]
    flagged = [index for index, reasons in enumerate(throttling) if reasons]
    counted = Counter(reason for reasons in throttling for reason in reasons)
    settings = {reason for look in looks for reason in look.reasons or () if reason not in THROTTLING}
    unavailable: dict[str, str] = {}
    for look in looks:
        unavailable |= look.unavailable
    return CardObservations(
        windows=len(windows),
        # Right after the last inference: before the first, the card may still be idle.
        sm_clock_mhz=_spread([window.after.sm_clock_mhz for window in windows]),
        memory_clock_mhz=_spread([window.after.memory_clock_mhz for window in windows]),
        temperature_c=_spread([look.temperature_c for look in looks]),
        power_w=_spread([window.after.power_w for window in windows]),
        throttled_share=len(flagged) / len(known) if known else None,
        throttle_reasons={name: counted[name] for name in THROTTLING if name in counted},
        clock_settings=tuple(sorted(settings)),
        flagged=tuple(flagged),
        other_processes=_list_others(looks),
        look_ms=statistics.median(look.took_s * 1e3 for look in looks) if looks else None,
        unavailable=unavailable,
    )


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(min=min(known), median=statistics.median(known), max=max(known))


def _list_others(looks: Sequence[Observation]) -> tuple[OtherProcess, ...] | None:
    """Returns the strangers that were ever on the card, with the most memory seen; None when nobody could tell."""
    if all(look.other_processes is None for look in looks):
        return None
    found: dict[int, int | None] = {}
    for process in (process for look in looks for process in look.other_processes or ()):
        sizes = [size for size in (found.get(process.pid), process.used_bytes) if size is not None]
        found[process.pid] = max(sizes, default=None)
    return tuple(OtherProcess(pid=pid, used_bytes=used) for pid, used in sorted(found.items()))
