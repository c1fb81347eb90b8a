"""Who makes and who reads each tensor of a graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy.typing as npt

from modelwright.core.onnx.facts import INITIALIZERS_APART_IR, ONNX_DOMAINS
from modelwright.core.onnx.walk import read_names
from modelwright.targets.readiness import require_import

Array = npt.NDArray[Any]
_FLOAT = 1
"""`onnx.TensorProto.FLOAT`."""


@dataclass(kw_only=True)
class GraphIndex:
    """Who makes and who reads each tensor of a model's main graph. A snapshot: stale after a rewrite.

    Attributes:
        producers: Tensor name -> the node that makes it.
        consumers: Tensor name -> the nodes that read it, each once; subgraphs' reads included as their owner.
        constants: Initializer name -> its tensor; those that callers may override as inputs are left out.
        outputs: Names of the graph's outputs.
    """

    producers: dict[str, Any] = field(default_factory=dict)
    consumers: dict[str, list[Any]] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    outputs: frozenset[str] = frozenset()

    def array(self, name: str) -> Array:
        """Returns a constant's values."""
        numpy_helper = require_import("onnx.numpy_helper", "onnx")
        return cast(Array, numpy_helper.to_array(self.constants[name]))

    def is_float_constant(self, name: str) -> bool:
        return name in self.constants and self.constants[name].data_type == _FLOAT

    def sole_consumer(self, name: str) -> Any | None:
        """Returns the only reader of a tensor, None when there are more or it leaves the graph."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None


def index_graph(model: Any) -> GraphIndex:
    """Indexes a model's main graph."""
    graph = model.graph
    fed = {value.name for value in graph.input} if model.ir_version >= INITIALIZERS_APART_IR else set()
    index = GraphIndex(outputs=frozenset(value.name for value in graph.output))
    index.constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in fed}
    for node in graph.node:
        for name in node.output:
            if name:
                index.producers[name] = node
        for name in read_names(node):
            index.consumers.setdefault(name, []).append(node)
    return index


def find_weight_matmuls(model: Any, index: GraphIndex) -> Iterator[Any]:
    """Yields the MatMul and Gemm nodes whose second operand is a constant float32 matrix."""
    for node in model.graph.node:
        if node.domain in ONNX_DOMAINS and node.op_type in ("MatMul", "Gemm") and len(node.input) > 1:
            name = node.input[1]
            if index.is_float_constant(name) and len(index.constants[name].dims) == 2:
                yield node
