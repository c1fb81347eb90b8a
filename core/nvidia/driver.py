"""Calls the CUDA driver by ctypes; `cuda.py` works with what it gives, `probe.py` says whether it can be used.

The driver API is in `libcuda.so.1`, which comes with the NVIDIA driver: no package is needed. Symbols are the versioned
ones that the vendor's `cuda.h` maps its names to (`cuMemAlloc` is `cuMemAlloc_v2` and so on; compared with the headers
of CUDA 12.1, 12.9 and 13.5).

Reference: https://docs.nvidia.com/cuda/cuda-driver-api/
"""

from __future__ import annotations

import ctypes
import functools
import sys
import uuid as uuid_module
from collections.abc import Callable
from typing import Any

from modelwright.core.errors import MeasurementInvalidError, ToolchainMissingError
from modelwright.core.nvidia.nvml import format_cuda_version

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

SUCCESS = 0
_OUT_OF_MEMORY = 2
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76

_HANDLE = ctypes.c_void_p
_TO_HANDLE = ctypes.POINTER(ctypes.c_void_p)
_TO_INT = ctypes.POINTER(ctypes.c_int)
_TO_SIZE = ctypes.POINTER(ctypes.c_size_t)
DEVICE_POINTER = ctypes.c_uint64
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
    "device_memory": (("cuDeviceTotalMem_v2", (_TO_SIZE, ctypes.c_int)),),
    "context_set_flags": (("cuDevicePrimaryCtxSetFlags_v2", (ctypes.c_int, ctypes.c_uint)),),
    "context_state": (("cuDevicePrimaryCtxGetState", (ctypes.c_int, ctypes.POINTER(ctypes.c_uint), _TO_INT)),),
    "context_retain": (("cuDevicePrimaryCtxRetain", (_TO_HANDLE, ctypes.c_int)),),
    "context_release": (("cuDevicePrimaryCtxRelease_v2", (ctypes.c_int,)),),
    "context_current": (("cuCtxGetCurrent", (_TO_HANDLE,)),),
    "context_set_current": (("cuCtxSetCurrent", (_HANDLE,)),),
    "context_synchronize": (("cuCtxSynchronize", ()),),
    "memory_info": (("cuMemGetInfo_v2", (_TO_SIZE, _TO_SIZE)),),
    "allocate": (("cuMemAlloc_v2", (ctypes.POINTER(DEVICE_POINTER), ctypes.c_size_t)),),
    "free": (("cuMemFree_v2", (DEVICE_POINTER,)),),
    "allocate_pinned": (("cuMemAllocHost_v2", (_TO_HANDLE, ctypes.c_size_t)),),
    "free_pinned": (("cuMemFreeHost", (_HANDLE,)),),
    "copy_to_device": (("cuMemcpyHtoDAsync_v2", (DEVICE_POINTER, _HANDLE, ctypes.c_size_t, _HANDLE)),),
    "copy_to_host": (("cuMemcpyDtoHAsync_v2", (_HANDLE, DEVICE_POINTER, ctypes.c_size_t, _HANDLE)),),
    "stream_create": (("cuStreamCreate", (_TO_HANDLE, ctypes.c_uint)),),
    "stream_synchronize": (("cuStreamSynchronize", (_HANDLE,)),),
    "stream_destroy": (("cuStreamDestroy_v2", (_HANDLE,)),),
    "capture_begin": (("cuStreamBeginCapture_v2", (_HANDLE, ctypes.c_int)),),
    "capture_end": (("cuStreamEndCapture", (_HANDLE, _TO_HANDLE)),),
    "event_create": (("cuEventCreate", (_TO_HANDLE, ctypes.c_uint)),),
    "event_record": (("cuEventRecord", (_HANDLE, _HANDLE)),),
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


class Driver:
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
        if code != SUCCESS:
            raise self.make_error(purpose, code)

    def describe(self, code: int) -> str:
        """Returns CUDA's own name and text of an error."""
        texts = []
        for function in ("error_name", "error_string"):
            text = ctypes.c_char_p()
            known = self.call(function, code, text) == SUCCESS and text.value is not None
            texts.append((text.value or b"").decode(errors="replace") if known else "")
        name, explanation = texts
        return f"{name or 'unknown error'} ({code})" + (f": {explanation}" if explanation else "")

    def read_cuda_version(self) -> str | None:
        """Returns the newest CUDA that the driver supports, `13.0`; None when it does not tell."""
        version = ctypes.c_int()
        told = self.call("driver_version", version) == SUCCESS and version.value > 0
        return format_cuda_version(version.value) if told else None

    def count_devices(self) -> int:
        """Returns how many devices are visible."""
        count = ctypes.c_int()
        self.check("count the GPUs", "device_count", count)
        return count.value

    def find_device(self, index: int) -> int:
        """Returns the `CUdevice` of one of the visible devices."""
        device = ctypes.c_int()
        self.check(f"find GPU {index}", "device", device, index)
        return device.value

    def read_name(self, device: int) -> str:
        name = ctypes.create_string_buffer(256)
        self.check("tell the GPU's name", "device_name", name, len(name), device)
        return name.value.decode(errors="replace")

    def read_uuid(self, device: int) -> str:
        """Returns the UUID in NVML's spelling, `GPU-...`; `MIG-...` for a slice of a partitioned card."""
        card, instance = _UUID(), _UUID()
        self.check("tell the GPU's UUID", "device_uuid", card, device)
        self.check("tell the GPU's UUID", "instance_uuid", instance, device)
        prefix = "GPU" if card.raw == instance.raw else "MIG"
        return f"{prefix}-{uuid_module.UUID(bytes=instance.raw)}"

    def read_capability(self, device: int) -> str:
        """Returns the compute capability, `8.9`."""
        parts = []
        for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
            value = ctypes.c_int()
            self.check("tell the GPU's compute capability", "device_attribute", value, attribute, device)
            parts.append(str(value.value))
        return ".".join(parts)

    def read_memory_bytes(self, device: int) -> int | None:
        """Returns the device's whole memory; None when the driver does not tell."""
        total = ctypes.c_size_t()
        return total.value if self.call("device_memory", total, device) == SUCCESS else None

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
        return (free.value, total.value) if self.call("memory_info", free, total) == SUCCESS else None


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
def load_driver() -> Driver:
    """Loads the driver's library once; initialises nothing."""
    return Driver(ctypes.CDLL(LIBRARY))
