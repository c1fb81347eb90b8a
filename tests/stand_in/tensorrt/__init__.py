"""A stand-in for NVIDIA's `tensorrt` module, for tests on machines without a GPU.

It has the part of the API that modelwright calls, with the vendor's names and argument names (a test compares them with
the real module of TensorRT for RTX). An "engine" is the ONNX model behind a header; it computes with ONNX Runtime on
device pointers, which under the fake CUDA driver are memory of the host, in the order of the stream.

Environment:
    STAND_IN_VERSION        what `__version__` says (10.13.0.35)
    STAND_IN_FAIL           calls that come back with nothing, and what they log: `build:oom`, `build:workspace`,
                            `build:capability`, `build:unknown`, `deserialize:oom`, `context:oom`, `enqueue:unknown`,
                            `capture:refused`; several are separated by commas
    STAND_IN_PRECISION      a type that the inspector names for every layer, whatever the graph says: `Float`
    STAND_IN_MEMORY_BYTES   scratch memory of an execution context (1048576)
    STAND_IN_LOG            a file to which each engine that is loaded is appended
    STAND_IN_BARRIER        `FOLDER:N`: builds wait, after they have read their timing cache, until N of them do
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .builder import Builder, IBuilderConfig, IOptimizationProfile, ITimingCache
from .network import INetworkDefinition, ITensor, OnnxParser, ParserError
from .runtime import EngineInspector, ICudaEngine, IExecutionContext, IProfiler, Runtime
from .types import (
    VERSION,
    BuilderFlag,
    DataType,
    ErrorCode,
    HardwareCompatibilityLevel,
    ILogger,
    LayerInformationFormat,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
    TensorIOMode,
    TensorLocation,
)

__all__ = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "EngineInspector",
    "ErrorCode",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProfiler",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "ProfilingVerbosity",
    "Runtime",
    "TensorIOMode",
    "TensorLocation",
]
__version__ = VERSION


def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
    return True


def install(folder: Path, version: str = VERSION) -> Path:
    """Puts this module and its metadata where a child process with that folder on PYTHONPATH finds them."""
    information = folder / f"tensorrt-{version}.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {version}\n")
    shutil.copytree(Path(__file__).parent, folder / "tensorrt", dirs_exist_ok=True)
    return folder
