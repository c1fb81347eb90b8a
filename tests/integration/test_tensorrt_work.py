"""Multiplications of a network's nodes, against numbers worked out by hand."""

from pathlib import Path

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.targets.graphs.work import measure_work

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def test_a_cnn(tmp_path: Path) -> None:
    model = onnx.load(models.make_cnn(tmp_path / "cnn.onnx"))
    feeds = {"x": np.zeros((2, 3, 12, 12), np.float32)}
    outputs = [value.name for value in model.graph.output]
    assert measure_work(model, feeds, tmp_path) == {
        "conv1": 2 * 12 * 12 * 16 * 3 * 3 * 3,
        "depthwise": 2 * 12 * 12 * 16 * 3 * 3,
        "head": 2 * 16 * 5,
    }
    assert [value.name for value in model.graph.output] == outputs


def test_other_operators(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConvTranspose", ["x", "grow"], ["a"], "grow", strides=[2]),  # [2, 3, 5] -> [2, 4, 10]
        helper.make_node("Transpose", ["a"], ["t"], "turn", perm=[2, 0, 1]),  # -> [10, 2, 4]
        helper.make_node("LSTM", ["t", "w", "r"], ["s", "h"], "lstm", hidden_size=6),  # h [1, 2, 6]
        helper.make_node("Squeeze", ["h", "first"], ["f"], "squeeze"),
        helper.make_node("Gemm", ["f", "g"], ["m"], "turned", transA=1),  # [6, 2] times [2, 7]
        helper.make_node("MatMul", ["m", "p"], ["y"]),
    ]
    constants = {
        "grow": np.ones((3, 4, 2), np.float32),
        "w": np.ones((1, 24, 4), np.float32),
        "r": np.ones((1, 24, 6), np.float32),
        "first": np.array([0]),
        "g": np.ones((2, 7), np.float32),
        "p": np.ones((7, 3), np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["k", 3])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert measure_work(model, {"x": np.zeros((2, 3, 5), np.float32)}, tmp_path) == {
        "grow": 2 * 3 * 5 * 4 * 2,
        "lstm": 10 * 2 * (24 * 4 + 24 * 6),
        "turned": 6 * 2 * 7,
        "node_of_y": 6 * 7 * 3,
    }


def test_a_network_that_multiplies_nothing(tmp_path: Path) -> None:
    path = models.save(
        tmp_path / "relu.onnx",
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        [("x", TensorProto.FLOAT, ["n", 4])],
        [("y", TensorProto.FLOAT, ["n", 4])],
        {},
    )
    assert measure_work(onnx.load(path), {"x": np.zeros((1, 4), np.float32)}, tmp_path) == {}
