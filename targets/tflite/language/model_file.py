"""Writes a `.tflite` file whose weights go to disk at once, so that memory holds one matrix at a time.

The values of constants lie behind the flatbuffer, which names their places: several graphs share them, and a file may
be larger than the 2 GB that a flatbuffer can be.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from modelwright.targets.readiness import require_import

SCHEMA_VERSION = 3
_IDENTIFIER = b"TFL3"
_LAST_SHORT_CODE = 127
"""Of operators: later ones say so in the field that was there first."""
_ALIGNMENT_BYTES = 4096
"""Of the values of a constant: where the system maps a file in pages, the kernels read them in place."""
_INSIDE_BYTES = 64
"""Constants up to here lie in the flatbuffer itself."""
_WRITTEN_BYTES = 2**24
"""At a time: a matrix that is stored the other way round is copied by so much."""
_EXTRA = "tflite-run"


@dataclass(frozen=True, kw_only=True)
class Scales:
    """What the integers of a matrix [columns, rows] are multiplied with.

    Attributes:
        values: float32 [columns], or [columns, blocks] with a scale for every few rows.
        block_size: Rows that share a scale; None for all of a column.
    """

    values: npt.NDArray[np.float32]
    block_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Constant:
    """What a constant holds.

    Attributes:
        values: As they lie in the file.
        shape: Of what they stand for.
        kind: Of that: `FLOAT32`, `INT4`.
        scales: Of integers that stand for floats.
    """

    values: npt.NDArray[Any]
    shape: tuple[int, ...]
    kind: str
    scales: Scales | None = None

    @classmethod
    def of(cls, values: npt.NDArray[Any], scales: Scales | None = None) -> Constant:
        """Returns a constant that is stored as it is."""
        return cls(values=values, shape=values.shape, kind=values.dtype.name.upper(), scales=scales)


@dataclass(frozen=True, kw_only=True)
class _Stored:
    place: int
    shape: tuple[int, ...]
    kind: str
    scales: Scales | None


@dataclass(frozen=True, kw_only=True)
class Value:
    """A tensor of a graph.

    Attributes:
        index: In the graph.
        shape: Its dimensions; -1 for the one that is known when it runs.
    """

    index: int
    shape: tuple[int, ...]


class ModelFile:
    """A file that is being written. A context manager: a file of weights lies beside it meanwhile.

    Args:
        path: To write.
    """

    def __init__(self, path: Path) -> None:
        self.schema = require_import("ai_edge_litert.schema_py_generated", _EXTRA)
        self._flatbuffers = require_import("flatbuffers", _EXTRA)
        self._path, self._weights_path = path, path.with_name(f"{path.name}.weights")
        empty = self.schema.BufferT()  # which tensors without values name
        self._buffers: list[Any] = [empty]
        self._stored: dict[str, _Stored] = {}
        self._codes: dict[int, int] = {}
        self.graphs: list[GraphWriter] = []

    def __enter__(self) -> Self:
        self._weights = self._weights_path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._weights.close()
        self._weights_path.unlink(missing_ok=True)

    def add_graph(self, name: str) -> GraphWriter:
        """Begins another graph, which is run by its name; the first one is the file's main graph."""
        self.graphs.append(GraphWriter(self, name))
        return self.graphs[-1]

    def store(self, name: str, make: Callable[[], Constant]) -> _Stored:
        """Writes a constant, once under a name, and returns where it is.

        Args:
            name: Of the constant.
            make: Gives it; not called where it is written already.
        """
        if name not in self._stored:
            constant = make()
            self._stored[name] = _Stored(
                place=len(self._buffers), shape=constant.shape, kind=constant.kind, scales=constant.scales
            )
            self._buffers.append(self._write(constant.values))
        return self._stored[name]

    def _write(self, values: npt.NDArray[Any]) -> Any:
        buffer = self.schema.BufferT()
        if values.nbytes <= _INSIDE_BYTES:
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            return buffer
        self._weights.seek(-self._weights.tell() % _ALIGNMENT_BYTES, 1)
        buffer.offset, buffer.size = self._weights.tell(), values.nbytes
        rows = max(1, _WRITTEN_BYTES // values[:1].nbytes)
        for start in range(0, len(values), rows):
            self._weights.write(np.ascontiguousarray(values[start : start + rows]).data)
        return buffer

    def get_code(self, operator: str) -> int:
        """Returns the place of an operator in the list of those that the file uses."""
        return self._codes.setdefault(getattr(self.schema.BuiltinOperator, operator), len(self._codes))

    def finish(self) -> None:
        """Writes the file."""
        model = self.schema.ModelT()
        model.version, model.description = SCHEMA_VERSION, "modelwright"
        model.operatorCodes = [self._describe_code(code) for code in self._codes]
        model.buffers = self._buffers
        model.subgraphs = [graph.describe() for graph in self.graphs]
        model.signatureDefs = [graph.describe_signature(index) for index, graph in enumerate(self.graphs)]
        apart = [buffer for buffer in self._buffers if buffer.size]
        # Places in the file are known when its first part has a length; numbers that are not 0 all take the same room.
        length = len(self._pack(model, _ALIGNMENT_BYTES, apart))
        start = -(-length // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        packed = self._pack(model, start - _ALIGNMENT_BYTES, apart)
        self._weights.flush()
        with self._path.open("wb") as file, self._weights_path.open("rb") as weights:
            file.write(packed)
            file.seek(start)
            shutil.copyfileobj(weights, file, 2**24)

    def _pack(self, model: Any, shift: int, apart: Sequence[Any]) -> bytearray:
        for buffer in apart:
            buffer.offset += shift
        builder = self._flatbuffers.Builder(2**16)
        builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
        packed: bytearray = builder.Output()
        return packed

    def _describe_code(self, code: int) -> Any:
        described = self.schema.OperatorCodeT()
        described.builtinCode = code
        described.deprecatedBuiltinCode = min(code, _LAST_SHORT_CODE)
        return described


class GraphWriter:
    """One graph of a file.

    Args:
        file: That it becomes part of.
        name: By which it is run.
    """

    def __init__(self, file: ModelFile, name: str) -> None:
        self._file, self._schema, self._name = file, file.schema, name
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._inputs: dict[str, int] = {}
        self._outputs: dict[str, int] = {}
        self._constants: dict[str, Value] = {}

    def add_input(self, name: str, shape: Sequence[int], kind: str = "FLOAT32") -> Value:
        """Adds an input; a size of -1 is chosen when it runs."""
        value = self._add_tensor(name, shape, kind)
        self._inputs[name] = value.index
        return value

    def add_output(self, name: str, value: Value) -> None:
        """Gives a value out."""
        self._outputs[name] = value.index

    def add_constant(self, name: str, make: Callable[[], Constant]) -> Value:
        """Adds a constant; those of one name are one, in all graphs of the file.

        Args:
            name: Of the constant.
            make: Gives it; not called where it is written already.
        """
        if name not in self._constants:
            stored = self._file.store(name, make)
            value = self._constants[name] = self._add_tensor(name, stored.shape, stored.kind, stored.place)
            if stored.scales is not None:
                self._tensors[value.index].quantization = self._describe_scales(name, stored.scales)
        return self._constants[name]

    def add_numbers(self, numbers: npt.ArrayLike, kind: type[np.generic]) -> Value:
        """Adds a small constant that is called by its values."""
        values = np.asarray(numbers, kind)
        return self.add_constant(f"{values.dtype} {values.tolist()}", lambda: Constant.of(values))

    def add(
        self,
        operator: str,
        inputs: Sequence[Value],
        shape: Sequence[int],
        name: str,
        options: str | None = None,
        **fields: Any,
    ) -> Value:
        """Adds an operator of one output, and returns that.

        Args:
            operator: As the schema calls it: `BATCH_MATMUL`.
            inputs: In its order.
            shape: Of its output.
            name: Of its output.
            options: Name of the table of its options in the schema, such as `BatchMatMulOptions`.
            **fields: The options that differ from their defaults.
        """
        return self.add_many(operator, inputs, [shape], name, options, **fields)[0]

    def add_many(
        self,
        operator: str,
        inputs: Sequence[Value],
        shapes: Sequence[Sequence[int]],
        name: str,
        options: str | None = None,
        **fields: Any,
    ) -> list[Value]:
        """Adds an operator of several outputs, and returns them. See `add`."""
        made = self._schema.OperatorT()
        made.opcodeIndex = self._file.get_code(operator)
        made.inputs = [value.index for value in inputs]
        names = [name] if len(shapes) == 1 else [f"{name}.{number}" for number in range(len(shapes))]
        outputs = [self._add_tensor(each, shape, "FLOAT32") for each, shape in zip(names, shapes, strict=True)]
        made.outputs = [value.index for value in outputs]
        if options is not None:
            made.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
            made.builtinOptions = getattr(self._schema, f"{options}T")(**fields)
        self._operators.append(made)
        return outputs

    def describe(self) -> Any:
        """Returns the graph as the schema has it."""
        described = self._schema.SubGraphT()
        described.name = self._name
        described.tensors, described.operators = self._tensors, self._operators
        described.inputs, described.outputs = list(self._inputs.values()), list(self._outputs.values())
        return described

    def describe_signature(self, index: int) -> Any:
        """Returns the names of its inputs and outputs as the schema has them.

        Args:
            index: Of the graph in the file.
        """
        described = self._schema.SignatureDefT()
        described.signatureKey, described.subgraphIndex = self._name, index
        described.inputs, described.outputs = self._map(self._inputs), self._map(self._outputs)
        return described

    def _map(self, names: Mapping[str, int]) -> list[Any]:
        return [self._schema.TensorMapT(name=name, tensorIndex=index) for name, index in names.items()]

    def _add_tensor(self, name: str, shape: Sequence[int], kind: str, place: int = 0) -> Value:
        tensor = self._schema.TensorT()
        tensor.name, tensor.buffer, tensor.hasRank = name, place, True
        tensor.type = getattr(self._schema.TensorType, kind)
        tensor.shape = [max(1, size) for size in shape]
        if -1 in shape:
            tensor.shapeSignature = list(shape)
        self._tensors.append(tensor)
        return Value(index=len(self._tensors) - 1, shape=tuple(shape))

    def _describe_scales(self, name: str, scales: Scales) -> Any:
        described = self._schema.QuantizationParametersT()
        if scales.block_size is None:
            described.scale = scales.values
            described.zeroPoint = np.zeros(scales.values.size, np.int64)
            return described
        halves = scales.values.astype(np.float16)
        stored = self.add_constant(f"{name}.scales", lambda: Constant.of(halves))
        described.detailsType = self._schema.QuantizationDetails.BlockwiseQuantization
        described.details = self._schema.BlockwiseQuantizationT(
            scales=stored.index, zeroPoints=-1, blockSize=scales.block_size
        )
        return described
