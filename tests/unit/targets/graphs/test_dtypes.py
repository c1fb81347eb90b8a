"""The types that layers compute in, read from a graph's tensors."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.errors import BuildFailedError
from modelwright.targets.graphs.dtypes import find_float_types, infer_tensor_types, infer_tensors, require_half


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


def test_a_request_for_fp16_that_yields_fp32_is_an_error() -> None:
    with pytest.raises(BuildFailedError, match=r"a request for FP16 that yields FP32.*MatMul in float32"):
        require_half(make_mixed(half=False), "tensorrt-fp16")
    found = require_half(make_mixed(half=True), "tensorrt-fp16")
    assert found.compute == {"MatMul": {"float16": 1}}
    assert found.float32_nodes == ()
    assert find_float_types(make_mixed(half=False)).float32_nodes == ("mul",)
