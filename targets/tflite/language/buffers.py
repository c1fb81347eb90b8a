"""The inputs and outputs of a graph at some sizes: buffers of LiteRT's, seen as arrays without a copy."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import MeasurementInvalidError
from modelwright.targets.tflite.litert import load_library

_HOST_MEMORY = 1
"""Of `LiteRtTensorBufferType`."""
_READ_WRITE = 2
"""Of `LiteRtTensorBufferLockMode`."""
Shape = tuple[int, ...]


class GraphBuffers:
    """What one graph of a compiled model reads and writes.

    Args:
        compiled: The vendor's compiled model.
        graph: Name of the graph.
        inputs: Name of an input -> its shape from now on.
        outputs: Name of an output -> the shape that it has with these.
        types: Name -> type; float32 where it has none.

    Attributes:
        arrays: Name of an input or output -> its memory. An output's is valid until the next run.
    """

    def __init__(
        self,
        compiled: Any,
        graph: str,
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape],
        types: Mapping[str, npt.DTypeLike],
    ) -> None:
        self._compiled, self._graph = compiled, graph
        for name, shape in inputs.items():
            compiled.resize_input_tensor_by_name(graph, name, shape)
        self._inputs = {name: compiled.create_input_buffer_by_name(graph, name) for name in inputs}
        self._outputs = {name: compiled.create_output_buffer_by_name(graph, name) for name in outputs}
        self.arrays = {
            name: _view(buffer, shape, np.dtype(types.get(name, np.float32)))
            for buffers, shapes in ((self._inputs, inputs), (self._outputs, outputs))
            for name, buffer in buffers.items()
            for shape in (shapes[name],)
        }

    def run(self) -> None:
        """Computes the outputs.

        Raises:
            MeasurementInvalidError: LiteRT fails, which tells no more than that.
        """
        try:
            self._compiled.run_by_name(self._graph, self._inputs, self._outputs)
        except RuntimeError as error:
            raise MeasurementInvalidError(
                f"LiteRT cannot run the graph {self._graph} of the model",
                hint="give tokens that the model knows; and where memory is short, shorter texts or fewer at once",
                detail=str(error),
            ) from error


def _view(buffer: Any, shape: Shape, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Returns the memory of a buffer as an array; the Python package can only copy whole ones."""
    library, python = load_library(), ctypes.pythonapi
    python.PyCapsule_GetName.restype, python.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    handle = ctypes.c_void_p(python.PyCapsule_GetPointer(buffer.capsule, python.PyCapsule_GetName(buffer.capsule)))
    kind, size, address = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_void_p()
    wanted_bytes = int(np.prod(shape)) * dtype.itemsize
    statuses = (
        library.LiteRtGetTensorBufferType(handle, ctypes.byref(kind)),
        library.LiteRtGetTensorBufferSize(handle, ctypes.byref(size)),
        library.LiteRtLockTensorBuffer(handle, ctypes.byref(address), _READ_WRITE),
        library.LiteRtUnlockTensorBuffer(handle),
    )
    if any(statuses) or kind.value != _HOST_MEMORY or size.value < wanted_bytes or address.value is None:
        raise MeasurementInvalidError(
            f"LiteRT gives no memory of {wanted_bytes:,} bytes for a value of shape {list(shape)}: status {statuses}, "
            f"type {kind.value}, {size.value:,} bytes",
            hint="the file is not one of this target, or LiteRT is not the one that this was tried with: install "
            "ai-edge-litert==2.3.0",
        )
    memory: Any = (ctypes.c_char * wanted_bytes).from_address(address.value)
    memory.owner = buffer  # the array keeps it alive
    array: npt.NDArray[Any] = np.frombuffer(memory, dtype).reshape(shape)
    return array
