"""FP32 as ONNX Runtime computes it."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.errors import BadInputError
from modelwright.core.outputs.reference import ReferenceModel

pytest.importorskip("onnxruntime")


def test_failing_node_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["table", "i"], ["y"], name="pick")]
    model = models.save(
        tmp_path / "m.onnx",
        nodes,
        [("i", TensorProto.INT64, ["n"])],
        [("y", TensorProto.FLOAT, ["n"])],
        {"table": np.zeros(3, np.float32)},
    )
    with ReferenceModel(model) as reference:
        assert reference.run({"i": np.array([1])})["y"].shape == (1,)
        with pytest.raises(BadInputError, match="operator Gather, node pick"):
            reference.run({"i": np.array([7])})


def test_a_loop_that_never_ends_is_stopped(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["sum", "x"], ["next"])],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, None),
            value("sum", TensorProto.FLOAT, None),
        ],
        [value("on", TensorProto.BOOL, None), value("next", TensorProto.FLOAT, None)],
    )
    path = models.save(
        tmp_path / "loop.onnx",
        [helper.make_node("Loop", ["", "always", "x"], ["y"], body=body)],
        [("x", TensorProto.FLOAT, ["n", 4])],
        [("y", TensorProto.FLOAT, ["n", 4])],
        {"always": np.array(True)},
    )
    with (
        ReferenceModel(path, limit_s=0.2) as model,
        pytest.raises(BadInputError, match=r"did not end within 0\.2 s and was stopped") as caught,
    ):
        model.run({"x": np.ones((1, 4), np.float32)})
    assert "Loop" in str(caught.value.hint)


def test_a_bias_between_quantized_values_stays_as_it_is_written(tmp_path: Path) -> None:
    """ONNX Runtime would round it to steps of the scales' product, here 1: 0.4 would be 0."""
    constants = {
        "scale": np.float32(1), "zero": np.uint8(0), "weight": np.array([[2]], np.int8), "middle": np.int8(0),
        "bias": np.array([0.4], np.float32), "fine": np.float32(0.1),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["weight", "scale", "middle"], ["wd"]),
        helper.make_node("Gemm", ["xd", "wd", "bias"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "fine", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "fine", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path / "q.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    )
    with ReferenceModel(path) as reference:
        np.testing.assert_allclose(reference.run({"x": np.array([[3]], np.float32)})["y"], [[6.4]], rtol=1e-6)
