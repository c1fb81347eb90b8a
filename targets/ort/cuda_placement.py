"""Which nodes ONNX Runtime gave to the GPU and which to the CPU, and which of the latter cost something.

A node without a CUDA kernel falls back to the CPU without a word: its inputs and outputs are then copied across at
every inference. Nodes that only compute shapes are another matter: ONNX Runtime keeps them on the CPU on purpose, where
their inputs are (`GetCpuPreferredNodes` in its `fallback_cpu_capability.cc`, whose rule `find_shape_nodes` follows).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
RECORD_ENTRY = "session.record_ep_graph_assignment_info"
"""The session configuration that makes ONNX Runtime 1.24 and later remember what it assigned."""
_SHAPE_SOURCES = frozenset({"Shape", "Size"})
_SMALL_ELEMENTS = 100
"""Constants up to this size do not keep a node from the CPU; ONNX Runtime's own number."""
_INTEGER_TYPES = frozenset({2, 3, 4, 5, 6, 7, 9, 12, 13})
"""`onnx.TensorProto`: integers and booleans."""


@dataclass(frozen=True, kw_only=True)
class PlacedNode:
    """A node and the execution provider that runs it.

    Attributes:
        name: In the graph after ONNX Runtime's first optimizations; mostly as in the file.
        operator: With its domain unless that is ONNX's own: `Conv`, `com.microsoft.Gelu`.
        provider: `CUDAExecutionProvider`, ...
    """

    name: str
    operator: str
    provider: str


def name_nodes(model: Any) -> bool:
    """Gives nodes of the main graph without a name one, so that a report can name them; returns whether it did."""
    taken = {node.name for node in model.graph.node}
    changed = False
    for number, node in enumerate(model.graph.node):
        if not node.name:
            name = f"{node.op_type}_{number}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
            changed = True
    return changed


def find_shape_nodes(model: Any) -> dict[str, str]:
    """Returns the nodes that compute nothing but shapes: name -> operator.

    These are nodes whose inputs come from `Shape` or `Size` alone, small constants and integer inputs of the model
    aside.

    Args:
        model: An `onnx.ModelProto`; weights need not be loaded.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer if np.prod(tensor.dims, dtype=np.int64) <= _SMALL_ELEMENTS}
    constants |= {value.name for value in graph.input if value.type.tensor_type.elem_type in _INTEGER_TYPES} - {
        tensor.name for tensor in graph.initializer
    }
    shapes: set[str] = set()
    found: dict[str, str] = {}
    for node in graph.node:  # in topological order, as ONNX demands
        inputs = [name for name in node.input if name]
        if node.op_type == "Constant":
            constants.update(node.output)
        elif node.op_type in _SHAPE_SOURCES or (
            any(name in shapes for name in inputs) and all(name in shapes or name in constants for name in inputs)
        ):
            found[node.name] = node.op_type
            shapes.update(node.output)
    return found


def read_placement(session: Any) -> list[PlacedNode]:
    """Returns what a session assigned; it must have been created with `RECORD_ENTRY` set to `1`."""
    return [
        PlacedNode(
            name=node.name,
            operator=f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type,
            provider=subgraph.ep_name,
        )
        for subgraph in session.get_provider_graph_assignment_info()
        for node in subgraph.get_nodes()
    ]


def find_lookalikes(model: Any, shape_nodes: Mapping[str, str]) -> list[str]:
    """Returns the nodes that work on tensors with an operator that also computes shapes, as `Gather` does both."""
    operators = set(shape_nodes.values())
    return [node.name for node in model.graph.node if node.op_type in operators and node.name not in shape_nodes]


def find_fallbacks(
    nodes: Sequence[PlacedNode], shape_nodes: Mapping[str, str], lookalikes: Collection[str]
) -> list[PlacedNode]:
    """Returns the nodes on the CPU that belong on the GPU.

    Args:
        nodes: As assigned. One that ONNX Runtime made by an optimization has a name that the model does not know, and
            is taken for a shape computation where it has the operator of one.
        shape_nodes: Of `find_shape_nodes`.
        lookalikes: Of `find_lookalikes`.
    """
    operators = set(shape_nodes.values())
    return [
        node
        for node in nodes
        if node.provider == CPU_PROVIDER
        and node.name not in shape_nodes
        and (node.operator not in operators or node.name in lookalikes)
    ]


def describe_placement(nodes: Sequence[PlacedNode], fallbacks: Sequence[PlacedNode]) -> dict[str, Any]:
    """Returns counts by provider, and the nodes on the CPU: those that fell back, and the operators of the others."""
    names = {node.name for node in fallbacks}
    shapes = Counter(node.operator for node in nodes if node.provider == CPU_PROVIDER and node.name not in names)
    return {
        "nodes": dict(Counter(node.provider for node in nodes)),
        "cpu_fallback": [{"node": node.name, "operator": node.operator} for node in fallbacks],
        "shape_operators_on_cpu": dict(shapes),
    }


def word_fallbacks(fallbacks: Sequence[PlacedNode], limit: int = 5) -> str:
    """Returns for an error: `NonMaxSuppression (node nms), ... and 3 more`."""
    named = [f"{node.operator} (node {node.name or 'without a name'})" for node in fallbacks[:limit]]
    rest = len(fallbacks) - len(named)
    return ", ".join(named) + (f" and {rest} more" if rest else "")
