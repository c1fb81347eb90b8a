"""Writes an ONNX graph whose large weights go to a file beside it at once, so that memory holds one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from modelwright.targets.graphs.files import load_model
from modelwright.targets.graphs.rewrite import MICROSOFT_DOMAIN, keep_needed
from modelwright.targets.language.contract import StoredTensor
from modelwright.targets.readiness import require_import

_STORED_APART_BYTES = 1024
_PAGE_BYTES = 4096
"""ONNX Runtime maps weights that start on a page."""
_WRITTEN_BYTES = 2**24


class GraphFile:
    """A graph that is being written. A context manager: the file of weights is open meanwhile.

    Args:
        path: Of the graph; weights go to `NAME.data` beside it.
        source: The model that it is made from: its opset stays.

    Attributes:
        nodes: So far, in order.
    """

    def __init__(self, path: Path, source: Any) -> None:
        self._onnx = require_import("onnx", "onnx")
        self._path, self._source = path, source
        self._weights = path.with_name(f"{path.name}.data")
        self._constants: dict[str, Any] = {}
        self.nodes: list[Any] = []

    def __enter__(self) -> Self:
        self._file = self._weights.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add_constant(self, name: str, values: npt.NDArray[Any]) -> str:
        """Stores an initializer, once, and returns its name."""
        if name in self._constants:
            return name
        tensor = self._onnx.TensorProto(
            name=name, data_type=self._onnx.helper.np_dtype_to_tensor_dtype(values.dtype), dims=values.shape
        )
        if values.nbytes < _STORED_APART_BYTES:
            tensor.raw_data = values.tobytes()
        else:
            self._file.seek(-self._file.tell() % _PAGE_BYTES, 1)
            tensor.data_location = self._onnx.TensorProto.EXTERNAL
            facts = {"location": self._weights.name, "offset": self._file.tell(), "length": values.nbytes}
            for key, fact in facts.items():
                tensor.external_data.add(key=key, value=str(fact))
            rows = max(1, _WRITTEN_BYTES // max(1, values[:1].nbytes))
            for start in range(0, len(values), rows):
                self._file.write(np.ascontiguousarray(values[start : start + rows]).data)
        self._constants[name] = tensor
        return name

    def add_twin(self, name: str, of: str, shape: Sequence[int]) -> str:
        """Adds an initializer with the values of another one, which lie in the file once, and returns its name.

        Each is mapped by itself: where a product keeps its matrix in an order of its own, what was mapped for it is let
        go of, and a node that looks up rows of the twin takes memory for these rows only.
        """
        if name in self._constants:
            return name
        tensor = self._onnx.TensorProto()
        tensor.CopyFrom(self._constants[of])
        tensor.name = name
        tensor.dims[:] = shape
        self._constants[name] = tensor
        return name

    def has_constant(self, name: str) -> bool:
        """Whether an initializer is stored already."""
        return name in self._constants

    def add_integers(self, *values: int) -> str:
        """Stores whole numbers as a constant with one dimension."""
        return self.add_constant("integers_" + "_".join(map(str, values)), np.array(values, np.int64))

    def add_node(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: Any
    ) -> str:
        """Adds a node of ONNX, and returns its first output."""
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return outputs[0]

    def add_fused(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: Any
    ) -> str:
        """Adds a node of ONNX Runtime's own operators, and returns its first output."""
        return self.add_node(operator, inputs, outputs, name, domain=MICROSOFT_DOMAIN, **attributes)

    def finish(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Writes the graph, without the nodes that nothing reads.

        Args:
            inputs: `ValueInfoProto` of all that may be fed; those that no node reads are left out.
            outputs: `ValueInfoProto` of what it gives.
        """
        nodes, read = keep_needed(self.nodes, {value.name for value in outputs})
        graph = self._onnx.helper.make_graph(
            nodes,
            self._source.graph.name,
            [value for value in inputs if value.name in read],
            outputs,
            initializer=[tensor for name, tensor in self._constants.items() if name in read],
        )
        opsets = [*self._source.opset_import, self._onnx.helper.make_opsetid(MICROSOFT_DOMAIN, 1)]
        model = self._onnx.helper.make_model(
            graph, opset_imports=opsets, ir_version=self._source.ir_version, producer_name="modelwright"
        )
        self._path.write_bytes(model.SerializeToString())


def list_tensors(path: Path) -> Iterator[StoredTensor]:
    """Yields the initializers of a graph, whose weights lie in it or in a file beside it; one of those in one place."""
    seen: set[tuple[str, ...]] = set()
    for tensor in load_model(path, weights=False).graph.initializer:
        facts = {entry.key: entry.value for entry in tensor.external_data}
        place = (facts["location"], facts["offset"]) if facts else (tensor.name,)
        if place in seen:
            continue
        seen.add(place)
        inline = len(tensor.raw_data) or tensor.ByteSize()
        yield StoredTensor(name=tensor.name, size_bytes=int(facts["length"]) if facts else inline)
