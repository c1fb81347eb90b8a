"""Activations with a scale a channel run in ONNX Runtime, which fuses them to a kernel that fails."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from modelwright.targets.ort.channel_scales import keep_channel_scales_apart

_SHAPE = ["batch", 4, 6, 6]


def _make_depthwise(path: Path, scale: np.ndarray) -> onnx.ModelProto:
    zero_point = np.zeros(scale.shape, np.uint8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=1),
        helper.make_node("DequantizeLinear", ["i", "s_w", "z_w"], ["w"], axis=0),
        helper.make_node("Conv", ["d", "w"], ["c"], "depthwise", group=4, pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "s_y", "z_y"], ["q_y"]),
        helper.make_node("DequantizeLinear", ["q_y", "s_y", "z_y"], ["y"]),
    ]
    constants = {
        "s": scale,
        "z": zero_point,
        "i": np.random.default_rng(0).integers(-100, 100, (4, 1, 3, 3), dtype=np.int8),
        "s_w": np.full(4, 0.01, np.float32),
        "z_w": np.zeros(4, np.int8),
        "s_y": np.float32(0.05),
        "z_y": np.uint8(128),
    }
    ends = ("x", TensorProto.FLOAT, _SHAPE), ("y", TensorProto.FLOAT, _SHAPE)
    return onnx.load(models.save(path, nodes, [ends[0]], [ends[1]], constants))


def _run(model: onnx.ModelProto, *, fused: bool = True) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not fused:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.random.default_rng(1).random((1, 4, 6, 6), np.float32) * 4}
    return np.asarray(session.run(None, feeds)[0])


def test_scales_of_channels_run_with_the_same_numbers(tmp_path: Path) -> None:
    model = _make_depthwise(tmp_path / "m.onnx", np.array([0.01, 0.02, 0.03, 0.04], np.float32))
    with pytest.raises(Exception, match="input zero point must be a scalar"):
        _run(model)
    expected = _run(model, fused=False)
    assert keep_channel_scales_apart(model) == 1
    np.testing.assert_array_equal(_run(model), expected)


def test_one_scale_is_left_to_the_integer_kernel(tmp_path: Path) -> None:
    model = _make_depthwise(tmp_path / "m.onnx", np.array(0.02, np.float32))
    before = model.SerializeToString()
    assert keep_channel_scales_apart(model) == 0
    assert model.SerializeToString() == before


def test_weights_that_a_pair_rounds_are_no_activations(tmp_path: Path) -> None:
    model = models.quantize_by_pairs(tmp_path / "m.onnx")
    assert keep_channel_scales_apart(model) == 0, "the second layer's has a scale for each of its columns"
