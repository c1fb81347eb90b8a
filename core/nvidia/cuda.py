"""Work on a GPU by the CUDA driver API: a device and its context, streams, events, memory, captured graphs.

`CudaDevice` retains the primary context, the one that the CUDA runtime, and with it PyTorch and TensorRT, uses too:
pointers, streams and events pass freely between them. `driver.py` finds the driver and says why it cannot be used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.nvidia.driver import DEVICE_POINTER, SUCCESS, Driver, load_driver
from modelwright.core.nvidia.probe import SETUP_FAULTS, explain_setup_fault, require_driver

Array = npt.NDArray[Any]

_PRIMARY_CONTEXT_ACTIVE = 708
_CTX_SCHED_SPIN = 0x1
_CTX_SCHED_BLOCKING_SYNC = 0x4
_CTX_SCHED_MASK = 0x7
_STREAM_NON_BLOCKING = 0x1
_EVENT_BLOCKING_SYNC = 0x1
_CAPTURE_MODE_THREAD_LOCAL = 1


class Stream:
    """A queue of work on the device; it does not wait for the legacy default stream.

    Attributes:
        handle: The `CUstream`, as an integer; 0 once closed.
    """

    def __init__(self, driver: Driver) -> None:
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

    def __init__(self, driver: Driver, *, spin: bool) -> None:
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

    def __init__(self, driver: Driver, size_bytes: int) -> None:
        allocated = DEVICE_POINTER()
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

    def __init__(self, driver: Driver, size_bytes: int) -> None:
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

    def __init__(self, driver: Driver, graph: int) -> None:
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
        self._driver = load_driver()
        count = self._driver.count_devices()
        if not 0 <= index < count:
            raise ToolchainMissingError(
                f"there is no GPU {index}: {count} visible, counted from 0",
                hint="see nvidia-smi -L, and what CUDA_VISIBLE_DEVICES says",
            )
        self._device = self._driver.find_device(index)
        self._previous: int | None = None
        self.index = index
        self.spin = spin
        self.name = self._driver.read_name(self._device)
        self.uuid = self._driver.read_uuid(self._device)
        self.compute_capability = self._driver.read_capability(self._device)

    def __enter__(self) -> Self:
        flag = _CTX_SCHED_SPIN if self.spin else _CTX_SCHED_BLOCKING_SYNC
        code = self._driver.call("context_set_flags", self._device, flag)
        # An active context keeps what it has; what applies is read back below.
        if code not in (SUCCESS, _PRIMARY_CONTEXT_ACTIVE):
            self._driver.check("choose how to wait for the GPU", "context_set_flags", self._device, flag)
        previous, context = ctypes.c_void_p(), ctypes.c_void_p()
        self._driver.check("tell the current context", "context_current", previous)
        code = self._driver.call("context_retain", context, self._device)
        if code in SETUP_FAULTS:
            reason, hint = explain_setup_fault(self._driver, code)
            raise ToolchainMissingError(f"CUDA cannot use {self.name}: {reason}", hint=hint)
        if code != SUCCESS:
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
        if code != SUCCESS:
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
        if code != SUCCESS:
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
