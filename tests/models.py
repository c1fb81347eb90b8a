"""Small ONNX models with known behaviour, made without PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(value), name)


def save(path: Path, nodes, inputs, outputs, constants, *, opset: int = 17, ir_version: int = 8) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, dtype, shape) for name, dtype, shape in inputs],
        [helper.make_tensor_value_info(name, dtype, shape) for name, dtype, shape in outputs],
        [constant(name, value) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.save(model, path)
    return path


def make_cnn(path: Path, *, opset: int = 17) -> Path:
    """conv 3x3 - relu - depthwise conv - relu - global average pool - gemm; x [batch, 3, 12, 12] -> y [batch, 5]."""
    rng = np.random.default_rng(0)
    constants = {
        "w1": rng.standard_normal((16, 3, 3, 3)).astype(np.float32) * 0.3,
        "b1": rng.standard_normal(16).astype(np.float32) * 0.1,
        "w2": rng.standard_normal((16, 1, 3, 3)).astype(np.float32) * 0.5,
        "w3": rng.standard_normal((16, 5)).astype(np.float32),
        "b3": rng.standard_normal(5).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="depthwise", pads=[1, 1, 1, 1], group=16),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="head"),
    ]
    inputs = [("x", TensorProto.FLOAT, ["batch", 3, 12, 12])]
    return save(path, nodes, inputs, [("y", TensorProto.FLOAT, ["batch", 5])], constants, opset=opset)


def make_two_by_two(path: Path) -> Path:
    """Two inputs, two outputs: s = a @ w + b, d = a - b; with [batch, 8]."""
    weight = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["m"], name="project"),
        helper.make_node("Add", ["m", "b"], ["s"], name="sum"),
        helper.make_node("Sub", ["a", "b"], ["d"], name="difference"),
    ]
    inputs = [(name, TensorProto.FLOAT, ["batch", 8]) for name in "ab"]
    outputs = [(name, TensorProto.FLOAT, ["batch", 8]) for name in "sd"]
    return save(path, nodes, inputs, outputs, {"w": weight})


def make_foreign_operator(path: Path) -> Path:
    """A model with an operator of a domain that no runtime knows."""
    node = helper.make_node("Sorcery", ["x"], ["y"], name="spell", domain="com.example")
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def make_samples(path: Path, *, count: int = 64, labelled: bool = True, **shapes: tuple[int, ...]) -> Path:
    """Random but structured samples: each has a strength of its own, so that outputs differ between samples."""
    rng = np.random.default_rng(2)
    strength = np.linspace(0.2, 2.0, count)
    rng.shuffle(strength)
    arrays = {
        name: (rng.standard_normal((count, *shape)) * strength.reshape(-1, *[1] * len(shape))).astype(np.float32)
        for name, shape in shapes.items()
    }
    if labelled:
        arrays["labels"] = rng.integers(0, 5, count)
    np.savez(path, **arrays)
    return path


def quantize_by_pairs(path: Path) -> onnx.ModelProto:
    """Two layers as training for INT8 exports them; x [batch, 4] -> y [batch, 3], which is left in float.

    A pair rounds each layer's input; the first weight is stored in INT8, the second as floats that a pair rounds.
    """
    rng = np.random.default_rng(3)
    weight = np.rint(rng.standard_normal((4, 8)) * 40).clip(-127, 127).astype(np.int8)
    constants = {
        "s_x": np.float32(0.03),
        "z_x": np.uint8(128),
        "i_1": weight,
        "s_1": np.full(8, 0.02, np.float32),
        "i_b": np.arange(8, dtype=np.int32) * 50,
        "s_b": np.full(8, 0.03 * 0.02, np.float32),
        "s_h": np.float32(0.05),
        "z_h": np.uint8(0),
        "w_2": (rng.standard_normal((8, 3)) * 0.5).astype(np.float32),
        "s_2": np.full(3, 0.015, np.float32),
        "z_2": np.zeros(3, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s_x", "z_x"], ["q_x"], "x_q"),
        helper.make_node("DequantizeLinear", ["q_x", "s_x", "z_x"], ["d_x"], "x_dq"),
        helper.make_node("DequantizeLinear", ["i_1", "s_1"], ["d_1"], "w1_dq", axis=1),
        helper.make_node("DequantizeLinear", ["i_b", "s_b"], ["d_b"], "b1_dq", axis=0),
        helper.make_node("Gemm", ["d_x", "d_1", "d_b"], ["g"], "layer1"),
        helper.make_node("Relu", ["g"], ["h"], "relu1"),
        helper.make_node("QuantizeLinear", ["h", "s_h", "z_h"], ["q_h"], "h_q"),
        helper.make_node("DequantizeLinear", ["q_h", "s_h", "z_h"], ["d_h"], "h_dq"),
        helper.make_node("QuantizeLinear", ["w_2", "s_2", "z_2"], ["q_2"], "w2_q", axis=1),
        helper.make_node("DequantizeLinear", ["q_2", "s_2", "z_2"], ["d_2"], "w2_dq", axis=1),
        helper.make_node("MatMul", ["d_h", "d_2"], ["y"], "layer2"),
    ]
    save(path, nodes, [("x", TensorProto.FLOAT, ["batch", 4])], [("y", TensorProto.FLOAT, ["batch", 3])], constants)
    return onnx.load(path)
