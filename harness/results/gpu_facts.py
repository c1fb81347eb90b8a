"""What a row of a results document tells of the GPU that it ran on, and how that reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelwright.harness.formatting import (
    clean_text,
)
from modelwright.harness.results.values import count_of, mapping_of, number, sequence_of

if TYPE_CHECKING:
    pass

_REASONS = {
    "SwPowerCap": "its power limit",
    "SwThermalSlowdown": "heat",
    "HwThermalSlowdown": "heat",
    "HwPowerBrakeSlowdown": "the power supply's brake",
    "HwSlowdown": "the hardware's protection (heat or power)",
}


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """What was observed of the card around a row's windows; None where it could not be read.

    Attributes:
        sm_clock_mhz: Lowest, median and highest after a window.
        memory_clock_mhz: Likewise.
        temperature_c: The highest.
        windows: That were observed.
        flagged: Of them, those under throttling, counted from 0.
        throttled_share: Of the windows of which it is known.
        throttle_reasons: NVML's names.
        clock_settings: What else held the clocks, such as clocks that somebody set; NVML's names.
        other_processes: Id and memory of others on the card; None when that could not be told.
    """

    sm_clock_mhz: tuple[float, float, float] | None = None
    memory_clock_mhz: tuple[float, float, float] | None = None
    temperature_c: float | None = None
    windows: int = 0
    flagged: tuple[int, ...] = ()
    throttled_share: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    clock_settings: tuple[str, ...] = ()
    other_processes: tuple[tuple[int, float | None], ...] | None = None
    unavailable: tuple[tuple[str, str], ...] = ()

    @property
    def throttle_causes(self) -> list[str]:
        """The reasons in words, each once."""
        return list(dict.fromkeys(_REASONS.get(name, name) for name in self.throttle_reasons))


def read_gpu(value: object) -> GpuFacts | None:
    """Reads a row's `gpu`; lenient as the whole document's reader is."""
    record = mapping_of(value)
    if not record:
        return None
    temperature, others = _read_spread(record.get("temperature_c")), record.get("other_processes")
    return GpuFacts(
        sm_clock_mhz=_read_spread(record.get("sm_clock_mhz")),
        memory_clock_mhz=_read_spread(record.get("memory_clock_mhz")),
        temperature_c=None if temperature is None else temperature[2],
        windows=count_of(record.get("windows")) or 0,
        flagged=tuple(index for item in sequence_of(record.get("flagged")) if (index := count_of(item)) is not None),
        throttled_share=number(record.get("throttled_share")),
        throttle_reasons=tuple(clean_text(name) for name in mapping_of(record.get("throttle_reasons"))),
        clock_settings=tuple(clean_text(name) for name in sequence_of(record.get("clock_settings"))),
        other_processes=None if others is None else _read_processes(sequence_of(others)),
        unavailable=tuple(
            (clean_text(key), clean_text(reason)) for key, reason in mapping_of(record.get("unavailable")).items()
        ),
    )


def _read_spread(value: object) -> tuple[float, float, float] | None:
    record = mapping_of(value)
    low, middle, high = (number(record.get(key)) for key in ("min", "median", "max"))
    return None if low is None or middle is None or high is None else (low, middle, high)


def _read_processes(items: Sequence[Any]) -> tuple[tuple[int, float | None], ...]:
    found = []
    for item in items:
        record: Mapping[str, Any] = mapping_of(item)
        pid = count_of(record.get("pid"))
        if pid is not None:
            found.append((pid, number(record.get("used_bytes"))))
    return tuple(found)
