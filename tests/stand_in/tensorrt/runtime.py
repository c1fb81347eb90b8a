"""Engines that are loaded, their inspector, and the contexts that run them."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .network import INetworkDefinition
from .types import (
    MAGIC,
    NUMPY,
    VERSION,
    Cuda,
    ILogger,
    LayerInformationFormat,
    TensorIOMode,
    TensorLocation,
    is_failing,
    scratch_bytes,
    start_cuda,
)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._cuda = start_cuda(logger)
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if is_failing("deserialize", self._logger):
            return None
        data = bytes(serialized_engine)
        fault = None
        if not data.startswith(MAGIC):
            fault = "Serialization assertion magic tag does not match failed."
        elif not self._cuda.has_context:
            fault = "cudaError 201: invalid device context"
        else:
            header = json.loads(data[len(MAGIC) : data.index(b"\n", len(MAGIC))])
            if header["version_compatible"] and not self.engine_host_code_allowed:
                fault = "Version forward compatible engine needs host code, which is not allowed"
            elif header["version"] != VERSION and not header["version_compatible"]:
                fault = f"The engine plan file was built with {header['version']}: version mismatch"
            elif header["capability"] != self._cuda.capability and header["hardware"] != "AMPERE_PLUS":
                fault = "The engine plan file is not compatible with this compute capability"
        if fault is not None:
            self._logger.log(ILogger.Severity.ERROR, f"IRuntime::deserializeCudaEngine: Error Code 1: {fault}")
            return None
        if os.environ.get("STAND_IN_LOG"):
            with Path(os.environ["STAND_IN_LOG"]).open("a") as file:
                file.write(f"loaded {hashlib.sha256(data).hexdigest()}\n")
        return ICudaEngine(header, data[data.index(b"\n", len(MAGIC)) + 1 :], self._cuda, self._logger)


class ICudaEngine:
    def __init__(self, header: dict[str, Any], model: bytes, cuda: Cuda, logger: ILogger) -> None:
        import onnx
        import onnxruntime

        self.header, self.cuda, self.logger = header, cuda, logger
        self.network = INetworkDefinition(1)
        self.network.fill(onnx.load_from_string(model))
        self._inputs = [self.network.get_input(index) for index in range(self.network.num_inputs)]
        self._outputs = [self.network.get_output(index) for index in range(self.network.num_outputs)]
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
        return scratch_bytes()

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
        return None if is_failing("context", self.logger) else IExecutionContext(self)

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


_callbacks: list[Any] = []
"""Kept for ever: a CUDA graph calls them again."""


class IProfiler:
    """What a program derives its own from."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class IExecutionContext:
    profiler: IProfiler | None = None

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
        feeds = {key: np.zeros(shape, NUMPY[engine.get_tensor_dtype(key)]) for key, shape in self._shapes.items()}
        if name in self._engine.network.list_data_dependent():
            return tuple(-1 for _ in engine.get_tensor_shape(name))
        return tuple(engine.session.run([name], feeds)[0].shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return not is_failing("capture", self._engine.logger)

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = self._engine
        names = [*engine.input_names, *engine.output_names]
        if is_failing("enqueue", engine.logger) or any(not self._addresses.get(name) for name in names):
            return False
        shapes, addresses = dict(self._shapes), dict(self._addresses)

        def compute(_: Any) -> None:
            feeds = {}
            for name in engine.input_names:
                dtype = np.dtype(NUMPY[engine.get_tensor_dtype(name)])
                size_bytes = int(np.prod(shapes[name])) * dtype.itemsize
                feeds[name] = np.frombuffer(ctypes.string_at(addresses[name], size_bytes), dtype).reshape(shapes[name])
            for name, value in zip(engine.output_names, engine.session.run(engine.output_names, feeds), strict=True):
                data = np.ascontiguousarray(value)
                ctypes.memmove(addresses[name], data.ctypes.data, data.nbytes)

        callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compute)
        _callbacks.append(callback)
        launch = engine.cuda.library.cuLaunchHostFunc
        launch.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        for number, layer in enumerate(engine.header["layers"], start=1):
            if self.profiler is not None:
                self.profiler.report_layer_time(layer["Name"], 0.01 * number)
        return launch(stream_handle, ctypes.cast(callback, ctypes.c_void_p), None) == 0
