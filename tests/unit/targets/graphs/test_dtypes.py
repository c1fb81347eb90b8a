"""The types that layers compute in, read from a graph's tensors."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.core.errors import BuildFailedError
from modelwright.targets.graphs.dtypes import find_float_types, infer_tensor_types, infer_tensors, require_half
from modelwright.targets.graphs.emulation import round_half_results


def make_mixed(half: bool) -> Any:
    """x -> Cast -> MatMul -> Cast -> y, in float16 or float32."""
    dtype: Any = np.float16 if half else np.float32
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "down", to=kind),
        helper.make_node("MatMul", ["h", "w"], ["m"], "mul"),
        helper.make_node("Cast", ["m"], ["y"], "up", to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(np.ones((64, 32), dtype), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def test_types_are_inferred_through_casts_and_large_weights() -> None:
    types = infer_tensor_types(make_mixed(half=True))
    assert types == {"x": "float32", "h": "float16", "w": "float16", "m": "float16", "y": "float32"}
    assert infer_tensors(make_mixed(half=True))["m"].shape == ("n", 32)


def test_types_are_inferred_where_the_weights_were_not_loaded() -> None:
    model = make_mixed(half=True)
    model.graph.node[0].output[0] = "c"
    model.graph.node.insert(1, helper.make_node("Reshape", ["c", "target"], ["h"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 64]), "target"))
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    assert infer_tensor_types(model)["m"] == "float16"


def test_a_request_for_fp16_that_yields_fp32_is_an_error() -> None:
    with pytest.raises(BuildFailedError, match=r"a request for FP16 that yields FP32.*MatMul in float32"):
        require_half(make_mixed(half=False), "tensorrt-fp16")
    found = require_half(make_mixed(half=True), "tensorrt-fp16")
    assert found.compute == {"MatMul": {"float16": 1}}
    assert found.float32_nodes == ()
    assert find_float_types(make_mixed(half=False)).float32_nodes == ("mul",)
    alone = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        "g",
        *([helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])] for name in "xy"),
    )
    with pytest.raises(BuildFailedError, match=r"computes in float16 \(relu in float32\)"):
        require_half(helper.make_model(alone), "tensorrt-fp16")


def make_branches(*kinds: int) -> Any:
    """An If whose branches call a tensor `h` alike, each in its own type, and hide an outer `h` in float32."""
    branches = []
    for number, kind in enumerate(kinds):
        nodes = [
            helper.make_node("Cast", ["x"], ["h"], f"cast_{number}", to=kind),
            helper.make_node("MatMul", ["h", "h"], ["m"], f"square_{number}"),
            helper.make_node("Cast", ["m"], ["r"], f"back_{number}", to=TensorProto.FLOAT),
        ]
        result = helper.make_tensor_value_info("r", TensorProto.FLOAT, [4, 4])
        branches.append(helper.make_graph(nodes, f"branch_{number}", [], [result]))
    nodes = [
        helper.make_node("If", ["flag"], ["c"], "choice", then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("MatMul", ["c", "x"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
        [numpy_helper.from_array(np.array(True), "flag")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def test_one_name_in_two_branches_is_two_tensors() -> None:
    model = make_branches(TensorProto.FLOAT16, TensorProto.FLOAT)
    found = find_float_types(model)
    assert found.compute == {"MatMul": {"float16": 1, "float32": 2}}
    assert found.float32_nodes == ("choice", "choice/square_1", "y")
    assert found.nodes == {"node_of_y": "float32"}
    assert infer_tensor_types(model) == {"x": "float32", "flag": "bool", "c": "float32", "y": "float32"}


def test_results_in_branches_are_rounded_where_they_are_made() -> None:
    model = make_branches(TensorProto.FLOAT16, TensorProto.FLOAT)
    rounded = round_half_results(model)
    onnx.checker.check_model(rounded, full_check=True)
    halves, wholes = (attribute.g for attribute in sorted(rounded.graph.node[0].attribute, key=lambda a: a.g.name))
    assert [node.op_type for node in halves.node] == ["Cast", "MatMul", "Unsqueeze", "Squeeze", "Cast"]
    assert [node.op_type for node in wholes.node] == ["Cast", "MatMul", "Cast"]
    x = np.random.default_rng(0).uniform(-1, 1, (4, 4)).astype(np.float32)
    before, after = (ReferenceEvaluator(each).run(None, {"x": x})[0] for each in (model, rounded))
    np.testing.assert_array_equal(after, before)
    assert [node.op_type for node in model.graph.node] == ["If", "MatMul"], "the model itself is as it was"
