"""What of an ONNX model is quantized already: activations by scales of its own, and weights stored as integers.

The TFLite converter loads this room in an environment of its own: it needs onnx and nothing else of the project.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.core.onnx.facts import is_quantized_operator, read_attribute
from modelwright.core.onnx.walk import find_subgraphs, iterate_graphs

_FLOATS = frozenset({1, 10, 11, 16})
"""onnx.TensorProto: FLOAT, FLOAT16, DOUBLE, BFLOAT16."""
_SMALL = frozenset({2, 3, 17, 18, 19, 20, 21, 22, 23, 25, 26})
"""UINT8, INT8, the types of 8 bits and less that are floats, and UINT4, INT4, FLOAT4, UINT2, INT2."""
_BYTE, _BIAS = 2, 6
"""UINT8 and INT32."""
OWN_SCALES = "the model's own scales"
"""The `method` of a recipe that quantizes nothing."""
_PAIR = ("QuantizeLinear", "DequantizeLinear")
_SCALES = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
    "MatMulNBits": (2,),
    "GatherBlockQuantized": (2,),
}
"""Operator -> the inputs that are scales, which are no parameters of the model."""


@dataclass(frozen=True, kw_only=True)
class OwnScales:
    """How a model's activations are quantized by the model itself.

    Attributes:
        activations: Tensors that a QuantizeLinear rounds as the model runs.
        operators: Kinds of operators that compute with integers, without a pair around them.
    """

    activations: int
    operators: tuple[str, ...]

    @property
    def are_fixed(self) -> bool:
        """Whether scales are part of the model; else it takes them as it runs."""
        return self.activations > 0

    def describe(self) -> str:
        """Returns for instance `it rounds 38 activations by QuantizeLinear`."""
        pairs = f"it rounds {self.activations} activations by QuantizeLinear" if self.activations else ""
        integers = f"it computes in {', '.join(self.operators[:3])}" if self.operators else ""
        return " and ".join(filter(None, (pairs, integers)))


def find_own_scales(model: Any) -> OwnScales | None:
    """Returns how a model quantizes its own activations; None where it computes in floats, whatever its weights are.

    Args:
        model: Its large weights need not be there.
    """
    activations, operators = 0, set[str]()
    pending = [(graph, frozenset[str]()) for graph in (model.graph, *model.functions)]
    while pending:
        graph, around = pending.pop()
        constants = frozenset(find_constants(graph, around))
        for node in graph.node:
            pending += [(inner, constants) for inner in find_subgraphs(node)]
            if node.op_type == "QuantizeLinear":
                activations += node.input[0] not in constants
            elif node.op_type not in _PAIR and is_quantized_operator(node.op_type) and not _stores_weights(node):
                operators.add(node.op_type)
    return OwnScales(activations=activations, operators=tuple(sorted(operators))) if activations or operators else None


def count_parameters(model: Any) -> int:
    """Returns the number of the model's weights: elements of constants that are floats, or stand for floats.

    Integers count where an operator scales them, packed ones by the size of their matrix; scales do not.
    """
    graphs = list(iterate_graphs(model))
    constants = {name: tensor for graph in graphs for name, tensor in _find_tensors(graph)}
    scales, integers, packed = set[str](), set[str](), 0
    for node in (node for graph in graphs for node in graph.node if is_quantized_operator(node.op_type)):
        scales.update(node.input[place] for place in _SCALES.get(node.op_type, ()) if place < len(node.input))
        if _stores_weights(node):
            packed += _count_packed(node, constants)
            continue
        values = node.input[:1] if node.op_type in _PAIR else node.input
        integers.update(name for name in values if name in constants and _stands_for_floats(node, constants[name]))
    named = sum(
        math.prod(tensor.dims)
        for graph in graphs
        for name, tensor in _find_tensors(graph)
        if name in integers or (tensor.data_type in _FLOATS and name not in scales)
    )
    inner = sum(math.prod(tensor.dims) for graph in graphs for tensor in _iterate_unnamed(graph))
    return packed + int(named) + int(inner)


def _stands_for_floats(node: Any, tensor: Any) -> bool:
    """Whether integers are weights or biases, and no zero point, of which there is one a tensor or a channel."""
    if node.op_type in _PAIR:
        return tensor.data_type in _SMALL or tensor.data_type == _BIAS
    return tensor.data_type == _BIAS or (tensor.data_type in _SMALL and len(tensor.dims) > 1)


def _stores_weights(node: Any) -> bool:
    """Whether an operator computes in floats, with a matrix or a table that is packed."""
    return any(word in node.op_type for word in ("NBits", "Bnb4", "FpQ4", "BlockQuantized"))


def _count_packed(node: Any, constants: Mapping[str, Any]) -> int:
    """Returns the elements of a packed matrix, whose sizes the node names, or of a table, whose bytes may hold two."""
    if node.op_type != "GatherBlockQuantized":
        return int(read_attribute(node, "K", 0)) * int(read_attribute(node, "N", 0))
    table = constants.get(node.input[0])
    if table is None:
        return 0
    each = 8 // int(read_attribute(node, "bits", 4)) if table.data_type == _BYTE else 1
    return each * int(math.prod(table.dims))


def _find_tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yields the constants of a graph that have a name: initializers, and what Constant nodes hold."""
    for tensor in getattr(graph, "initializer", ()):
        yield tensor.name, tensor
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield sparse.values.name, sparse.values
    for node in graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], attribute.t) for attribute in node.attribute if attribute.HasField("t"))


def _iterate_unnamed(graph: Any) -> Iterator[Any]:
    """Yields tensors of floats in attributes of other nodes than constants."""
    for node in graph.node:
        for attribute in node.attribute:
            found = [attribute.sparse_tensor.values] if attribute.HasField("sparse_tensor") else []
            found += [attribute.t] if attribute.HasField("t") and node.op_type != "Constant" else []
            yield from (tensor for tensor in (*found, *attribute.tensors) if tensor.data_type in _FLOATS)


def find_constants(graph: Any, around: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yields the names of what is the same at every inference: constants, and what is computed of nothing else.

    Args:
        graph: A graph or a function.
        around: Such names of the graph that it is in, which it sees where it has no input of that name.
    """
    given = {value if isinstance(value, str) else value.name for value in graph.input}
    known = {name for name, _ in _find_tensors(graph)} | (around - given)
    yield from known
    for node in graph.node:  # in an order in which every node comes after what it reads
        if node.input and all(name in known for name in node.input if name):
            known.update(node.output)
            yield from node.output
