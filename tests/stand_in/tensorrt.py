"""A stand-in for NVIDIA's `tensorrt` module, for tests on machines without a GPU.

It has the part of the API that modelwright calls, with the vendor's names and argument names (a test compares them with
the real module of TensorRT for RTX). An "engine" is the ONNX model behind a header; it computes with ONNX Runtime on
device pointers, which under the fake CUDA driver are memory of the host, in the order of the stream.

Environment:
    STAND_IN_VERSION        what `__version__` says (10.13.0.35)
    STAND_IN_FAIL           calls that come back with nothing, and what they log: `build:oom`, `build:workspace`,
                            `build:capability`, `build:unknown`, `deserialize:oom`, `context:oom`, `enqueue:unknown`,
                            `capture:refused`; several are separated by commas. `shape:data`: output shapes that
                            depend on the values of the inputs
    STAND_IN_PRECISION      a type that the inspector names for every layer, whatever the graph says: `Float`
    STAND_IN_MEMORY_BYTES   scratch memory of an execution context (1048576)
    STAND_IN_LOG            a file to which each engine that is loaded is appended
    STAND_IN_BARRIER        `FOLDER:N`: builds wait, after they have read their timing cache, until N of them do
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

__version__ = os.environ.get("STAND_IN_VERSION", "10.13.0.35")

_MAGIC = b"stand-in engine\n"
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


def _failing(call: str, logger: ILogger) -> bool:
    for entry in os.environ.get("STAND_IN_FAIL", "").split(","):
        name, _, what = entry.partition(":")
        if name == call:
            for line in _LINES[what]:
                logger.log(ILogger.Severity.ERROR, line)
            return True
    return False


class _Cuda:
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


def _find_gpu_name() -> str:
    """Returns what caches are made for, also where only a cache is looked at and there is no driver."""
    try:
        return _Cuda().name
    except OSError:
        return "no GPU"


def _start_cuda(logger: ILogger) -> _Cuda:
    """Fails as the vendor's constructors do where CUDA is not there."""
    try:
        return _Cuda()
    except OSError:
        logger.log(
            ILogger.Severity.WARNING, "CUDA initialization failure with error: 35. Please check your CUDA install"
        )
        raise TypeError("pybind11::init(): factory function returned nullptr") from None


class ITensor:
    def __init__(self, value: Any) -> None:
        kind = value.type.tensor_type
        self.name = value.name
        self.dtype = _DATA_TYPES[kind.elem_type]
        self.shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)
        self.is_shape_tensor = False


_DATA_TYPES = {
    1: DataType.FLOAT,
    2: DataType.UINT8,
    3: DataType.INT8,
    6: DataType.INT32,
    7: DataType.INT64,
    9: DataType.BOOL,
    10: DataType.HALF,
}
"""`onnx.TensorProto` -> type."""
_WORDS = {1: "Float", 3: "Int8", 10: "Half"}


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.model: Any = None
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]

    def fill(self, model: Any) -> None:
        constants = {tensor.name for tensor in model.graph.initializer}
        self.model = model
        self._inputs = [ITensor(value) for value in model.graph.input if value.name not in constants]
        self._outputs = [ITensor(value) for value in model.graph.output]
        # Reshape to a shape that is an input makes that input a shape tensor.
        shapes = {node.input[1] for node in model.graph.node if node.op_type in ("Reshape", "Expand")}
        for tensor in self._inputs:
            tensor.is_shape_tensor = tensor.name in shapes


class ParserError:
    def __init__(self, index: int, node: Any) -> None:
        self._index, self._node = index, node

    def code(self) -> Any:
        return ErrorCode.INVALID_NODE

    def desc(self) -> str:
        return 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"'

    def file(self) -> str:
        return "onnxOpCheckers.cpp"

    def line(self) -> int:
        return 998

    def func(self) -> str:
        return "checkFallbackPluginImporter"

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return str(self._node.name)

    def node_operator(self) -> str:
        return str(self._node.op_type)


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        import onnx

        loaded = onnx.load(model)
        self._errors = [
            ParserError(index, node)
            for index, node in enumerate(loaded.graph.node)
            if node.domain not in ("", "ai.onnx")
        ]
        if self._errors:
            return False
        self._network.fill(loaded)
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self.ranges: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002 - the vendor's names
        self.ranges[input] = [tuple(min), tuple(opt), tuple(max)]


class ITimingCache:
    def __init__(self, version: str, gpu: str, entries: dict[str, float]) -> None:
        self.version, self.gpu, self.entries = version, gpu, entries

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if input_cache.version != self.version or (input_cache.gpu != self.gpu and not ignore_mismatch):
            return False
        self.entries = input_cache.entries | self.entries
        return True

    def serialize(self) -> bytes:
        return json.dumps({"version": self.version, "gpu": self.gpu, "entries": self.entries}, sort_keys=True).encode()


class IBuilderConfig:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._flags = {BuilderFlag.TF32}
        self._limits: dict[Any, int] = {}
        self.profiles: list[IOptimizationProfile] = []
        self.cache: ITimingCache | None = None
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limits[pool] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._limits.get(pool, 2**36)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if any(
            not low <= middle <= high
            for shapes in profile.ranges.values()
            for low, middle, high in zip(*shapes, strict=True)
        ):
            self._logger.log(ILogger.Severity.ERROR, "Error Code 4: API Usage Error (invalid optimization profile)")
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        data = bytes(serialized_timing_cache)
        if not data:
            return ITimingCache(__version__, _find_gpu_name(), {})
        stored = json.loads(data)
        return ITimingCache(stored["version"], stored["gpu"], stored["entries"])

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if (cache.version, cache.gpu) != (__version__, _find_gpu_name()) and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self.cache


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._cuda = _start_cuda(logger)

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self._logger)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        _meet_other_builds()
        if _failing("build", self._logger):
            return None
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        dynamic = [tensor.name for tensor in inputs if -1 in tensor.shape]
        if dynamic and not config.profiles:
            self._logger.log(
                ILogger.Severity.ERROR,
                "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network has dynamic or shape inputs, "
                "but no optimization profile has been defined. In validate at optimizer/api/network.cpp:4023)",
            )
            return None
        if config.cache is not None:
            for node in network.model.graph.node:
                config.cache.entries[hashlib.sha256(node.SerializeToString()).hexdigest()[:16]] = 0.01
        weights = sum(len(tensor.raw_data) for tensor in network.model.graph.initializer)
        self._logger.log(ILogger.Severity.INFO, f"Total Activation Memory: {_scratch_bytes()} bytes")
        self._logger.log(ILogger.Severity.INFO, f"Total Weights Memory: {weights} bytes")
        header = {
            "version": __version__,
            "gpu": self._cuda.name,
            "capability": self._cuda.capability,
            "strongly_typed": bool(network.flags & 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)),
            "tf32": config.get_flag(BuilderFlag.TF32),
            "version_compatible": config.get_flag(BuilderFlag.VERSION_COMPATIBLE),
            "hardware": config.hardware_compatibility_level.name,
            "level": config.builder_optimization_level,
            "workspace": config.get_memory_pool_limit(MemoryPoolType.WORKSPACE),
            "ranges": config.profiles[0].ranges if config.profiles else {},
            "layers": _list_layers(network.model)
            if config.profiling_verbosity == ProfilingVerbosity.DETAILED
            else [node.name for node in network.model.graph.node],
        }
        return _MAGIC + json.dumps(header).encode() + b"\n" + network.model.SerializeToString()


def _meet_other_builds() -> None:
    folder, _, count = os.environ.get("STAND_IN_BARRIER", "").rpartition(":")
    if not folder:
        return
    (Path(folder) / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(Path(folder).iterdir())) < int(count):
        assert time.monotonic() < deadline, "the other builds did not come"
        time.sleep(0.01)


def _scratch_bytes() -> int:
    return int(os.environ.get("STAND_IN_MEMORY_BYTES", str(2**20)))


def _list_layers(model: Any) -> list[dict[str, Any]]:
    """Lists layers as the inspector of TensorRT 10 does: Q/DQ pairs are part of the layer behind them."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.input)}
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    producers = {name: node for node in inferred.node for name in node.output}
    forced = os.environ.get("STAND_IN_PRECISION")
    layers = []
    for node in inferred.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast", "Constant"):
            continue
        inputs = []
        for name in node.input[:2]:
            producer = producers.get(name)
            dequantized = producer is not None and producer.op_type == "DequantizeLinear"
            word = forced or ("Int8" if dequantized else _WORDS.get(types.get(name, 1), "Int32"))
            inputs.append({"Name": name, "Dimensions": [], "Format/Datatype": f"Row major linear {word}"})
        layers.append(
            {
                "Name": node.name,
                "LayerType": node.op_type,
                "Inputs": inputs,
                "Outputs": [{"Name": node.output[0], "Dimensions": [], "Format/Datatype": "Float"}],
                "TacticName": "stand_in",
                "Metadata": f"[ONNX Layer: {node.name}]",
            }
        )
    return layers


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._cuda = _start_cuda(logger)
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if _failing("deserialize", self._logger):
            return None
        data = bytes(serialized_engine)
        fault = None
        if not data.startswith(_MAGIC):
            fault = "Serialization assertion magic tag does not match failed."
        elif not self._cuda.has_context:
            fault = "cudaError 201: invalid device context"
        else:
            header = json.loads(data[len(_MAGIC) : data.index(b"\n", len(_MAGIC))])
            if header["version_compatible"] and not self.engine_host_code_allowed:
                fault = "Version forward compatible engine needs host code, which is not allowed"
            elif header["version"] != __version__ and not header["version_compatible"]:
                fault = f"The engine plan file was built with {header['version']}: version mismatch"
            elif header["capability"] != self._cuda.capability and header["hardware"] != "AMPERE_PLUS":
                fault = "The engine plan file is not compatible with this compute capability"
        if fault is not None:
            self._logger.log(ILogger.Severity.ERROR, f"IRuntime::deserializeCudaEngine: Error Code 1: {fault}")
            return None
        if os.environ.get("STAND_IN_LOG"):
            with Path(os.environ["STAND_IN_LOG"]).open("a") as file:
                file.write(f"loaded {hashlib.sha256(data).hexdigest()}\n")
        return ICudaEngine(header, data[data.index(b"\n", len(_MAGIC)) + 1 :], self._cuda, self._logger)


class ICudaEngine:
    def __init__(self, header: dict[str, Any], model: bytes, cuda: _Cuda, logger: ILogger) -> None:
        import onnx
        import onnxruntime

        self.header, self.cuda, self.logger = header, cuda, logger
        self._network = INetworkDefinition(1)
        self._network.fill(onnx.load_from_string(model))
        self._inputs = [self._network.get_input(index) for index in range(self._network.num_inputs)]
        self._outputs = [self._network.get_output(index) for index in range(self._network.num_outputs)]
        self._tensors = {tensor.name: tensor for tensor in (*self._inputs, *self._outputs)}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def device_memory_size_v2(self) -> int:
        return _scratch_bytes()

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if name in self.input_names else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self._tensors[name].dtype

    def get_tensor_location(self, name: str) -> Any:
        return TensorLocation.DEVICE

    def is_shape_inference_io(self, name: str) -> bool:
        return False

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self.header["ranges"][name]]

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self.header["layers"])

    def create_execution_context(self) -> IExecutionContext | None:
        return None if _failing("context", self.logger) else IExecutionContext(self)

    @property
    def input_names(self) -> list[str]:
        return [tensor.name for tensor in self._inputs]

    @property
    def output_names(self) -> list[str]:
        return [tensor.name for tensor in self._outputs]


class EngineInspector:
    def __init__(self, layers: list[Any]) -> None:
        self._layers = layers

    def get_engine_information(self, format: Any) -> str:  # noqa: A002 - the vendor's name
        assert format == LayerInformationFormat.JSON
        return json.dumps({"Layers": self._layers, "Bindings": []})


_NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.UINT8: np.uint8,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.BOOL: np.bool_,
}
_callbacks: list[Any] = []
"""Kept for ever: a CUDA graph calls them again."""


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: Any) -> bool:
        ranges = self._engine.header["ranges"].get(name)
        known = self._engine.get_tensor_shape(name)
        low, high = (ranges[0], ranges[2]) if ranges else (known, known)
        if len(shape) != len(low) or any(not a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Runs the model once on zeros: simple, and right for every operator."""
        if name in self._shapes:
            return self._shapes[name]
        engine = self._engine
        feeds = {key: np.zeros(shape, _NUMPY[engine.get_tensor_dtype(key)]) for key, shape in self._shapes.items()}
        if os.environ.get("STAND_IN_FAIL") == "shape:data":
            return tuple(-1 for _ in engine.get_tensor_shape(name))
        return tuple(engine.session.run([name], feeds)[0].shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return not _failing("capture", self._engine.logger)

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = self._engine
        names = [*engine.input_names, *engine.output_names]
        if _failing("enqueue", engine.logger) or any(not self._addresses.get(name) for name in names):
            return False
        shapes, addresses = dict(self._shapes), dict(self._addresses)

        def compute(_: Any) -> None:
            feeds = {}
            for name in engine.input_names:
                dtype = np.dtype(_NUMPY[engine.get_tensor_dtype(name)])
                size_bytes = int(np.prod(shapes[name])) * dtype.itemsize
                feeds[name] = np.frombuffer(ctypes.string_at(addresses[name], size_bytes), dtype).reshape(shapes[name])
            for name, value in zip(engine.output_names, engine.session.run(engine.output_names, feeds), strict=True):
                data = np.ascontiguousarray(value)
                ctypes.memmove(addresses[name], data.ctypes.data, data.nbytes)

        callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compute)
        _callbacks.append(callback)
        launch = engine.cuda.library.cuLaunchHostFunc
        launch.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        return launch(stream_handle, ctypes.cast(callback, ctypes.c_void_p), None) == 0


def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
    return True


def install(folder: Path) -> Path:
    """Puts this module and its metadata where a child process with that folder on PYTHONPATH finds them."""
    information = folder / f"tensorrt-{__version__}.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {__version__}\n")
    (folder / "tensorrt.py").write_text(Path(__file__).read_text())
    return folder


if __name__ == "__main__":
    install(Path(sys.argv[1]))
