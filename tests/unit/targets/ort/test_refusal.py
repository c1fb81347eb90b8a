"""Why there is nothing to quantize: the true reason, and a hint that leads somewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph_models import make_model, random_array
from onnx import helper

from modelwright.targets.ort.refusal import explain_inner, refuse_unquantizable

HALF = random_array(4, 3).astype(np.float16)


def branch(name: str) -> Any:
    node = helper.make_node("MatMul", ["x", "w"], [name])
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, 1, None)])


MATMUL = [helper.make_node("MatMul", ["x", "w"], ["y"], "layer")]
SQUARED = [helper.make_node("Mul", ["w0", "w0"], ["w"]), *MATMUL]
IF = [helper.make_node("If", ["yes"], ["y"], then_branch=branch("t"), else_branch=branch("e"))]
QUANTIZED = [helper.make_node("DequantizeLinear", ["i", "s"], ["w"]), *MATMUL]
FOUR_BITS = [helper.make_node("MatMulNBits", ["x", "i", "s"], ["y"], domain="com.microsoft")]
FUSED = [helper.make_node("Attention", ["x", "w"], ["y"], domain="com.microsoft")]
TRANSPOSED = [helper.make_node("ConvTranspose", ["x", "w"], ["y"])]
INTEGERS = {"i": np.ones((4, 3), np.int8), "s": np.float32(0.1)}


@pytest.mark.parametrize(
    ("nodes", "constants", "other", "reason", "hint"),
    [
        (MATMUL, {"w": HALF}, None, "its weights are float16", "export it in float32"),
        (SQUARED, {"w0": random_array(4, 3)}, None, "are computed as it runs, not constants: MatMul layer", "ort-fp32"),
        (IF, {"yes": np.array(True), "w": random_array(4, 3)}, None, "inside If, whose branches", "ort-fp32 ships"),
        (QUANTIZED, INTEGERS, None, r"quantized already \(DequantizeLinear\)", "give the float model"),
        (FOUR_BITS, INTEGERS, None, r"quantized already \(MatMulNBits\)", "give the float model"),
        (FUSED, {"w": random_array(4, 3)}, None, "ONNX Runtime's own: Attention", "before it is optimized"),
        (TRANSPOSED, {"w": random_array(4, 3, 3)}, None, "the model has ConvTranspose", "ort-fp32 ships"),
        ([helper.make_node("Relu", ["x"], ["y"])], {}, None, "the model has no Conv, MatMul", "ort-fp32 ships"),
        (TRANSPOSED, {"w": random_array(4, 3, 3)}, "ort-int8-dynamic", "ConvTranspose", "ort-int8-dynamic quantizes"),
    ],
)
def test_the_reason_is_what_the_weights_are(
    nodes: list[Any], constants: dict[str, Any], other: str | None, reason: str, hint: str
) -> None:
    error = refuse_unquantizable(make_model(nodes, constants), "ort-int8", "Conv, MatMul or Gemm", other)
    with pytest.raises(type(error), match=reason):
        raise error
    assert error.hint is not None
    assert hint in error.hint


def test_weights_that_are_inputs_are_called_so() -> None:
    model = make_model(MATMUL, {})
    model.graph.input.append(helper.make_tensor_value_info("w", 1, [4, 3]))
    error = refuse_unquantizable(model, "ort-int8", "Conv, MatMul or Gemm", None)
    assert "the weights of its layers are inputs of the model, not constants: MatMul layer" in error.message


def test_layers_in_branches_are_said_to_stay_in_float() -> None:
    constants = {"yes": np.array(True), "w": random_array(4, 3), "v": random_array(3, 3)}
    beside = helper.make_node("MatMul", ["y", "v"], ["z"])
    (note,) = explain_inner(make_model([*IF, beside], constants))
    assert note == "layers inside If stay in float: branches and bodies are not quantized"
    assert explain_inner(make_model(MATMUL, {"w": random_array(4, 3)})) == []
