"""Takes out of a graph what it computes of its own sizes: exporters write a dozen nodes for every shape.

They cost a transformer on short sentences 5 % of its INT8 time in ONNX Runtime, and its own folding stops at the first
size that varies, as that of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelwright.core.onnx.facts import ONNX_DOMAINS, read_attribute
from modelwright.core.onnx.walk import read_names
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.graphs.rewrite import prune_graph
from modelwright.targets.graphs.sizes import Size, Sizes, find_sizes
from modelwright.targets.readiness import require_import


def fold_sizes(model: Any) -> int:
    """Makes constants of all integers that do not vary, and of the shapes that Reshapes ask for, in place.

    A size that varies is copied from the input (0) or left to the only place that may be (-1). An Expand to the shape
    that a tensor has already becomes an Identity.

    Args:
        model: A normalized model.

    Returns:
        How many nodes there are less.
    """
    onnx = require_import("onnx", "onnx")
    before = len(model.graph.node)
    sizes, index = find_sizes(model), index_graph(model)
    for node in model.graph.node:
        output = str(node.output[0]) if len(node.output) == 1 else ""
        values = sizes.values.get(output)
        if values is not None and _is_known(values.flat) and output not in index.outputs and sizes.types.get(output):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(sizes.types[output])
            model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(dtype), output))
            node.output[0] = f"{output}_computed"  # nothing reads it
        elif node.domain not in ONNX_DOMAINS:
            continue
        elif values is not None and (same := _find_same(node, sizes)) is not None:
            node.CopyFrom(onnx.helper.make_node("Identity", [same], [output], node.name))
        elif node.op_type == "Reshape" and node.input[1] not in index.constants:
            shape = _write_shape(node, sizes)
            if shape is not None:
                name = f"{output}_shape"
                model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, np.int64), name))
                node.input[1] = name
        elif node.op_type == "Expand" and sizes.shapes.get(output) == sizes.shapes.get(node.input[0], ()):
            node.CopyFrom(onnx.helper.make_node("Identity", [node.input[0]], [output], node.name))
    _drop_unread_nodes(model)
    prune_graph(model)
    return before - len(model.graph.node)


def _find_same(node: Any, sizes: Sizes) -> str | None:
    """Returns the input that a node's integers are those of, as where torch replaces sizes of -1 and there are none."""
    values, dtype = sizes.values[node.output[0]], sizes.types.get(node.output[0])
    alike = (name for name in node.input if name in sizes.values and sizes.types.get(name) == dtype)
    return next((str(name) for name in alike if np.array_equal(sizes.values[name], values)), None)


def _is_known(values: Any) -> bool:
    return not any(isinstance(value, str) for value in values)


def _write_shape(node: Any, sizes: Sizes) -> list[int] | None:
    """Returns a Reshape's shape as a constant; None where more than one size would be left open."""
    wanted, source = sizes.shapes.get(node.output[0]), sizes.shapes.get(node.input[0])
    if wanted is None or 0 in wanted or node.input[1] not in sizes.values or read_attribute(node, "allowzero", 0):
        return None
    shape = [_write_size(axis, size, source) for axis, size in enumerate(wanted)]
    return shape if shape.count(-1) <= 1 else None


def _write_size(axis: int, size: Size, source: Sequence[Size] | None) -> int:
    if isinstance(size, int):
        return size
    return 0 if source is not None and axis < len(source) and source[axis] == size else -1


def _drop_unread_nodes(model: Any) -> None:
    """Drops nodes whose results nothing reads, from the last one on."""
    wanted = {value.name for value in model.graph.output}
    for position in range(len(model.graph.node) - 1, -1, -1):
        node = model.graph.node[position]
        if wanted.isdisjoint(node.output):
            del model.graph.node[position]
        else:
            wanted.update(read_names(node))
