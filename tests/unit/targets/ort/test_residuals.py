"""Residual sums before a normalization: written as ONNX Runtime does not fuse them, with the same numbers."""

from typing import Any

import numpy as np
import pytest
from graph_models import make_model, random_array
from onnx import helper
from onnx.reference import ReferenceEvaluator

from modelwright.targets.ort.residuals import keep_residuals_apart

WRITTEN_OUT = [
    helper.make_node("ReduceMean", ["r"], ["mean"], "mean", axes=[-1]),
    helper.make_node("Sub", ["r", "mean"], ["centred"], "sub"),
    helper.make_node("Div", ["centred", "w"], ["y"], "div"),
]
NORMALIZED = [helper.make_node("LayerNormalization", ["r", "w"], ["y"], "norm")]


@pytest.mark.parametrize("readers", [NORMALIZED, WRITTEN_OUT], ids=["operator", "written out"])
def test_a_normalized_residual_becomes_a_sum(readers: list[Any]) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "branch"),
        helper.make_node("Add", ["a", "x"], ["r"], "residual"),
        *readers,
    ]
    model = make_model(nodes, {"w": np.ones(4, np.float32)}, opset=17)
    x = random_array(2, 4)
    before = ReferenceEvaluator(model).run(None, {"x": x})[0]
    assert keep_residuals_apart(model) == ["residual"]
    assert [node.op_type for node in model.graph.node][:2] == ["Relu", "Sum"]
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, {"x": x})[0], before)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Add", ["x", "w"], ["r"], "bias"), *NORMALIZED],
        [helper.make_node("Add", ["x", "x"], ["r"], "twice"), helper.make_node("Relu", ["r"], ["y"], "relu")],
    ],
    ids=["a bias", "no normalization"],
)
def test_a_bias_and_what_is_not_normalized_stay_adds(nodes: list[Any]) -> None:
    model = make_model(nodes, {"w": np.ones(4, np.float32)}, opset=17)
    assert keep_residuals_apart(model) == []
    assert model.graph.node[0].op_type == "Add"
