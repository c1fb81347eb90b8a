"""Nodes and initializers of an ONNX graph that is written, not traced; its weights are named here, and come later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

IR_VERSION = 11
"""Of opset 23, and read by ONNX Runtime and OpenVINO."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """An initializer whose values lie in the data file.

    Attributes:
        name: In the graph; where `make` is None, in the source too.
        shape: In the graph.
        transposed: Whether the source stores it the other way round.
        plus: What is added to the source's values.
        make: Computes it; None for a weight of the source.
    """

    name: str
    shape: tuple[int, ...]
    transposed: bool = False
    plus: float = 0.0
    make: Callable[[], NDArray[np.float32]] | None = None

    @property
    def source_shape(self) -> tuple[int, ...]:
        """Its shape in the source."""
        return self.shape[::-1] if self.transposed else self.shape

    @property
    def size_bytes(self) -> int:
        """In the data file, as float32."""
        return 4 * int(np.prod(self.shape))


class GraphWriter:
    """Collects a graph; the value that a node gives is called like the node."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._weights: dict[str, Weight] = {}

    @property
    def weights(self) -> Sequence[Weight]:
        """All that lie in the data file, in the order of their use."""
        return list(self._weights.values())

    def add_input(self, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Adds an input of the graph."""
        self._inputs.append(_describe(name, dtype, shape))

    def add_output(self, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Adds an output of the graph, which a node gives."""
        self._outputs.append(_describe(name, dtype, shape))

    def add(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Adds a node with one output, and returns that."""
        return self.add_many(operator, inputs, [f"{name}.output"], name=name, **attributes)[0]

    def add_many(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        name: str | None = None,
        **attributes: Any,
    ) -> Sequence[str]:
        """Adds a node and returns its outputs."""
        import onnx

        if "to" in attributes:
            attributes["to"] = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(attributes["to"]))
        node = onnx.helper.make_node(
            operator, inputs, outputs, name=name or f"{outputs[0]}.{operator.lower()}", **attributes
        )
        self._nodes.append(node)
        return outputs

    def add_weight(self, name: str, shape: tuple[int, ...], *, transposed: bool = False, plus: float = 0.0) -> str:
        """Names a weight of the source, which is stored once however often it is used."""
        self._weights[name] = Weight(name=name, shape=shape, transposed=transposed, plus=plus)
        return name

    def add_constant(self, name: str, shape: tuple[int, ...], make: Callable[[], NDArray[np.float32]]) -> str:
        """Names a table that is computed when the data file is written."""
        self._weights[name] = Weight(name=name, shape=shape, make=make)
        return name

    def integer(self, value: int) -> str:
        """Returns a constant without dimensions."""
        return self._constant(f"integer_{value}", np.array(value, np.int64))

    def integers(self, *values: int) -> str:
        """Returns a constant with one dimension."""
        return self._constant("integers_" + "_".join(map(str, values)), np.array(values, np.int64))

    def number(self, value: float) -> str:
        """Returns a constant of float32 without dimensions."""
        return self._constant(f"number_{value!r}", np.array(value, np.float32))

    def rename(self, value: str, name: str) -> None:
        """Gives the output of the last node another name."""
        node = self._nodes[-1]
        node.output[list(node.output).index(value)] = name

    def finish(self, name: str, opset: int) -> onnx.ModelProto:
        """Returns the model; the initializers of `weights` are not in it yet."""
        import onnx

        graph = onnx.helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, initializer=list(self._constants.values())
        )
        return onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid("", opset)],
            ir_version=IR_VERSION,
            producer_name="modelwright",
        )

    def _constant(self, name: str, value: Mapping[str, Any] | NDArray[Any]) -> str:
        import onnx

        if name not in self._constants:
            self._constants[name] = onnx.numpy_helper.from_array(value, name)
        return name


def _describe(name: str, dtype: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    import onnx

    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
