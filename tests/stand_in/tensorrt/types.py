"""The vendor's enumerations, logger and driver, and the faults that tests ask for."""

from __future__ import annotations

import ctypes
import enum
import os
from typing import Any

import numpy as np

VERSION = os.environ.get("STAND_IN_VERSION", "10.13.0.35")
MAGIC = b"stand-in engine\n"
_LINES = {
    "oom": [
        "[virtualMemoryBuffer.cpp::resizePhysical::140] Error Code 2: OutOfMemory (no further information)",
        "[globWriter.cpp::makeResizableGpuMemory::423] Error Code 2: OutOfMemory (no further information)",
    ],
    "workspace": [
        "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([tactic.cpp:1676: enumerate_tactics] Tactic "
        "Selection: no tactics to implement the operation within workspace limit. Consider increase the allowed "
        "workspace size if applicable. In compileGraph at optimizer/myelin/codeGenerator.cpp:2012)"
    ],
    "capability": [
        "IBuilder::buildSerializedNetwork: Error Code 9: Internal Error (Target GPU SM 61 is not supported by this "
        "TensorRT release.)"
    ],
    "unknown": ["IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation.)"],
    "refused": [],
}


def _enum(name: str, members: str) -> Any:
    return enum.IntEnum(name, [(member, index) for index, member in enumerate(members.split())])


NetworkDefinitionCreationFlag = _enum("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
BuilderFlag = _enum("BuilderFlag", "TF32 VERSION_COMPATIBLE")
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE")
ProfilingVerbosity = _enum("ProfilingVerbosity", "LAYER_NAMES_ONLY NONE DETAILED")
HardwareCompatibilityLevel = _enum("HardwareCompatibilityLevel", "NONE AMPERE_PLUS SAME_COMPUTE_CAPABILITY")
LayerInformationFormat = _enum("LayerInformationFormat", "ONELINE JSON")
TensorIOMode = _enum("TensorIOMode", "NONE INPUT OUTPUT")
TensorLocation = _enum("TensorLocation", "DEVICE HOST")
DataType = _enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64")
ErrorCode = _enum("ErrorCode", "SUCCESS INTERNAL_ERROR MODEL_DESERIALIZE_FAILED UNSUPPORTED_NODE INVALID_NODE")


class ILogger:
    Severity = _enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


def is_failing(call: str, logger: ILogger) -> bool:
    for entry in os.environ.get("STAND_IN_FAIL", "").split(","):
        name, _, what = entry.partition(":")
        if name == call:
            for line in _LINES[what]:
                logger.log(ILogger.Severity.ERROR, line)
            return True
    return False


class Cuda:
    """The driver, as the vendor's library finds it."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        if self.library.cuInit(0):
            raise OSError("cuInit")
        current = ctypes.c_void_p()
        self.has_context = self.library.cuCtxGetCurrent(ctypes.byref(current)) == 0 and bool(current.value)

    @property
    def capability(self) -> str:
        parts = []
        for attribute in (75, 76):
            value = ctypes.c_int()
            self.library.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
            parts.append(str(value.value))
        return ".".join(parts)

    @property
    def name(self) -> str:
        text = ctypes.create_string_buffer(256)
        self.library.cuDeviceGetName(text, 256, 0)
        return text.value.decode()


def find_gpu_name() -> str:
    """Returns what caches are made for, also where only a cache is looked at and there is no driver."""
    try:
        return Cuda().name
    except OSError:
        return "no GPU"


def start_cuda(logger: ILogger) -> Cuda:
    """Fails as the vendor's constructors do where CUDA is not there."""
    try:
        return Cuda()
    except OSError:
        logger.log(
            ILogger.Severity.WARNING, "CUDA initialization failure with error: 35. Please check your CUDA install"
        )
        raise TypeError("pybind11::init(): factory function returned nullptr") from None


DATA_TYPES = {
    1: DataType.FLOAT,
    2: DataType.UINT8,
    3: DataType.INT8,
    6: DataType.INT32,
    7: DataType.INT64,
    9: DataType.BOOL,
    10: DataType.HALF,
}
"""`onnx.TensorProto` -> type."""
WORDS = {1: "Float", 3: "Int8", 10: "Half"}
"""`onnx.TensorProto` -> how the inspector writes it."""
NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.UINT8: np.uint8,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.BOOL: np.bool_,
}
"""Type -> numpy's."""


def scratch_bytes() -> int:
    """Returns the memory of an execution context."""
    return int(os.environ.get("STAND_IN_MEMORY_BYTES", str(2**20)))
