"""Says whether CUDA can be used here, and if not, why and what to do; no process that asks is harmed by the answer."""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import ModelwrightError, ToolchainMissingError
from modelwright.core.nvidia.driver import LIBRARY, SUCCESS, Driver, load_driver
from modelwright.core.process.child import run_in_child

PROBE_TIMEOUT_S = 120.0
"""Without persistence mode the first initialisation after boot powers the cards up, which takes seconds each."""
_NO_DEVICE = 100

SETUP_FAULTS: dict[int, tuple[str, str | None]] = {
    3: (
        "CUDA cannot be initialised in this process, mostly because it was forked from one that uses CUDA",
        "start it as a process of its own",
    ),
    34: (
        f"the {LIBRARY} that is found is the CUDA toolkit's stub for linking, not a driver",
        "remove .../lib64/stubs from LD_LIBRARY_PATH, and install the NVIDIA driver",
    ),
    35: ("the NVIDIA driver is too old for the CUDA runtime in use", "update the NVIDIA driver"),
    36: ("the NVIDIA driver is too old", "update the NVIDIA driver"),
    46: (
        "the GPU is not available: another process holds it exclusively, or its compute mode forbids contexts",
        "end the other process (nvidia-smi lists it), or set the mode back: nvidia-smi -c DEFAULT",
    ),
    101: (
        "the NVIDIA driver calls the device invalid",
        "look at CUDA_VISIBLE_DEVICES, and at what nvidia-smi -L lists",
    ),
    102: ("the virtual GPU has no licence", "ask whoever runs the host for one"),
    304: (
        "a call to the operating system failed in the NVIDIA driver",
        "look at who may open /dev/nvidia*; in a container, start it with its GPU support",
    ),
    802: (
        "the GPU system is not ready: a service that it needs is not running",
        "on machines with NVSwitch start nvidia-fabricmanager, in the version of the driver",
    ),
    803: (
        f"the NVIDIA driver's kernel module and its {LIBRARY} are of different versions, as after an update",
        "reboot, or reload the kernel module; in a container, remove its own copy of the driver's libraries",
    ),
    804: (
        "CUDA's forward compatibility package is in use, which this GPU does not support",
        "remove cuda-compat from LD_LIBRARY_PATH, and update the driver instead",
    ),
    805: (
        "CUDA's Multi-Process Service is configured but does not answer",
        "start nvidia-cuda-mps-control, or unset CUDA_MPS_PIPE_DIRECTORY",
    ),
    807: ("CUDA's Multi-Process Service recovers from a fault", "wait, or restart nvidia-cuda-mps-control"),
    999: (
        "the NVIDIA driver fails for an unknown reason, mostly because its module nvidia_uvm is not loaded",
        "sudo nvidia-modprobe -u -c=0, or reboot; the kernel's log (dmesg) tells more",
    ),
}
"""What `cuInit` and the first use of a device answer on machines that are not set up: code -> (reason, hint)."""


@dataclass(frozen=True, kw_only=True)
class DriverStatus:
    """What is known about the CUDA driver of this machine.

    Attributes:
        ok: Whether there is a device to use.
        reason: Why not.
        hint: What to do about it.
        cuda_version: The newest CUDA that the driver supports, `13.0`; None when it does not tell.
        device_count: Visible devices.
    """

    ok: bool
    reason: str | None
    hint: str | None
    cuda_version: str | None
    device_count: int


def probe_driver() -> DriverStatus:
    """Says whether CUDA can be used here; never raises.

    `cuInit` runs in a child process, once for each setting of the environment: CUDA does not survive a fork, so a
    user's program that calls this package and forks workers later must not find CUDA initialised behind its back; and
    a broken driver that hangs or crashes costs only that child. Where the library is absent no child is started.
    """
    return _probe(os.environ.get("LD_LIBRARY_PATH", ""), os.environ.get("CUDA_VISIBLE_DEVICES"))


@functools.lru_cache(maxsize=8)
def _probe(library_path: str, visible_devices: str | None) -> DriverStatus:
    """Probes once for each setting of the variables that decide what is found."""
    del visible_devices
    fault = _explain_missing_library()
    # A library path that was set after this process had started counts for its children only.
    if fault is not None and not any((Path(folder) / LIBRARY).exists() for folder in library_path.split(":") if folder):
        return fault
    try:
        found = run_in_child(
            "modelwright.core.nvidia.probe:probe_in_child",
            {},
            purpose="asking the NVIDIA driver",
            crash_error=ToolchainMissingError,
            timeout_s=PROBE_TIMEOUT_S,
        )
    except ModelwrightError as error:
        return _no_driver(f"the NVIDIA driver cannot be asked: {error.message}", error.hint or "see what dmesg tells")
    return DriverStatus(**found)


def probe_in_child() -> dict[str, Any]:
    """Initialises CUDA in this process and returns a `DriverStatus` as a dictionary."""
    return asdict(_probe_here())


def require_driver() -> None:
    """Initialises CUDA in this process, which is about to use it.

    Raises:
        ToolchainMissingError: There is no driver or no device, with what to do.
    """
    status = _probe_here()
    if not status.ok:
        raise ToolchainMissingError(f"CUDA cannot be used: {status.reason}", hint=status.hint)


def _probe_here() -> DriverStatus:
    fault = _explain_missing_library()
    if fault is not None:
        return fault
    try:
        driver = load_driver()
    except ToolchainMissingError as error:
        return _no_driver(error.message, error.hint)
    count = ctypes.c_int()
    code = driver.call("init", 0) or driver.call("device_count", count)
    if code == SUCCESS and count.value == 0:
        code = _NO_DEVICE
    reason, hint = (None, None) if code == SUCCESS else explain_setup_fault(driver, code)
    return DriverStatus(
        ok=code == SUCCESS,
        reason=reason,
        hint=hint,
        cuda_version=driver.read_cuda_version(),
        device_count=count.value,
    )


def _explain_missing_library() -> DriverStatus | None:
    """Returns why the driver's library cannot be loaded; None when it can. Loading it initialises nothing."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError as error:
        if "No such file" in str(error):
            return _no_driver(
                f"no NVIDIA driver: {LIBRARY} is not there",
                "install the NVIDIA driver; in a container, start it with its GPU support (docker run --gpus all)",
            )
        return _no_driver(f"the NVIDIA driver is broken: {error}", "install the NVIDIA driver again")
    return None


def _no_driver(reason: str, hint: str | None) -> DriverStatus:
    return DriverStatus(ok=False, reason=reason, hint=hint, cuda_version=None, device_count=0)


def _explain_no_device() -> tuple[str, str]:
    """Words the absence of devices: hidden by the user, or really none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return (
            "the NVIDIA driver finds no GPU",
            "see whether nvidia-smi -L lists one; in a container, start it with its GPU support",
        )
    hides = "hides every GPU" if visible.strip() in ("", "-1", "none", "NoDevFiles") else "leaves no GPU visible"
    return (
        f'CUDA_VISIBLE_DEVICES="{visible}" {hides}',
        "unset CUDA_VISIBLE_DEVICES, or set it to an index or UUID that nvidia-smi -L lists",
    )


def explain_setup_fault(driver: Driver, code: int) -> tuple[str, str | None]:
    """Words why CUDA cannot start: a reason with CUDA's own name of it, and a hint."""
    if code == _NO_DEVICE:
        reason, hint = _explain_no_device()
        return f"{reason} ({driver.describe(code)})", hint
    reason, known_hint = SETUP_FAULTS.get(code, ("the NVIDIA driver does not start", "see what nvidia-smi tells"))
    return f"{reason} ({driver.describe(code)})", known_hint
