"""NVIDIA GPUs, asked through the driver's own libraries: no process started."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from modelwright.core.errors import ModelwrightError
from modelwright.core.nvidia.nvml import Nvml, NvmlDevice
from modelwright.core.versions import parse_version
from modelwright.profiles.schema import Accelerator

CUDA_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 96
# CUdevice_attribute values of cuda.h.
_CUDA_MAJOR, _CUDA_MINOR = 75, 76


@dataclass(frozen=True, kw_only=True)
class GpuProbe:
    """What the driver told.

    Attributes:
        accelerators: The GPUs that this process may use, first the default one.
        has_power_meter: Whether the first GPU's power can be read now.
        uuid: Of the first GPU; None where NVML does not tell. Of several cards that differ, the one that CUDA really
            takes first is known only to CUDA: a loaded session's UUID goes before this one.
    """

    accelerators: tuple[Accelerator, ...] = ()
    has_power_meter: bool = False
    uuid: str | None = None


def probe_gpus(cuda_library: str = CUDA_LIBRARY) -> GpuProbe:
    """Returns the GPUs; none without a driver, without a GPU, or when the driver is broken."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.split(",")[0].strip() in {"", "-1", "NoDevFiles"}:
        return GpuProbe()
    # CUDA comes second: NVML leaves no state that would trouble a later fork, but Jetsons may lack it.
    found = _probe_nvml(visible)
    if found is not None:
        return found
    return _probe_cuda(cuda_library)


def select_visible(uuids: Sequence[str | None], visible: str | None) -> list[int]:
    """Returns the indices of the GPUs that `CUDA_VISIBLE_DEVICES` leaves, in its order.

    Args:
        uuids: Of all GPUs, in CUDA's order.
        visible: The variable: indices, or UUIDs that may be abbreviated as long as they are unique.
    """
    if visible is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for part in (part.strip() for part in visible.split(",")):
        if part.lstrip("-").isdecimal():
            matches = [int(part)] if 0 <= int(part) < len(uuids) else []
        else:
            matches = [index for index, uuid in enumerate(uuids) if part and uuid and uuid.startswith(part)]
        # CUDA ignores everything from the first invalid one on.
        if len(matches) != 1 or matches[0] in chosen:
            break
        chosen += matches
    return chosen


def sort_as_cuda(capabilities: Sequence[str | None], order: str | None) -> list[int]:
    """Returns the indices of GPUs given in the order of their PCI bus, in the order in which CUDA counts them.

    Args:
        capabilities: Compute capabilities.
        order: `CUDA_DEVICE_ORDER`. By default CUDA puts the fastest first, by a rule of its own that goes by the
            compute capability before all else; it may order cards of the same capability differently.
    """
    indices = list(range(len(capabilities)))
    if order == "PCI_BUS_ID":
        return indices
    return sorted(indices, key=lambda index: parse_version(capabilities[index] or ""), reverse=True)


def _probe_nvml(visible: str | None) -> GpuProbe | None:
    """Returns what NVML tells; None where it tells of no GPU at all, so that CUDA is worth a question."""
    try:
        with Nvml() as nvml:
            devices = nvml.devices()
            if not devices:
                return None
            chosen = _choose(nvml, devices, visible)
            accelerators = [_describe(device, nvml) for device in chosen]
            return GpuProbe(
                accelerators=tuple(item for item in accelerators if item is not None),
                has_power_meter=bool(chosen) and chosen[0].power_w() is not None,
                uuid=chosen[0].uuid if chosen else None,
            )
    except ModelwrightError:
        return None


def _choose(nvml: Nvml, devices: Sequence[NvmlDevice], visible: str | None) -> list[NvmlDevice]:
    first = (visible or "").split(",")[0].strip()
    if first.startswith("MIG-"):
        # CUDA gives a process one MIG instance, whatever else the list names.
        try:
            return [nvml.device_by_uuid(first)]
        except ModelwrightError:
            return []
    order = sort_as_cuda([device.compute_capability for device in devices], os.environ.get("CUDA_DEVICE_ORDER"))
    ordered = [devices[index] for index in order]
    return [ordered[index] for index in select_visible([device.uuid for device in ordered], visible)]


def _describe(device: NvmlDevice, nvml: Nvml) -> Accelerator | None:
    if device.compute_capability is None:
        return None
    return Accelerator(
        kind="cuda",
        name=device.name,
        compute_capability=device.compute_capability,
        memory_bytes=device.memory_bytes,
        driver_version=nvml.driver_version(),
        cuda_version=nvml.cuda_version(),
    )


def _probe_cuda(name: str) -> GpuProbe:
    """Asks CUDA itself, which applies `CUDA_VISIBLE_DEVICES` and its order by itself."""
    try:
        return _list_cuda_devices(ctypes.CDLL(name))
    except (OSError, AttributeError):
        # AttributeError: a driver too old for one of the calls.
        return GpuProbe()


def _list_cuda_devices(cuda: ctypes.CDLL) -> GpuProbe:
    count, version = ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return GpuProbe()
    has_version = cuda.cuDriverGetVersion(ctypes.byref(version)) == 0
    cuda_version = f"{version.value // 1000}.{version.value % 1000 // 10}" if has_version else None
    found = (_describe_cuda_device(cuda, index, cuda_version) for index in range(count.value))
    return GpuProbe(accelerators=tuple(item for item in found if item is not None))


def _describe_cuda_device(cuda: ctypes.CDLL, index: int, cuda_version: str | None) -> Accelerator | None:
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
        return None
    has_memory = cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device) == 0
    return Accelerator(
        kind="cuda",
        name=name.value.decode(errors="replace"),
        compute_capability=f"{major.value}.{minor.value}",
        memory_bytes=total.value if has_memory else None,
        cuda_version=cuda_version,
    )
