"""NVIDIA GPUs, asked through the driver's own libraries: no process started."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass

from modelwright.core.errors import ModelwrightError
from modelwright.core.nvidia.driver import LIBRARY, Driver
from modelwright.core.nvidia.nvml import Nvml, NvmlDevice
from modelwright.core.versions import parse_version
from modelwright.profiles.schema import Accelerator


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


def probe_gpus(cuda_library: str = LIBRARY) -> GpuProbe:
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
        driver = Driver(ctypes.CDLL(name))
        driver.check("start", "init", 0)
        devices = [driver.find_device(index) for index in range(driver.count_devices())]
        return GpuProbe(
            accelerators=tuple(
                Accelerator(
                    kind="cuda",
                    name=driver.read_name(device),
                    compute_capability=driver.read_capability(device),
                    memory_bytes=driver.read_memory_bytes(device),
                    cuda_version=driver.read_cuda_version(),
                )
                for device in devices
            )
        )
    except (OSError, ModelwrightError):
        return GpuProbe()
