"""NVIDIA GPUs, asked through the driver's own libraries: no package needed, no process started."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from modelwright.profiles.schema import Accelerator

_NVML = ("nvml.dll",) if sys.platform == "win32" else ("libnvidia-ml.so.1",)
_CUDA = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1",)
_NAME_BYTES = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE
# CUdevice_attribute values of cuda.h.
_CUDA_MAJOR, _CUDA_MINOR = 75, 76


class _NvmlMemory(ctypes.Structure):
    """nvmlMemory_t: three counts of bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@dataclass(frozen=True, kw_only=True)
class GpuProbe:
    """What the driver told.

    Attributes:
        accelerators: The GPUs that this process may use, first the default one.
        has_power_meter: Whether the first GPU's power can be read now.
    """

    accelerators: tuple[Accelerator, ...] = ()
    has_power_meter: bool = False


def probe_gpus() -> GpuProbe:
    """Returns the GPUs; none without a driver, without a GPU, or when the driver is broken."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.split(",")[0].strip() in {"", "-1", "NoDevFiles"}:
        return GpuProbe()
    # CUDA comes second: NVML leaves no state that would trouble a later fork, but Jetsons may lack it.
    for names, probe in ((_NVML, _probe_nvml), (_CUDA, _probe_cuda)):
        library = _load(names)
        found = _guarded(probe, library) if library is not None else None
        if found is not None and found.accelerators:
            return found
    return GpuProbe()


def select_visible(count: int, visible: str | None) -> list[int]:
    """Returns the indices of the GPUs that `CUDA_VISIBLE_DEVICES` leaves, in its order.

    Identifiers other than numbers are not resolved; all GPUs are returned then.
    """
    if visible is None:
        return list(range(count))
    parts = [part.strip() for part in visible.split(",")]
    if not all(part.lstrip("-").isdecimal() for part in parts):
        return list(range(count))
    chosen: list[int] = []
    for part in parts:
        # CUDA ignores everything from the first invalid number on.
        if not 0 <= int(part) < count:
            break
        chosen.append(int(part))
    return chosen


def _load(names: tuple[str, ...]) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _guarded(probe: Callable[[ctypes.CDLL], GpuProbe], library: ctypes.CDLL) -> GpuProbe | None:
    try:
        return probe(library)
    except (OSError, AttributeError):
        # AttributeError: a driver too old for one of the calls.
        return None


def _probe_nvml(nvml: ctypes.CDLL) -> GpuProbe:
    if nvml.nvmlInit_v2() != 0:
        return GpuProbe()
    try:
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return GpuProbe()
        found: list[Accelerator] = []
        has_meter = False
        for index in select_visible(count.value, os.environ.get("CUDA_VISIBLE_DEVICES")):
            device = ctypes.c_void_p()
            if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)) != 0:
                continue
            accelerator = _nvml_accelerator(nvml, device)
            if accelerator is None:
                continue
            power_mw = ctypes.c_uint()
            if not found:
                has_meter = nvml.nvmlDeviceGetPowerUsage(device, ctypes.byref(power_mw)) == 0
            found.append(accelerator)
        return GpuProbe(accelerators=tuple(found), has_power_meter=has_meter)
    finally:
        nvml.nvmlShutdown()


def _nvml_accelerator(nvml: ctypes.CDLL, device: ctypes.c_void_p) -> Accelerator | None:
    name = ctypes.create_string_buffer(_NAME_BYTES)
    major, minor = ctypes.c_int(), ctypes.c_int()
    memory = _NvmlMemory()
    if nvml.nvmlDeviceGetName(device, name, ctypes.c_uint(_NAME_BYTES)) != 0:
        return None
    if nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor)) != 0:
        return None
    has_memory = nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) == 0
    return Accelerator(
        kind="cuda",
        name=name.value.decode(errors="replace"),
        compute_capability=f"{major.value}.{minor.value}",
        memory_bytes=int(memory.total) if has_memory else None,
    )


def _probe_cuda(cuda: ctypes.CDLL) -> GpuProbe:
    count = ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return GpuProbe()
    found: list[Accelerator] = []
    for index in range(count.value):
        device = ctypes.c_int()
        name = ctypes.create_string_buffer(_NAME_BYTES)
        major, minor = ctypes.c_int(), ctypes.c_int()
        total = ctypes.c_size_t()
        failed = (
            cuda.cuDeviceGet(ctypes.byref(device), index)
            or cuda.cuDeviceGetName(name, _NAME_BYTES, device)
            or cuda.cuDeviceGetAttribute(ctypes.byref(major), _CUDA_MAJOR, device)
            or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CUDA_MINOR, device)
        )
        if failed:
            continue
        has_memory = cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device) == 0
        found.append(
            Accelerator(
                kind="cuda",
                name=name.value.decode(errors="replace"),
                compute_capability=f"{major.value}.{minor.value}",
                memory_bytes=total.value if has_memory else None,
            )
        )
    return GpuProbe(accelerators=tuple(found))
