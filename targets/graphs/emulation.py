"""Graphs in which ONNX Runtime on a CPU rounds to float16 where a GPU does.

Its CPU has no float16 kernels: it computes in float32 and, between two such nodes, drops the casts to float16 and back.
An overflow, which is what float16 fails by, would stay unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from modelwright.targets.graphs.dtypes import infer_tensor_types
from modelwright.targets.readiness import require_import

_EXACT_OPERATORS = frozenset(
    {
        "Cast", "Concat", "Constant", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity", "If", "Loop",
        "MaxPool", "Pad", "QuantizeLinear", "Relu", "Reshape", "Scan", "Slice", "Split", "Squeeze", "Tile", "Transpose",
        "Unsqueeze", "Where",
    }
)  # fmt: skip
"""Operators whose results are float16 numbers when their operands are: nothing to round."""


def round_half_results(model: Any) -> Any:
    """Returns a copy whose float16 results are rounded to float16 by ONNX Runtime as well.

    An Unsqueeze and a Squeeze behind each node do it: operators that exist in float16 on the CPU. One alone would be
    turned to float32 with its neighbours.

    Args:
        model: A graph in mixed precision at opset 13 or later.
    """
    onnx = require_import("onnx", "onnx")
    types = infer_tensor_types(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for graph in _walk(copy.graph):
        rounded = [part for node in graph.node for part in _round_node(node, types, onnx)]
        del graph.node[:]
        graph.node.extend(rounded)
    copy.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), _AXES))
    return copy


_AXES = "rounding_axes"


def _round_node(node: Any, types: dict[str, str], onnx: Any) -> Iterator[Any]:
    if node.op_type in _EXACT_OPERATORS or not any(types.get(name) == "float16" for name in node.output):
        yield node
        return
    made = onnx.NodeProto()
    made.CopyFrom(node)
    parts = [made]
    for position, name in enumerate(node.output):
        if name and types.get(name) == "float16":
            made.output[position] = f"{name}_exact"
            parts += [
                onnx.helper.make_node("Unsqueeze", [f"{name}_exact", _AXES], [f"{name}_half"]),
                onnx.helper.make_node("Squeeze", [f"{name}_half", _AXES], [name]),
            ]
    yield from parts


def _walk(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _walk(inner)
    yield graph
