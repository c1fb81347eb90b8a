"""What `test_nvml_on_gpu.py` does in child processes, so that no test's own process holds a context."""

from __future__ import annotations

import time
from typing import Any

from modelwright.core.nvidia.cuda import CudaDevice

MATRIX = 8192

_held: list[Any] = []


def hold(size_bytes: int) -> str:
    """Keeps a context and so much memory until the process ends; returns the card's UUID."""
    device = CudaDevice().__enter__()
    _held.extend([device, device.allocate(size_bytes)])
    return device.uuid


def is_cuda_seen_by_torch() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def multiply(duration_s: float) -> list[float]:
    """Multiplies FP16 matrices for so many seconds; returns how many times, and the seconds that it took."""
    import torch

    factor = torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.float16)
    product = torch.empty_like(factor)
    torch.cuda.synchronize()
    count, started_s = 0, time.monotonic()
    while time.monotonic() - started_s < duration_s:
        for _ in range(10):
            torch.matmul(factor, factor, out=product)
        torch.cuda.synchronize()
        count += 10
    return [count, time.monotonic() - started_s]
