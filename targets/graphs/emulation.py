"""Graphs in which ONNX Runtime on a CPU rounds to float16 where a GPU does.

Its CPU has no float16 kernels: it computes in float32 and, between two such nodes, drops the casts to float16 and back.
An overflow, which is what float16 fails by, would stay unseen.
"""

from __future__ import annotations

from typing import Any

from modelwright.targets.graphs.dtypes import infer_types, read_ir
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
    ir = require_import("onnx_ir", "modelopt")
    rounded = read_ir(model)
    axes = ir.Value(name="rounding_axes", const_value=ir.tensor([0], dtype=ir.DataType.INT64, name="rounding_axes"))
    rounded.graph.register_initializer(axes)
    for node, typed in zip(list(rounded.graph.all_nodes()), infer_types(model).graph.all_nodes(), strict=True):
        for value, seen in zip(node.outputs, typed.outputs, strict=True):
            if seen.dtype == ir.DataType.FLOAT16 and node.op_type not in _EXACT_OPERATORS:
                _round_value(value, axes, ir)
    return ir.to_proto(rounded)


def _round_value(value: Any, axes: Any, ir: Any) -> None:
    """Puts the two operators behind a tensor; what they make takes its name, type, shape and readers."""
    unsqueeze = ir.node("Unsqueeze", [value, axes])
    squeeze = ir.node("Squeeze", [unsqueeze.outputs[0], axes])
    rounded = squeeze.outputs[0]
    rounded.type, rounded.shape = value.type, value.shape
    ir.convenience.replace_all_uses_with(value, rounded, replace_graph_outputs=True)
    unsqueeze.replace_input_with(0, value)
    name = value.name
    value.name, unsqueeze.outputs[0].name, rounded.name = f"{name}_exact", f"{name}_half", name
    maker = value.producer()
    maker.graph.insert_after(maker, [unsqueeze, squeeze])
