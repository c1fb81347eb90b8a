"""Execution contexts of TensorRT: inputs and outputs of an engine, their memory, the enqueuing of one inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError
from modelwright.core.nvidia.cuda import CudaDevice, CudaGraph, DeviceBuffer, PinnedBuffer, Stream
from modelwright.core.records.shapes import ShapeRange
from modelwright.core.records.signature import Signature
from modelwright.targets.contract import Array, Computation
from modelwright.targets.tensorrt.engine import DTYPES

Shapes = Mapping[str, tuple[int, ...]]
"""Input name -> shape, batch dimension included."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output of an engine.

    Attributes:
        name: As in the ONNX model.
        dtype: numpy's.
        shapes: The range that an input may have; None for an output.
    """

    name: str
    dtype: np.dtype[Any]
    shapes: ShapeRange | None


def read_ports(trt: Any, engine: Any, signature: Signature) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Returns an engine's inputs and outputs, which must be those of the model.

    Raises:
        MeasurementInvalidError: An input decides shapes, a type has no counterpart in numpy, or a port is missing.
    """
    inputs: dict[str, Port] = {}
    outputs: dict[str, Port] = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        kind = engine.get_tensor_dtype(name).name
        if kind not in DTYPES:
            raise MeasurementInvalidError(f"{name} is of TensorRT's type {kind}, which cannot be handed over")
        if engine.is_shape_inference_io(name) or engine.get_tensor_location(name) == trt.TensorLocation.HOST:
            raise MeasurementInvalidError(
                f"the values of {name} decide shapes inside the engine: it cannot be run here"
            )
        port = Port(name=name, dtype=np.dtype(DTYPES[kind]), shapes=_read_range(engine, name) if is_input else None)
        (inputs if is_input else outputs)[name] = port
    for found, specs in ((inputs, signature.inputs), (outputs, signature.outputs)):
        if found.keys() != {spec.name for spec in specs}:
            raise MeasurementInvalidError(
                f"the engine has {', '.join(found)} where the manifest's signature has "
                f"{', '.join(spec.name for spec in specs)}",
                hint="build it again",
            )
    return (
        tuple(inputs[spec.name] for spec in signature.inputs),
        tuple(outputs[spec.name] for spec in signature.outputs),
    )


def _read_range(engine: Any, name: str) -> ShapeRange:
    shape = tuple(engine.get_tensor_shape(name))
    if all(size >= 0 for size in shape):
        return ShapeRange(minimum=shape, optimum=shape, maximum=shape)
    minimum, optimum, maximum = (tuple(limit) for limit in engine.get_tensor_profile_shape(name, 0))
    return ShapeRange(minimum=minimum, optimum=optimum, maximum=maximum)


class Execution:
    """An execution context on a stream, with buffers for inputs and outputs that grow with the shapes."""

    def __init__(
        self,
        context: Any,
        stream: Stream,
        gpu: CudaDevice,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        fail: Callable[[str], ModelwrightError],
    ) -> None:
        self.stream = stream
        self.inputs: dict[str, DeviceBuffer] = {}
        self._context, self._gpu, self._fail = context, gpu, fail
        self._input_ports, self._output_ports = inputs, outputs
        self._outputs: dict[str, tuple[DeviceBuffer, PinnedBuffer]] = {}
        self._output_shapes: dict[str, tuple[int, ...]] = {}
        self._output_bytes: dict[str, int] = {}
        self._shapes: Shapes | None = None
        self._addresses: dict[str, int] = {}
        self._frozen = False

    def takes(self, shapes: Shapes) -> bool:
        """Whether it can run these shapes: any, until a CUDA graph relies on the ones that it has."""
        return not self._frozen or shapes == self._shapes

    def freeze(self) -> None:
        self._frozen = True

    def is_capturable(self) -> bool:
        """Whether TensorRT says that its work can be captured; a version that cannot tell is tried."""
        tells = getattr(self._context, "is_stream_capturable", None)
        return tells is None or bool(tells(self.stream.handle))

    def use(self, shapes: Shapes, addresses: Mapping[str, int] | None = None) -> None:
        """Sets shapes and where inputs lie, as far as they differ from what is set.

        Args:
            shapes: Of every input.
            addresses: Device pointers of the inputs; None for the buffers in `inputs`.
        """
        if shapes != self._shapes:
            self._set_shapes(shapes)
        if addresses is None:
            addresses = self._own_inputs(shapes)
        for name, pointer in addresses.items():
            self._set_address(name, pointer)

    def enqueue(self) -> None:
        """Puts one inference on the stream."""
        if not self._context.execute_async_v3(self.stream.handle):
            raise self._fail("run the engine")

    def fetch_outputs(self) -> None:
        """Puts the copies of all outputs to the host on the stream."""
        for name, (buffer, pinned) in self._outputs.items():
            self._gpu.copy_to_host(pinned, buffer, self._output_bytes[name], self.stream)

    def read_outputs(self) -> dict[str, Array]:
        """Returns copies of the outputs that were fetched last."""
        return {
            port.name: self._outputs[port.name][1]
            .array[: self._output_bytes[port.name]]
            .copy()
            .view(port.dtype)
            .reshape(self._output_shapes[port.name])
            for port in self._output_ports
        }

    def close(self) -> None:
        self._context = None
        for buffer in self.inputs.values():
            buffer.close()
        for pair in self._outputs.values():
            for memory in pair:
                memory.close()

    def _set_shapes(self, shapes: Shapes) -> None:
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise self._fail(f"set the shape of {name} to {describe_shape(shape)}")
        self._shapes = dict(shapes)
        for port in self._output_ports:
            shape = tuple(self._context.get_tensor_shape(port.name))
            if any(size < 0 for size in shape):
                raise MeasurementInvalidError(
                    f"the shape of the output {port.name} depends on the values of the inputs, not only on their "
                    "shapes: it cannot be allocated beforehand",
                    hint="cut the network before the operator that does so (NonZero, NonMaxSuppression, ...)",
                )
            self._output_shapes[port.name] = shape
            self._output_bytes[port.name] = size_bytes = int(np.prod(shape, dtype=np.int64)) * port.dtype.itemsize
            if port.name not in self._outputs or self._outputs[port.name][0].size_bytes < size_bytes:
                self._replace_output(port.name, size_bytes)

    def _replace_output(self, name: str, size_bytes: int) -> None:
        for memory in self._outputs.pop(name, ()):
            memory.close()
        self._outputs[name] = self._gpu.allocate(size_bytes), self._gpu.allocate_pinned(size_bytes)
        self._set_address(name, self._outputs[name][0].pointer)

    def _own_inputs(self, shapes: Shapes) -> dict[str, int]:
        """Returns the pointers of its own input buffers, after making them large enough."""
        for port in self._input_ports:
            size_bytes = int(np.prod(shapes[port.name], dtype=np.int64)) * port.dtype.itemsize
            buffer = self.inputs.get(port.name)
            if buffer is None or buffer.size_bytes < size_bytes:
                if buffer is not None:
                    buffer.close()
                self.inputs[port.name] = self._gpu.allocate(size_bytes)
        return {name: buffer.pointer for name, buffer in self.inputs.items()}

    def _set_address(self, name: str, pointer: int) -> None:
        if self._addresses.get(name) == pointer:
            return
        if not self._context.set_tensor_address(name, pointer):
            raise self._fail(f"take the memory of {name}")
        self._addresses[name] = pointer


class EngineComputation(Computation):
    """One inference on inputs that lie on the GPU."""

    def __init__(
        self, execution: Execution, shapes: Shapes, addresses: Mapping[str, int], graph: CudaGraph | None
    ) -> None:
        self.stream = execution.stream.handle
        self.uses_graph = graph is not None
        self._execution, self._shapes, self._addresses, self._graph = execution, shapes, addresses, graph

    def enqueue(self) -> None:
        if self._graph is not None:
            self._graph.launch(self.stream)
            return
        self._execution.use(self._shapes, self._addresses)
        self._execution.enqueue()


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A stream and the execution contexts that work on it."""

    stream: Stream
    executions: list[Execution]

    def close(self) -> None:
        for execution in self.executions:
            execution.close()
        self.stream.close()


def describe_shape(shape: Sequence[int]) -> str:
    """Returns for instance `1x3x224x224`."""
    return "x".join(map(str, shape)) or "of a scalar"
