"""What is found in Q/DQ graphs before TensorRT is asked. Each case here was shown to its real parser once, and the
integration tests do so again for graphs that ONNX Runtime's quantizer makes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.errors import BuildFailedError
from modelwright.targets.graphs.dtypes import find_float_types, require_half
from modelwright.targets.graphs.legality import check_graph, require_legal

RNG = np.random.default_rng(0)


def make_conv(half: bool = True, **changed: Any) -> Any:
    """x -> Q/DQ -> Conv with a Q/DQ weight -> Relu -> y; `changed` replaces constants."""
    dtype: Any = np.float16 if half else np.float32
    constants = {
        "scale": np.array(0.02, dtype),
        "zero": np.int8(0),
        "weight": RNG.integers(-127, 127, (16, 8, 3, 3)).astype(np.int8),
        "weight_scale": np.full(16, 0.01, dtype),
        "weight_zero": np.zeros(16, np.int8),
        "bias": np.zeros(16, dtype),
        **changed,
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"], "q"),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"], "dq"),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["wd"], "weight_dq", axis=0),
        helper.make_node("Conv", ["xd", "wd", "bias"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 8, 12, 12])],
        [helper.make_tensor_value_info("y", kind, ["n", 16, 10, 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def find_node(model: Any, name: str) -> Any:
    return next(node for node in model.graph.node if node.name == name)


def set_axis(axis: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        find_node(model, "weight_dq").attribute[0].i = axis

    return change


def quantize_bias(model: Any) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(16, np.int32), "b"))
    node = helper.make_node("DequantizeLinear", ["b", "weight_scale"], ["bd"], "bias_dq", axis=0)
    model.graph.node.insert(3, node)
    find_node(model, "conv").input[2] = "bd"


def drop_zero_points(model: Any) -> None:
    for name in ("q", "dq"):
        del find_node(model, name).input[2:]


def name_operator(operator: str, domain: str = "") -> Callable[[Any], None]:
    def change(model: Any) -> None:
        node = find_node(model, "relu")
        node.op_type, node.domain = operator, domain

    return change


@pytest.mark.parametrize("half", [True, False])
def test_a_symmetric_int8_graph_is_legal(half: bool) -> None:
    assert check_graph(make_conv(half)) == []


def test_zero_points_may_be_absent_where_the_type_is_clear() -> None:
    model = make_conv()
    del find_node(model, "weight_dq").input[2:]
    assert check_graph(model) == []
    drop_zero_points(model)
    model.opset_import[0].version = 21
    find_node(model, "q").attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))
    assert check_graph(model) == []


@pytest.mark.parametrize(
    ("changed", "node", "problem", "cure", "effect"),
    [
        ({"zero": np.int8(3)}, "q", "zero point is not 0", "ActivationSymmetric=True", "rejected"),
        ({"weight_zero": np.full(16, 2, np.int8)}, "weight_dq", "zero point is not 0", "symmetrically", "rejected"),
        ({"zero": np.uint8(0)}, "q", "uint8", "QInt8", "misread"),
        ({"zero": np.int16(0)}, "q", "int16", "QInt8", "rejected"),
        (
            {"weight": np.zeros((16, 8, 3, 3), np.uint8), "weight_zero": np.zeros(16, np.uint8)},
            "weight_dq",
            "uint8",
            "QInt8",
            "rejected",
        ),
        ({"scale": np.float16(0)}, "q", "not positive", "small positive scale", "rejected"),
        ({"weight_scale": np.array([0, *[0.1] * 15], np.float16)}, "weight_dq", "not positive", "channels", "rejected"),
        (
            {"scale": np.full(8, 0.02, np.float16), "zero": np.zeros(8, np.int8)},
            "q",
            "activation with a scale of shape [8]",
            "one scalar scale",
            "not fused",
        ),
    ],
)
def test_faulty_constants_are_named(changed: Any, node: str, problem: str, cure: str, effect: str) -> None:
    fault = check_graph(make_conv(**changed))[0]
    assert (fault.node, fault.effect) == (node, effect)
    assert problem in fault.problem
    assert cure in fault.cure


@pytest.mark.parametrize(
    ("change", "node", "operator", "problem", "effect"),
    [
        (quantize_bias, "bias_dq", "DequantizeLinear", "quantized bias", "rejected"),
        (drop_zero_points, "q", "QuantizeLinear", "default where no zero point", "misread"),
        (set_axis(4), "weight_dq", "DequantizeLinear", "axis 4", "rejected"),
        (set_axis(2), "weight_dq", "DequantizeLinear", "16 scales for 3 channels", "rejected"),
        (name_operator("MatMulInteger"), "relu", "MatMulInteger", "no operators on integers", "rejected"),
        (name_operator("QLinearConv"), "relu", "QLinearConv", "no operators on integers", "rejected"),
        (name_operator("DynamicQuantizeLinear"), "relu", "DynamicQuantizeLinear", "integers", "rejected"),
        (name_operator("FusedMatMul", "com.microsoft"), "relu", "com.microsoft.FusedMatMul", "own", "rejected"),
    ],
)
def test_faulty_nodes_are_named(change: Any, node: str, operator: str, problem: str, effect: str) -> None:
    model = make_conv()
    change(model)
    (fault,) = check_graph(model)
    assert (fault.node, fault.operator, fault.effect) == (node, operator, effect)
    assert problem in fault.problem


@pytest.mark.parametrize(("operator", "axis", "wanted"), [("Conv", 1, 0), ("MatMul", 0, 1), ("Gemm", 0, 1)])
def test_a_weight_quantized_along_its_inputs_is_told(operator: str, axis: int, wanted: int) -> None:
    shape = (16, 16, 3, 3) if operator == "Conv" else (16, 16)
    model = make_conv(weight=np.ones(shape, np.int8))
    find_node(model, "conv").op_type = operator
    set_axis(axis)(model)
    (fault,) = check_graph(model)
    assert fault.effect == "not fused"
    assert f"output channels on axis {wanted}" in fault.problem
    set_axis(wanted)(model)
    assert check_graph(model) == []


def test_weights_may_be_quantized_in_the_graph() -> None:
    """Networks that were trained with quantization keep float weights and pairs behind them."""
    model = make_conv(weight=np.ones((16, 8, 3, 3), np.float16))
    find_node(model, "weight_dq").input[0] = "wq"
    parameters = ["weight", "weight_scale", "weight_zero"]
    model.graph.node.insert(2, helper.make_node("QuantizeLinear", parameters, ["wq"], "weight_q", axis=0))
    assert check_graph(model) == []
    find_node(model, "weight_q").attribute[0].i = 1
    (fault,) = check_graph(model)
    assert (fault.node, fault.problem) == ("weight_q", "16 scales for 8 channels")


def test_subgraphs_are_searched_and_see_the_constants_around_them() -> None:
    model = make_conv()
    inner = [
        helper.make_node("QuantizeLinear", ["y", "scale", "lopsided"], ["i"], "inner_q"),
        helper.make_node("DequantizeLinear", ["i", "scale", "lopsided"], ["z"], "inner_dq"),
    ]
    result = helper.make_tensor_value_info("z", TensorProto.FLOAT16, None)
    branch = helper.make_graph(inner, "branch", [], [result])
    node = helper.make_node("If", ["condition"], ["w"], "choice", then_branch=branch, else_branch=branch)
    model.graph.node.append(node)
    model.graph.initializer.append(numpy_helper.from_array(np.int8(7), "lopsided"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    assert [fault.node for fault in check_graph(model)] == ["choice/inner_q"] * 2, "one in each branch"


def test_a_name_that_a_branch_hides_is_not_the_constant_around_it() -> None:
    model = make_conv()
    nodes = [
        helper.make_node("Identity", ["y"], ["weight"], "hides"),
        helper.make_node("QuantizeLinear", ["weight", "weight_scale", "weight_zero"], ["i"], "inner_q", axis=0),
        helper.make_node("DequantizeLinear", ["i", "weight_scale", "weight_zero"], ["z"], "inner_dq", axis=0),
    ]
    branch = helper.make_graph(nodes, "b", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT16, None)])
    model.graph.node.append(helper.make_node("If", ["flag"], ["w"], "choice", then_branch=branch, else_branch=branch))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))
    assert {fault.problem for fault in check_graph(model)} == {"an activation with a scale of shape [16]"}


def test_functions_are_searched_and_see_nothing_around_them() -> None:
    model = make_conv()
    nodes = [
        helper.make_node("QuantizeLinear", ["a", "scale", "lopsided"], ["i"], "unknown"),
        helper.make_node("Constant", [], ["three"], value=numpy_helper.from_array(np.int8(3))),
        helper.make_node("Identity", ["three"], ["same"]),
        helper.make_node("QuantizeLinear", ["a", "scale", "same"], ["b"], "known"),
    ]
    imports = [helper.make_opsetid("", 19)]
    model.functions.append(helper.make_function("my", "Pair", ["a", "scale"], ["b"], nodes, imports))
    model.graph.initializer.append(numpy_helper.from_array(np.int8(7), "lopsided"))
    assert [fault.node for fault in check_graph(model)] == ["Pair/known"]


def test_a_graph_that_makes_a_name_twice_is_refused_as_what_it_is() -> None:
    model = make_conv()
    find_node(model, "relu").output[0] = "c"
    with pytest.raises(BuildFailedError, match="onnx-ir cannot read this graph") as caught:
        check_graph(model)
    assert "'c'" in (caught.value.detail or "")


def test_what_lies_in_a_file_is_not_asked_for() -> None:
    model = make_conv()
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="no/such/file")
    assert check_graph(model) == []


def test_all_faults_are_listed_under_the_first() -> None:
    model = make_conv(zero=np.int8(3))
    quantize_bias(model)
    with pytest.raises(BuildFailedError, match=r"engine: .*q \(QuantizeLinear\): its zero point is not 0") as caught:
        require_legal(model, "engine")
    assert caught.value.hint is not None
    assert "bias_dq (DequantizeLinear): a quantized bias" in (caught.value.detail or "")
    require_legal(make_conv(), "engine")
    slow = make_conv(scale=np.full(8, 0.02, np.float16), zero=np.zeros(8, np.int8))
    assert {fault.effect for fault in check_graph(slow)} == {"not fused"}
    require_legal(slow, "engine")


def test_layers_between_pairs_count_as_int8() -> None:
    found = find_float_types(make_conv())
    assert found.compute == {"Conv": {"int8": 1}}
    assert (found.count("int8"), found.count("float16")) == (1, 0)
    with pytest.raises(BuildFailedError, match="Conv in int8"):
        require_half(make_conv(), "tensorrt-fp16")
