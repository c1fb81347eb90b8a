"""What the tests of `core.nvidia.cuda` do in a child process, which finds the fake driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.nvidia.cuda import CudaDevice, Event
from modelwright.core.nvidia.probe import probe_driver, probe_in_child, require_driver

VALUES = np.arange(10, dtype=np.float32)


def probe() -> dict[str, Any]:
    return asdict(probe_driver())


def probe_twice_and_count() -> None:
    assert probe_driver() == probe_driver()


def probe_and_require() -> list[Any]:
    """Returns what probing this very process tells, and what requiring the driver raises."""
    told = probe_in_child()
    try:
        require_driver()
    except ToolchainMissingError as error:
        return [told, error.to_dict()]
    return [told, None]


def describe_device(index: int = 0, spin: bool = False) -> dict[str, Any]:
    with CudaDevice(index, spin=spin) as device:
        free_bytes, total_bytes = device.memory_info()
        buffer = device.allocate(1 << 20)
        left_bytes = device.memory_info()[0]
        buffer.close()
        buffer.close()
        return {
            "name": device.name,
            "uuid": device.uuid,
            "compute_capability": device.compute_capability,
            "spin": device.spin,
            "total_bytes": total_bytes,
            "taken_bytes": free_bytes - left_bytes,
            "given_back_bytes": device.memory_info()[0] - left_bytes,
        }


def copy_there_and_back() -> list[list[float]]:
    with CudaDevice() as device:
        stream = device.create_stream()
        buffer, pinned = device.allocate(VALUES.nbytes), device.allocate_pinned(VALUES.nbytes)
        back = np.zeros_like(VALUES)
        device.copy_to_device(buffer, VALUES, VALUES.nbytes, stream)
        device.copy_to_host(back, buffer, VALUES.nbytes, stream)
        device.copy_to_host(pinned, buffer.pointer, VALUES.nbytes, stream.handle)
        stream.synchronize()
        from_pinned = np.zeros_like(VALUES)
        pinned.array.view(np.float32)[0] = 7.0
        device.copy_to_device(buffer, pinned, VALUES.nbytes, stream)
        device.copy_to_host(from_pinned, buffer, VALUES.nbytes, stream)
        device.synchronize()
        assert device.allocate(0).pointer
        assert device.allocate_pinned(0).array.shape == (0,)
        return [back.tolist(), from_pinned.tolist()]


def refuse_bad_copies() -> list[str]:
    with CudaDevice() as device:
        stream, buffer = device.create_stream(), device.allocate(40)
        locked = VALUES.copy()
        locked.flags.writeable = False
        attempts: list[Callable[[], None]] = [
            lambda: device.copy_to_device(buffer, VALUES[::2], 20, stream),
            lambda: device.copy_to_device(buffer, VALUES, 44, stream),
            lambda: device.copy_to_host(VALUES[:2], buffer, 40, stream),
            lambda: device.copy_to_host(locked, buffer, 40, stream),
        ]
        refusals = []
        for attempt in attempts:
            try:
                attempt()
            except ValueError as error:
                refusals.append(str(error))
        return refusals


def time_with_events(spin: bool) -> bool:
    with CudaDevice(spin=spin) as device:
        stream = device.create_stream()
        start, end = device.create_event(), device.create_event()
        start.record(stream.handle)
        end.record(stream.handle)
        end.synchronize()
        ordered = Event.elapsed_ms(start, end) >= 0.0 and Event.elapsed_ms(end, start) <= 0.0
        for thing in (start, end, stream):
            thing.close()
        return ordered


def launch_graph() -> list[list[float]]:
    with CudaDevice() as device:
        stream, buffer, pinned = (
            device.create_stream(),
            device.allocate(VALUES.nbytes),
            device.allocate_pinned(VALUES.nbytes),
        )
        back = pinned.array.view(np.float32)
        back[:] = 0.0
        device.copy_to_device(buffer, VALUES, VALUES.nbytes, stream)
        graph = device.capture(stream, lambda: device.copy_to_host(pinned, buffer, VALUES.nbytes, stream))
        stream.synchronize()
        captured_only = back.tolist()
        graph.launch(stream.handle)
        stream.synchronize()
        graph.close()
        return [captured_only, back.tolist()]


def fail_in_capture() -> list[float]:
    with CudaDevice() as device:
        stream, buffer, back = device.create_stream(), device.allocate(VALUES.nbytes), np.zeros_like(VALUES)

        def enqueue() -> None:
            raise KeyError("of the caller")

        try:
            device.capture(stream, enqueue)
        except KeyError:
            # The stream is out of its capture: work on it is done again.
            device.copy_to_device(buffer, VALUES, VALUES.nbytes, stream)
            device.copy_to_host(back, buffer, VALUES.nbytes, stream)
            stream.synchronize()
        return back.tolist()


def allocate(size_bytes: int) -> None:
    with CudaDevice() as device:
        device.allocate(size_bytes)


def nest_contexts() -> None:
    with CudaDevice() as outer:
        with CudaDevice():
            pass
        outer.memory_info()  # raises where the inner one took the context away
