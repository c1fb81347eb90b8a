"""The CUDA driver API by ctypes on `libcuda.so.1`, which comes with the NVIDIA driver: no package is needed.

Symbols are the versioned ones that the vendor's `cuda.h` maps its names to (`cuMemAlloc` is `cuMemAlloc_v2` and so on;
compared with the headers of CUDA 12.1, 12.9 and 13.5). `CudaDevice` retains the primary context, the one that the CUDA
runtime, and with it PyTorch and TensorRT, uses too: pointers, streams and events pass freely between them.

Reference: https://docs.nvidia.com/cuda/cuda-driver-api/
"""

from __future__ import annotations

import ctypes
import functools
import os
import uuid as uuid_module
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError, ToolchainMissingError
from modelwright.core.process.child import run_in_child

Array = npt.NDArray[Any]

LIBRARY = "libcuda.so.1"
PROBE_TIMEOUT_S = 120.0
"""Without persistence mode the first initialisation after boot powers the cards up, which takes seconds each."""

_SUCCESS = 0
_OUT_OF_MEMORY = 2
_NO_DEVICE = 100
_NOT_READY = 600
_PRIMARY_CONTEXT_ACTIVE = 708
_CTX_SCHED_SPIN = 0x1
_CTX_SCHED_BLOCKING_SYNC = 0x4
_CTX_SCHED_MASK = 0x7
_STREAM_NON_BLOCKING = 0x1
_EVENT_BLOCKING_SYNC = 0x1
_CAPTURE_MODE_THREAD_LOCAL = 1
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76

_HANDLE = ctypes.c_void_p
_TO_HANDLE = ctypes.POINTER(ctypes.c_void_p)
_TO_INT = ctypes.POINTER(ctypes.c_int)
_TO_SIZE = ctypes.POINTER(ctypes.c_size_t)
_DEVICE_POINTER = ctypes.c_uint64
_UUID = ctypes.c_char * 16

# Name here -> (symbol, argument types); all return a `CUresult`. Where a driver may lack the first, others follow.
_SIGNATURES: dict[str, tuple[tuple[str, tuple[Any, ...]], ...]] = {
    "init": (("cuInit", (ctypes.c_uint,)),),
    "driver_version": (("cuDriverGetVersion", (_TO_INT,)),),
    "error_name": (("cuGetErrorName", (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p))),),
    "error_string": (("cuGetErrorString", (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p))),),
    "device_count": (("cuDeviceGetCount", (_TO_INT,)),),
    "device": (("cuDeviceGet", (_TO_INT, ctypes.c_int)),),
    "device_name": (("cuDeviceGetName", (ctypes.c_char_p, ctypes.c_int, ctypes.c_int)),),
    "device_uuid": (("cuDeviceGetUuid", (ctypes.POINTER(_UUID), ctypes.c_int)),),
    "instance_uuid": (  # 11.4: tells the slices of a partitioned card (MIG) apart
        ("cuDeviceGetUuid_v2", (ctypes.POINTER(_UUID), ctypes.c_int)),
        ("cuDeviceGetUuid", (ctypes.POINTER(_UUID), ctypes.c_int)),
    ),
    "device_attribute": (("cuDeviceGetAttribute", (_TO_INT, ctypes.c_int, ctypes.c_int)),),
    "context_set_flags": (("cuDevicePrimaryCtxSetFlags_v2", (ctypes.c_int, ctypes.c_uint)),),
    "context_state": (("cuDevicePrimaryCtxGetState", (ctypes.c_int, ctypes.POINTER(ctypes.c_uint), _TO_INT)),),
    "context_retain": (("cuDevicePrimaryCtxRetain", (_TO_HANDLE, ctypes.c_int)),),
    "context_release": (("cuDevicePrimaryCtxRelease_v2", (ctypes.c_int,)),),
    "context_current": (("cuCtxGetCurrent", (_TO_HANDLE,)),),
    "context_set_current": (("cuCtxSetCurrent", (_HANDLE,)),),
    "context_synchronize": (("cuCtxSynchronize", ()),),
    "memory_info": (("cuMemGetInfo_v2", (_TO_SIZE, _TO_SIZE)),),
    "allocate": (("cuMemAlloc_v2", (ctypes.POINTER(_DEVICE_POINTER), ctypes.c_size_t)),),
    "free": (("cuMemFree_v2", (_DEVICE_POINTER,)),),
    "allocate_pinned": (("cuMemAllocHost_v2", (_TO_HANDLE, ctypes.c_size_t)),),
    "free_pinned": (("cuMemFreeHost", (_HANDLE,)),),
    "copy_to_device": (("cuMemcpyHtoDAsync_v2", (_DEVICE_POINTER, _HANDLE, ctypes.c_size_t, _HANDLE)),),
    "copy_to_host": (("cuMemcpyDtoHAsync_v2", (_HANDLE, _DEVICE_POINTER, ctypes.c_size_t, _HANDLE)),),
    "stream_create": (("cuStreamCreate", (_TO_HANDLE, ctypes.c_uint)),),
    "stream_synchronize": (("cuStreamSynchronize", (_HANDLE,)),),
    "stream_destroy": (("cuStreamDestroy_v2", (_HANDLE,)),),
    "capture_begin": (("cuStreamBeginCapture_v2", (_HANDLE, ctypes.c_int)),),
    "capture_end": (("cuStreamEndCapture", (_HANDLE, _TO_HANDLE)),),
    "event_create": (("cuEventCreate", (_TO_HANDLE, ctypes.c_uint)),),
    "event_record": (("cuEventRecord", (_HANDLE, _HANDLE)),),
    "event_query": (("cuEventQuery", (_HANDLE,)),),
    "event_synchronize": (("cuEventSynchronize", (_HANDLE,)),),
    "event_elapsed": (  # 12.8
        ("cuEventElapsedTime_v2", (ctypes.POINTER(ctypes.c_float), _HANDLE, _HANDLE)),
        ("cuEventElapsedTime", (ctypes.POINTER(ctypes.c_float), _HANDLE, _HANDLE)),
    ),
    "event_destroy": (("cuEventDestroy_v2", (_HANDLE,)),),
    "graph_instantiate": (  # 11.4; the older one also takes a node, a log and its size
        ("cuGraphInstantiateWithFlags", (_TO_HANDLE, _HANDLE, ctypes.c_ulonglong)),
        ("cuGraphInstantiate_v2", (_TO_HANDLE, _HANDLE, _TO_HANDLE, ctypes.c_char_p, ctypes.c_size_t)),
    ),
    "graph_launch": (("cuGraphLaunch", (_HANDLE, _HANDLE)),),
    "graph_exec_destroy": (("cuGraphExecDestroy", (_HANDLE,)),),
    "graph_destroy": (("cuGraphDestroy", (_HANDLE,)),),
}

# What `cuInit` and the first use of a device answer on machines that are not set up: code -> (reason, hint).
_SETUP_FAULTS: dict[int, tuple[str, str | None]] = {
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
            "modelwright.core.nvidia.cuda:probe_in_child",
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
        driver = _load_driver()
    except ToolchainMissingError as error:
        return _no_driver(error.message, error.hint)
    version = ctypes.c_int()
    told = driver.call("driver_version", version) == _SUCCESS and version.value > 0
    cuda_version = f"{version.value // 1000}.{version.value % 1000 // 10}" if told else None
    count = ctypes.c_int()
    code = driver.call("init", 0) or driver.call("device_count", count)
    if code == _SUCCESS and count.value == 0:
        code = _NO_DEVICE
    reason, hint = (None, None) if code == _SUCCESS else driver.explain_setup_fault(code)
    return DriverStatus(
        ok=code == _SUCCESS, reason=reason, hint=hint, cuda_version=cuda_version, device_count=count.value
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


class _Driver:
    """The loaded library: functions with their types set, by our names."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.symbols: dict[str, str] = {}
        self._functions: dict[str, Callable[..., int]] = {}
        for name, alternatives in _SIGNATURES.items():
            symbol, argument_types = next(
                (pair for pair in alternatives if hasattr(library, pair[0])), (None, alternatives[-1][1])
            )
            if symbol is None:
                raise ToolchainMissingError(
                    f"the NVIDIA driver is too old: its {LIBRARY} has no {alternatives[-1][0]}",
                    hint="update the NVIDIA driver",
                )
            function = getattr(library, symbol)
            function.argtypes = argument_types
            function.restype = ctypes.c_int
            self.symbols[name] = symbol
            self._functions[name] = function

    def call(self, name: str, *arguments: Any) -> int:
        """Calls a function and returns CUDA's error code."""
        return self._functions[name](*arguments)

    def check(self, purpose: str, name: str, *arguments: Any) -> None:
        """Calls a function that must succeed.

        Args:
            purpose: What it is for, as it reads in `CUDA cannot ...`.
            name: A key of `_SIGNATURES`.
            arguments: In the order of the vendor's function.

        Raises:
            MeasurementInvalidError: With CUDA's own name and text of the error.
        """
        code = self._functions[name](*arguments)
        if code != _SUCCESS:
            raise self.make_error(purpose, code)

    def describe(self, code: int) -> str:
        """Returns CUDA's own name and text of an error."""
        texts = []
        for function in ("error_name", "error_string"):
            text = ctypes.c_char_p()
            known = self.call(function, code, text) == _SUCCESS and text.value is not None
            texts.append((text.value or b"").decode(errors="replace") if known else "")
        name, explanation = texts
        return f"{name or 'unknown error'} ({code})" + (f": {explanation}" if explanation else "")

    def explain_setup_fault(self, code: int) -> tuple[str, str | None]:
        """Words why CUDA cannot start: a reason with CUDA's own name of it, and a hint."""
        if code == _NO_DEVICE:
            reason, hint = _explain_no_device()
            return f"{reason} ({self.describe(code)})", hint
        reason, known_hint = _SETUP_FAULTS.get(code, ("the NVIDIA driver does not start", "see what nvidia-smi tells"))
        return f"{reason} ({self.describe(code)})", known_hint

    def memory_info(self) -> tuple[int, int]:
        """Returns free and total bytes of the current context's device."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.check("tell how much memory the GPU has", "memory_info", free, total)
        return free.value, total.value

    def make_error(self, purpose: str, code: int) -> MeasurementInvalidError:
        """Words an error of CUDA; running out of memory says how much is free."""
        if code == _OUT_OF_MEMORY:
            return explain_out_of_memory(f"CUDA cannot {purpose}", self._try_memory_info(), self.describe(code))
        return MeasurementInvalidError(f"CUDA cannot {purpose}: {self.describe(code)}")

    def _try_memory_info(self) -> tuple[int, int] | None:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        return (free.value, total.value) if self.call("memory_info", free, total) == _SUCCESS else None


def explain_out_of_memory(
    failure: str, memory: tuple[int, int] | None, detail: str | None = None
) -> MeasurementInvalidError:
    """Words that the GPU's memory does not suffice.

    Args:
        failure: What cannot be done.
        memory: Free and total bytes of the GPU; None when CUDA does not tell.
        detail: The vendor's words.
    """
    state = ""
    if memory is not None:
        state = f"; {memory[0] / 2**20:,.0f} of {memory[1] / 2**20:,.0f} MiB are free"
    return MeasurementInvalidError(
        f"{failure}: the GPU is out of memory{state}",
        hint="end other programs on the GPU (nvidia-smi lists them), use a smaller --batch or fewer --streams, or "
        "measure fewer artifacts at a time: all of them stay loaded",
        detail=detail,
    )


@functools.lru_cache(maxsize=1)
def _load_driver() -> _Driver:
    return _Driver(ctypes.CDLL(LIBRARY))


class Stream:
    """A queue of work on the device; it does not wait for the legacy default stream.

    Attributes:
        handle: The `CUstream`, as an integer; 0 once closed.
    """

    def __init__(self, driver: _Driver) -> None:
        created = ctypes.c_void_p()
        driver.check("create a stream", "stream_create", created, _STREAM_NON_BLOCKING)
        self._driver = driver
        self.handle: int = created.value or 0

    def synchronize(self) -> None:
        """Waits until all its work is done; errors of that work come out here."""
        self._driver.check("finish the work on a stream", "stream_synchronize", self.handle)

    def close(self) -> None:
        if self.handle:
            self._driver.call("stream_destroy", self.handle)
        self.handle = 0


class Event:
    """A point in a stream whose time the device notes, with a resolution of about 0.5 us.

    Attributes:
        handle: The `CUevent`, as an integer; 0 once closed.
    """

    def __init__(self, driver: _Driver, *, spin: bool) -> None:
        created = ctypes.c_void_p()
        driver.check("create an event", "event_create", created, 0 if spin else _EVENT_BLOCKING_SYNC)
        self._driver = driver
        self.handle: int = created.value or 0

    def record(self, stream: int) -> None:
        """Puts the event behind the work queued on a stream so far.

        Args:
            stream: A `CUstream`, as an integer.
        """
        self._driver.check("record an event", "event_record", self.handle, stream)

    def synchronize(self) -> None:
        """Waits until the device has reached the event; errors of the work before it come out here."""
        self._driver.check("finish the work before an event", "event_synchronize", self.handle)

    def is_done(self) -> bool:
        """Whether the device has reached the event."""
        code = self._driver.call("event_query", self.handle)
        if code == _NOT_READY:
            return False
        if code != _SUCCESS:
            self._driver.check("finish the work before an event", "event_query", self.handle)
        return True

    @staticmethod
    def elapsed_ms(start: Event, end: Event) -> float:
        """Returns the milliseconds between two events that the device has reached."""
        elapsed = ctypes.c_float()
        start._driver.check("tell the time between two events", "event_elapsed", elapsed, start.handle, end.handle)
        return elapsed.value

    def close(self) -> None:
        if self.handle:
            self._driver.call("event_destroy", self.handle)
        self.handle = 0


class DeviceBuffer:
    """Memory on the device.

    Attributes:
        pointer: The `CUdeviceptr`; 0 once closed.
        size_bytes: As asked for.
    """

    def __init__(self, driver: _Driver, size_bytes: int) -> None:
        allocated = _DEVICE_POINTER()
        # CUDA refuses to allocate nothing, but tensors without elements exist.
        driver.check(f"allocate {size_bytes:,} bytes on the GPU", "allocate", allocated, max(1, size_bytes))
        self._driver = driver
        self.pointer: int = allocated.value
        self.size_bytes = size_bytes

    def close(self) -> None:
        if self.pointer:
            self._driver.call("free", self.pointer)
        self.pointer = 0


class PinnedBuffer:
    """Page-locked memory of the host, which the device copies from and to by itself.

    Attributes:
        pointer: Its address; 0 once closed.
        size_bytes: As asked for.
        array: The memory as uint8, of shape [size_bytes]. Not to be touched once closed.
    """

    def __init__(self, driver: _Driver, size_bytes: int) -> None:
        allocated = ctypes.c_void_p()
        driver.check(f"allocate {size_bytes:,} page-locked bytes", "allocate_pinned", allocated, max(1, size_bytes))
        self._driver = driver
        self.pointer: int = allocated.value or 0
        self.size_bytes = size_bytes
        memory = (ctypes.c_uint8 * size_bytes).from_address(self.pointer)
        self.array: npt.NDArray[np.uint8] = np.ctypeslib.as_array(memory)

    def close(self) -> None:
        if self.pointer:
            self._driver.call("free_pinned", self.pointer)
        self.pointer = 0
        self.array = np.empty(0, np.uint8)


class CudaGraph:
    """Work captured once, launched by one call.

    Attributes:
        handle: The `CUgraphExec`, as an integer; 0 once closed.
    """

    def __init__(self, driver: _Driver, graph: int) -> None:
        created = ctypes.c_void_p()
        further = (0,) if driver.symbols["graph_instantiate"] == "cuGraphInstantiateWithFlags" else (None, None, 0)
        driver.check("instantiate a CUDA graph", "graph_instantiate", created, graph, *further)
        self._driver = driver
        self.handle: int = created.value or 0

    def launch(self, stream: int) -> None:
        """Queues the whole work on a stream.

        Args:
            stream: A `CUstream`, as an integer.
        """
        self._driver.check("launch a CUDA graph", "graph_launch", self.handle, stream)

    def close(self) -> None:
        if self.handle:
            self._driver.call("graph_exec_destroy", self.handle)
        self.handle = 0


class CudaDevice:
    """One GPU: a context manager that retains its primary context and makes it current in the calling thread.

    What it creates belongs to the context: close it before, or leave it to the end of the process.

    Args:
        index: Among the visible devices.
        spin: Whether waiting for the device polls (`CU_CTX_SCHED_SPIN`), which reacts faster and costs a core, or
            blocks (`CU_CTX_SCHED_BLOCKING_SYNC`). Applies to the context, for everybody in the process.

    Attributes:
        index: As given.
        name: `NVIDIA GeForce RTX 4090`.
        uuid: In NVML's spelling, `GPU-...`; `MIG-...` for a slice of a partitioned card.
        compute_capability: `8.9`.
        spin: What applies: once entered, as read back from the context, which another user of it may have changed.

    Raises:
        ToolchainMissingError: No driver, or no such device.
    """

    def __init__(self, index: int = 0, *, spin: bool = False) -> None:
        require_driver()
        self._driver = _load_driver()
        count = ctypes.c_int()
        self._driver.check("count the GPUs", "device_count", count)
        if not 0 <= index < count.value:
            raise ToolchainMissingError(
                f"there is no GPU {index}: {count.value} visible, counted from 0",
                hint="see nvidia-smi -L, and what CUDA_VISIBLE_DEVICES says",
            )
        device = ctypes.c_int()
        self._driver.check(f"find GPU {index}", "device", device, index)
        self._device = device.value
        self._previous: int | None = None
        self.index = index
        self.spin = spin
        self.name = self._read_name()
        self.uuid = self._read_uuid()
        major, minor = map(self._read_attribute, (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR))
        self.compute_capability = f"{major}.{minor}"

    def __enter__(self) -> Self:
        flag = _CTX_SCHED_SPIN if self.spin else _CTX_SCHED_BLOCKING_SYNC
        code = self._driver.call("context_set_flags", self._device, flag)
        # An active context keeps what it has; what applies is read back below.
        if code not in (_SUCCESS, _PRIMARY_CONTEXT_ACTIVE):
            self._driver.check("choose how to wait for the GPU", "context_set_flags", self._device, flag)
        previous, context = ctypes.c_void_p(), ctypes.c_void_p()
        self._driver.check("tell the current context", "context_current", previous)
        code = self._driver.call("context_retain", context, self._device)
        if code in _SETUP_FAULTS:
            reason, hint = self._driver.explain_setup_fault(code)
            raise ToolchainMissingError(f"CUDA cannot use {self.name}: {reason}", hint=hint)
        if code != _SUCCESS:
            raise self._driver.make_error(f"create a context on {self.name}", code)
        self._previous = previous.value
        flags, active = ctypes.c_uint(), ctypes.c_int()
        self._driver.check("make its context current", "context_set_current", context)
        self._driver.check("tell how it waits for the GPU", "context_state", self._device, flags, active)
        self.spin = flags.value & _CTX_SCHED_MASK == _CTX_SCHED_SPIN
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a fault on the device every call fails; the first error is the one to see, so these do not raise.
        self._driver.call("context_set_current", self._previous)
        self._driver.call("context_release", self._device)

    def create_stream(self) -> Stream:
        return Stream(self._driver)

    def create_event(self) -> Event:
        """Creates an event; waiting for it blocks unless the device spins."""
        return Event(self._driver, spin=self.spin)

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """Allocates memory on the device.

        Raises:
            MeasurementInvalidError: Out of memory; says how much is free.
        """
        return DeviceBuffer(self._driver, size_bytes)

    def allocate_pinned(self, size_bytes: int) -> PinnedBuffer:
        return PinnedBuffer(self._driver, size_bytes)

    def copy_to_device(
        self, buffer: DeviceBuffer | int, source: Array | PinnedBuffer, size_bytes: int, stream: Stream | int
    ) -> None:
        """Queues a copy from host to device.

        Args:
            buffer: Where to; or a device pointer.
            source: Where from; a C-contiguous array, or pinned memory, and unchanged until the stream is done.
            size_bytes: How much, from the beginning of both.
            stream: Which the copy is put on; or its handle.
        """
        _require_size(buffer, size_bytes)
        code = self._driver.call(
            "copy_to_device",
            buffer if isinstance(buffer, int) else buffer.pointer,
            _find_address(source, size_bytes),
            size_bytes,
            stream if isinstance(stream, int) else stream.handle,
        )
        if code != _SUCCESS:
            raise self._driver.make_error(f"copy {size_bytes:,} bytes to the GPU", code)

    def copy_to_host(
        self, target: Array | PinnedBuffer, buffer: DeviceBuffer | int, size_bytes: int, stream: Stream | int
    ) -> None:
        """Queues a copy from device to host; the target holds it once the stream is done.

        Args:
            target: Where to; a C-contiguous writable array, or pinned memory.
            buffer: Where from; or a device pointer.
            size_bytes: How much, from the beginning of both.
            stream: Which the copy is put on; or its handle.
        """
        _require_size(buffer, size_bytes)
        if isinstance(target, np.ndarray) and not target.flags.writeable:
            raise ValueError("the array to copy to is not writable")
        code = self._driver.call(
            "copy_to_host",
            _find_address(target, size_bytes),
            buffer if isinstance(buffer, int) else buffer.pointer,
            size_bytes,
            stream if isinstance(stream, int) else stream.handle,
        )
        if code != _SUCCESS:
            raise self._driver.make_error(f"copy {size_bytes:,} bytes from the GPU", code)

    def memory_info(self) -> tuple[int, int]:
        """Returns free and total bytes of the device, whoever uses them."""
        return self._driver.memory_info()

    def synchronize(self) -> None:
        """Waits until all work of the context is done."""
        self._driver.check("finish the work on the GPU", "context_synchronize")

    def capture(self, stream: Stream | int, enqueue: Callable[[], None]) -> CudaGraph:
        """Captures what `enqueue` puts on a stream, without running it.

        Capturing is thread-local: other threads may go on allocating. `enqueue` itself must neither allocate nor wait;
        run the work once before, so that libraries have done their lazy set-up.

        Raises:
            MeasurementInvalidError: Something in it cannot be captured.
        """
        handle = stream if isinstance(stream, int) else stream.handle
        self._driver.check("begin to capture a CUDA graph", "capture_begin", handle, _CAPTURE_MODE_THREAD_LOCAL)
        graph = ctypes.c_void_p()
        try:
            enqueue()
        except BaseException:
            self._driver.call("capture_end", handle, graph)  # takes the stream out of its capture
            if graph.value:
                self._driver.call("graph_destroy", graph)
            raise
        self._driver.check("capture the work in a CUDA graph", "capture_end", handle, graph)
        try:
            return CudaGraph(self._driver, graph.value or 0)
        finally:
            self._driver.call("graph_destroy", graph)

    def _read_name(self) -> str:
        name = ctypes.create_string_buffer(256)
        self._driver.check("tell the GPU's name", "device_name", name, len(name), self._device)
        return name.value.decode(errors="replace")

    def _read_uuid(self) -> str:
        card, instance = _UUID(), _UUID()
        self._driver.check("tell the GPU's UUID", "device_uuid", card, self._device)
        self._driver.check("tell the GPU's UUID", "instance_uuid", instance, self._device)
        prefix = "GPU" if card.raw == instance.raw else "MIG"
        return f"{prefix}-{uuid_module.UUID(bytes=instance.raw)}"

    def _read_attribute(self, attribute: int) -> int:
        value = ctypes.c_int()
        self._driver.check("tell the GPU's compute capability", "device_attribute", value, attribute, self._device)
        return value.value


def _require_size(buffer: DeviceBuffer | int, size_bytes: int) -> None:
    if isinstance(buffer, DeviceBuffer) and size_bytes > buffer.size_bytes:
        raise ValueError(f"{size_bytes} bytes do not fit a device buffer of {buffer.size_bytes}")


def _find_address(memory: Array | PinnedBuffer, size_bytes: int) -> int:
    """Returns the address of host memory that is at least `size_bytes` long."""
    if isinstance(memory, PinnedBuffer):
        available, address = memory.size_bytes, memory.pointer
    else:
        if not memory.flags.c_contiguous:
            raise ValueError("the array is not C-contiguous")
        available, address = memory.nbytes, memory.ctypes.data
    if size_bytes > available:
        raise ValueError(f"{size_bytes} bytes do not fit host memory of {available}")
    return address
