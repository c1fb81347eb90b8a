"""Which power meters the machine has, and which of them this process may read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from modelwright.profiles.kernel_files import list_paths, read_text

# Chips whose driver measures a supply of the machine: shunts on boards, the package of AMD's family 15h. Any other chip
# may be a disk, a battery, a port or a card.
_POWER_CHIPS = re.compile(r"(ina\d+|fam15h_power)$")


@dataclass(frozen=True, kw_only=True)
class Meters:
    """The machine's meters.

    Attributes:
        readable: Of `nvml`, `rapl`, `hwmon`.
        denied: Those that are present but not readable, as `name: reason`.
    """

    readable: tuple[str, ...]
    denied: tuple[str, ...]


def find_meters(root: Path, *, has_nvml: bool) -> Meters:
    """Finds the meters by reading each once.

    Args:
        root: Of the file system; another than `/` in tests.
        has_nvml: Whether the GPU's driver gives power.
    """
    readable = ["nvml"] if has_nvml else []
    denied: list[str] = []
    for name, paths in (("rapl", rapl_counters(root)), ("hwmon", hwmon_sensors(root))):
        if not paths:
            continue
        problems = [why_unreadable(path) for path in paths]
        if None in problems:
            readable.append(name)
        else:
            denied.append(f"{name}: {problems[0]}")
    return Meters(readable=tuple(readable), denied=tuple(denied))


def rapl_counters(root: Path = Path("/")) -> tuple[Path, ...]:
    """Returns the energy counters of Intel's and AMD's CPU packages, readable or not."""
    return list_paths(root / "sys/class/powercap", "intel-rapl:*/energy_uj")


def hwmon_sensors(root: Path = Path("/")) -> tuple[Path, ...]:
    """Returns the power sensors of the CPU or the board, readable or not.

    Jetsons have no sensor of power but an INA3221 that gives voltage and current; its `curr*_input` files
    are returned, the matching `in*_input` lie beside them.
    """
    found: list[Path] = []
    for folder in list_paths(root / "sys/class/hwmon", "hwmon*"):
        name = read_text(folder / "name") or ""
        if not _POWER_CHIPS.match(name):
            continue
        found += list_paths(folder, "power*_input")  # an average over a second says nothing of a turn of 0.1 s
        if name.startswith("ina3221"):
            currents = list_paths(folder, "curr*_input")
            found += [path for path in currents if path.with_name(path.name.replace("curr", "in")).exists()]
    return tuple(found)


def why_unreadable(path: Path) -> str | None:
    """Returns why a sensor's number cannot be read now; None if it can."""
    try:
        int(path.read_text(encoding="ascii"))
    except PermissionError:
        return "present but root-only"
    except (OSError, ValueError) as error:
        return f"present but not readable: {error}"
    return None
