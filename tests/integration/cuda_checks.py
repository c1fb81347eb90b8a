"""What `test_cuda_on_gpu.py` does in child processes, on a real GPU with PyTorch beside our own binding."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelwright.core.errors import MeasurementInvalidError
from modelwright.core.nvidia.cuda import CudaDevice, Event
from modelwright.harness.run.device_timing import Lane, time_computations
from modelwright.targets.contract import Computation

MATRIX = 4096
REPEATS = 20


def is_cuda_seen_by_torch() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def compare_descriptions() -> dict[str, Any]:
    import torch

    with CudaDevice() as device:
        properties = torch.cuda.get_device_properties(0)
        return {
            "ours": [device.name, device.compute_capability, device.memory_info()[1]],
            "torch": [
                properties.name,
                f"{properties.major}.{properties.minor}",
                torch.cuda.mem_get_info()[1],
            ],
            "uuid": device.uuid,
            "torch_uuid": str(getattr(properties, "uuid", "")),
        }


def read_memory() -> dict[str, int]:
    with CudaDevice() as device:
        free_bytes, total_bytes = device.memory_info()
        buffer = device.allocate(256 << 20)
        held_bytes = device.memory_info()[0]
        buffer.close()
        return {"free": free_bytes, "total": total_bytes, "taken": free_bytes - held_bytes}


def allocate_too_much() -> list[str]:
    with CudaDevice() as device:
        total_bytes = device.memory_info()[1]
        try:
            device.allocate(2 * total_bytes)
        except MeasurementInvalidError as error:
            device.allocate(1 << 20)  # the context survives
            return [error.message, error.detail or ""]
    return []


def copy_large() -> bool:
    with CudaDevice() as device:
        source = np.random.default_rng(0).integers(0, 256, 64 << 20, dtype=np.uint8)
        stream, buffer = device.create_stream(), device.allocate(source.nbytes)
        pinned, back = device.allocate_pinned(source.nbytes), np.zeros_like(source)
        pinned.array[:] = source
        device.copy_to_device(buffer, pinned, source.nbytes, stream)
        device.copy_to_host(back, buffer, source.nbytes, stream)
        stream.synchronize()
        return bool(np.array_equal(back, source))


def read_torch_tensor() -> list[list[float]]:
    import torch

    with CudaDevice() as device:
        stream = device.create_stream()
        tensor = torch.arange(8, dtype=torch.float32, device="cuda")
        torch.cuda.synchronize()
        read = np.zeros(8, np.float32)
        device.copy_to_host(read, tensor.data_ptr(), read.nbytes, stream)
        stream.synchronize()
        device.copy_to_device(tensor.data_ptr(), read[::-1].copy(), read.nbytes, stream)
        stream.synchronize()
        return [read.tolist(), tensor.cpu().tolist()]


def compare_events() -> list[float]:
    """Returns the same stretch of work in milliseconds, by our events and by PyTorch's around them."""
    import torch

    with CudaDevice() as device:
        stream = device.create_stream()
        with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)):
            matrix = torch.randn(MATRIX, MATRIX, device="cuda")
            product = torch.empty_like(matrix)
            torch.mm(matrix, matrix, out=product)
            ours = device.create_event(), device.create_event()
            theirs = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            stream.synchronize()
            theirs[0].record()
            ours[0].record(stream.handle)
            for _ in range(REPEATS):
                torch.mm(matrix, matrix, out=product)
            ours[1].record(stream.handle)
            theirs[1].record()
            ours[1].synchronize()
            stream.synchronize()
            return [Event.elapsed_ms(*ours), theirs[0].elapsed_time(theirs[1])]


def launch_captured_torch() -> list[list[float]]:
    """Returns the output before the launch, after it, and after a second one on other inputs."""
    import torch

    with CudaDevice() as device:
        stream = device.create_stream()
        with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)), torch.inference_mode():
            x, y = torch.arange(4, dtype=torch.float32, device="cuda"), torch.zeros(4, device="cuda")
            torch.mul(x, 2.0, out=y)  # loads the kernel, which cannot be done while capturing
            y.zero_()
            stream.synchronize()

            def enqueue() -> None:
                torch.mul(x, 2.0, out=y)

            graph = device.capture(stream, enqueue)
            outputs = [y.cpu().tolist()]
            for _ in range(2):
                graph.launch(stream.handle)
                stream.synchronize()
                outputs.append(y.cpu().tolist())
                x.add_(1.0)
                stream.synchronize()
            graph.close()
            return outputs


class MatrixProduct(Computation):
    """`y = x x` by PyTorch on a stream of ours."""

    def __init__(self, stream: int) -> None:
        import torch

        self.stream = stream
        self._torch = torch
        self._place = torch.cuda.ExternalStream(stream)
        with torch.cuda.stream(self._place):
            self._x = torch.randn(MATRIX, MATRIX, device="cuda")
            self._y = torch.empty_like(self._x)

    def enqueue(self) -> None:
        with self._torch.cuda.stream(self._place):
            self._torch.mm(self._x, self._x, out=self._y)


def time_products(streams: int, spin: bool) -> dict[str, Any]:
    with CudaDevice(spin=spin) as device:
        handles = [device.create_stream() for _ in range(streams)]
        lanes = [Lane.on_device([MatrixProduct(stream.handle)], device) for stream in handles]
        for lane in lanes:  # loads cuBLAS, which takes as long as the measurement
            lane.computations[0].enqueue()
        device.synchronize()
        times = time_computations(lanes, 0.5, warm_up_s=0.2)
        device.synchronize()
        return {
            "latencies_ns": times.latencies_ns,
            "enqueue_ns": times.enqueue_ns,
            "inferences": times.inferences,
            "elapsed_s": times.elapsed_s,
            "spin": device.spin,
        }
