"""Describes the machine this runs on, without any package and without starting a process."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from msgspec.structs import replace

from modelwright.core.records.machine import HOST, normalize_architecture
from modelwright.profiles.cgroups import read_limits
from modelwright.profiles.cpu import read_cpu
from modelwright.profiles.gpus import GpuProbe, probe_gpus
from modelwright.profiles.kernel_files import read_text
from modelwright.profiles.meters import find_meters
from modelwright.profiles.power import nominal_power
from modelwright.profiles.schema import Profile
from modelwright.profiles.virtualization import is_virtual_machine, read_board

_ROOT = Path("/")
# PF_AVX2_INSTRUCTIONS_AVAILABLE and PF_AVX512F_INSTRUCTIONS_AVAILABLE of winnt.h.
_WINDOWS_FEATURES = {"avx2": 40, "avx512f": 41}


def detect_host(
    root: Path = _ROOT,
    *,
    architecture: str | None = None,
    affinity: Collection[int] | None = None,
    find_gpus: Callable[[], GpuProbe] = probe_gpus,
) -> Profile:
    """Describes this machine.

    Cores and memory are those that this process may use: scheduling affinity and control groups count.
    Outside Linux fewer facts are found.

    Args:
        root: Of the file system to read; another than `/` describes a recorded machine.
        architecture: That of the recorded machine; the running one's if not given.
        affinity: CPUs that this process may run on; asked from the system, or all of a recorded machine's.
        find_gpus: Replaces the question to the driver.

    Returns:
        A profile named `host` with `detected` set.
    """
    is_here = root == _ROOT
    if affinity is None and is_here and hasattr(os, "sched_getaffinity"):
        affinity = os.sched_getaffinity(0)
    arch = normalize_architecture(architecture or platform.machine())
    cpu = read_cpu(root, affinity=affinity)
    instruction_sets = cpu.instruction_sets or (_other_instruction_sets(arch) if is_here else frozenset())
    limits = read_limits(root)
    threads = cpu.threads or (os.cpu_count() if is_here else None) or 1
    cores = cpu.cores or threads
    if limits.cpus is not None:
        # Rounded down: a pool with one thread more than the quota is throttled for part of every period.
        quota = max(1, math.floor(limits.cpus))
        threads, cores = min(threads, quota), min(cores, quota)
    gpus = find_gpus()
    meters = find_meters(root, has_nvml=gpus.has_power_meter)
    board = read_board(root)
    model = cpu.model or (platform.processor() if is_here else None) or None
    host = Profile(
        name=HOST,
        title=board or model or f"this {arch} machine",
        architecture=arch,
        instruction_sets=instruction_sets,
        cores=cores,
        threads=threads,
        memory_bytes=_memory(root, is_here=is_here, limit=limits.memory_bytes),
        accelerators=gpus.accelerators,
        virtual_machine=is_virtual_machine(root, instruction_sets=instruction_sets, board=board),
        cpu_model=model,
        board=board,
        meters=meters.readable,
        meters_denied=meters.denied,
        detected=True,
    )
    return replace(host, power=nominal_power(host))


def _memory(root: Path, *, is_here: bool, limit: int | None) -> int | None:
    total: int | None = None
    for line in (read_text(root / "proc/meminfo") or "").splitlines():
        key, _, value = line.partition(":")
        number = value.split()[:1]
        if key == "MemTotal" and number and number[0].isdecimal():
            total = int(number[0]) * 1024
            break
    if total is None and is_here:
        total = _other_memory()
    known = [size for size in (total, limit) if size is not None]
    return min(known, default=None)


def _other_memory() -> int | None:
    """Returns the memory where there is no /proc: other Unixes and Windows."""
    if sys.platform == "win32":
        kernel32 = ctypes.WinDLL("kernel32")
        kibibytes = ctypes.c_ulonglong()
        found = kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kibibytes))
        return kibibytes.value * 1024 if found else None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _other_instruction_sets(architecture: str) -> frozenset[str]:
    """Returns what is sure where there is no /proc/cpuinfo."""
    if architecture == "aarch64":
        return frozenset({"asimd"})  # part of the architecture itself
    if sys.platform == "win32":
        present = ctypes.WinDLL("kernel32").IsProcessorFeaturePresent
        return frozenset(name for name, number in _WINDOWS_FEATURES.items() if present(number))
    return frozenset()
