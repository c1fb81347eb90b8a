"""INT8 graphs for ONNX Runtime as other CPUs compute them: sums of 8-bit products without saturation.

What is written for a CPU with dot products, or for Arm, is summed exactly there. A host that lacks them saturates, and
would judge arithmetic that nobody ships. It evaluates such a graph with every product in float instead: integers up to
2**24 are floats, and beyond that a sum is off by a part in 16 million.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.targets.graphs.rewrite import MICROSOFT_DOMAIN, rebuild_model
from modelwright.targets.readiness import require_import

AS_WRITTEN: Mapping[str, str] = {"session.disable_quant_qdq": "1"}
"""ONNX Runtime computes the pairs of Q/DQ as they stand, and fuses no integer kernel from them."""
_WITHOUT_FLOAT_FORM = frozenset({"DynamicQuantizeLSTM"})
"""Their 8-bit rounding inside a step has no form in standard operators."""


def write_exactly(model: Any) -> Any | None:
    """Returns a graph with the same arithmetic and no sum of integers; None where an operator has no such form.

    Args:
        model: From `quantize_static` or `quantize_dynamic`. Not changed.
    """
    onnx = require_import("onnx", "onnx")
    if any(node.op_type in _WITHOUT_FLOAT_FORM for node in model.graph.node):
        return None
    nodes: list[Any] = []
    for node in model.graph.node:
        if node.op_type == "MatMulInteger":
            nodes += _write_matmul(node, onnx)
        elif node.op_type == "MatMulIntegerToFloat" and node.domain == MICROSOFT_DOMAIN:
            nodes += _write_scaled_matmul(node, onnx)
        else:
            nodes.append(node)
    return rebuild_model(model, nodes, {})


def _write_matmul(node: Any, onnx: Any) -> list[Any]:
    """Returns the product of both operands less their zero points, in float, rounded to the integers that it is."""
    made, names = [], []
    zero_points = [*node.input[2:], "", ""]
    for side, (name, zero_point) in enumerate(zip(node.input[:2], zero_points, strict=False)):
        operand = f"{node.output[0]}_operand_{side}"
        made.append(onnx.helper.make_node("Cast", [name], [operand], to=onnx.TensorProto.FLOAT))
        if zero_point:
            made.append(onnx.helper.make_node("Cast", [zero_point], [f"{operand}_zero"], to=onnx.TensorProto.FLOAT))
            made.append(onnx.helper.make_node("Sub", [operand, f"{operand}_zero"], [f"{operand}_shifted"]))
            operand = f"{operand}_shifted"
        names.append(operand)
    product = f"{node.output[0]}_product"
    made.append(onnx.helper.make_node("MatMul", names, [product]))
    made.append(onnx.helper.make_node("Cast", [product], [node.output[0]], node.name, to=onnx.TensorProto.INT32))
    return made


def _write_scaled_matmul(node: Any, onnx: Any) -> list[Any]:
    """Returns the product of both operands in float: ONNX Runtime's operator with its scales and bias taken apart."""
    inputs = [*node.input, "", "", ""]
    output, bias = node.output[0], inputs[6]
    product = f"{output}_product" if bias else output
    operands = [f"{output}_operand_{side}" for side in (0, 1)]
    made = []
    for side, operand in enumerate(operands):
        parameters = [name for name in (inputs[side], inputs[2 + side], inputs[4 + side]) if name]
        # Its columns have a scale each; the activation has one.
        axis = {"axis": 1} if side else {}
        made.append(onnx.helper.make_node("DequantizeLinear", parameters, [operand], domain=MICROSOFT_DOMAIN, **axis))
    made.append(onnx.helper.make_node("MatMul", operands, [product], node.name))
    if bias:
        made.append(onnx.helper.make_node("Add", [product, bias], [output]))
    return made
