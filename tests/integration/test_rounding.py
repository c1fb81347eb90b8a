"""Rounding a model's weights for what they make of samples: every layout of them, held against the nearest integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.contract import BuildRequest
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.graphs.run import open_session
from modelwright.targets.quantization import rounded
from modelwright.targets.quantization.formats import quantize_weight
from modelwright.targets.quantization.readings import find_readings
from modelwright.targets.quantization.rounded import count_rounding, find_rounded_model, round_model

RNG = np.random.default_rng(0)
CHANNELS = 6
CONVOLUTIONS = {
    "plain": {"pads": [1, 1, 1, 1]},
    "strided, padded on one side": {"strides": [2, 1], "pads": [0, 1, 2, 0]},
    "dilated": {"dilations": [2, 1], "pads": [2, 1, 2, 1]},
    "depthwise": {"group": CHANNELS, "pads": [1, 1, 1, 1]},
    "grouped": {"group": 2},
}


def smooth(count: int) -> Any:
    """Images whose neighbouring pixels and channels go together."""
    values = RNG.standard_normal((count, CHANNELS, 14, 14)).cumsum(axis=2).cumsum(axis=3) / 8
    return (values + RNG.standard_normal((count, 1, 14, 14))).astype(np.float32)


def make_request(folder: Path, nodes: list[Any], constants: dict[str, Any]) -> BuildRequest:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", CHANNELS, 14, 14])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx")
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", CHANNELS, 14, 14)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=None),),
    )
    np.savez(folder / "s.npz", x=smooth(80))
    (folder / "shared").mkdir()
    return BuildRequest(
        model_path=folder / "m.onnx",
        signature=signature,
        directory=folder,
        machine=Machine(name="m", architecture="x86_64", instruction_sets=frozenset({"avx512_vnni"}), cores=2),
        calibration=open_samples(SampleRef(path=folder / "s.npz", part="calibration"), signature),
        tuning=None,
        reference=None,
        scratch=folder,
        shared=folder / "shared",
        progress=lambda _line: None,
    )


def compare(request: BuildRequest, weight: str, axis: int) -> tuple[float, float]:
    """Returns the error on held-out samples of the rounded weight, and of the nearest integers, of one layer."""
    path = find_rounded_model(request)
    assert path is not None
    original, rounded, nearest = (onnx.load(file) for file in (request.model_path, path, request.model_path))
    stored = {tensor.name: tensor for tensor in nearest.graph.initializer}
    values = numpy_helper.to_array(stored[weight])
    shape = [-1 if position == axis else 1 for position in range(values.ndim)]
    integers, scales = quantize_weight(values.copy(), axis, 127)
    stored[weight].CopyFrom(numpy_helper.from_array(integers * scales.reshape(shape), weight))
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in rounded.graph.initializer}[weight]
    again, grid = quantize_weight(found.copy(), axis, 127)
    np.testing.assert_allclose(again * grid.reshape(shape), found, atol=1e-5 * np.abs(found).max())
    x = smooth(40)
    exact, close, plain = (
        open_session(m, request.scratch).run(None, {"x": x})[0] for m in (original, rounded, nearest)
    )
    return float(np.linalg.norm(close - exact)), float(np.linalg.norm(plain - exact))


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions(tmp_path: Path, kind: str) -> None:
    groups = int(CONVOLUTIONS[kind].get("group", 1))  # type: ignore[call-overload]
    weight = RNG.standard_normal((12, CHANNELS // groups, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], **CONVOLUTIONS[kind])]
    found, nearest = compare(make_request(tmp_path, nodes, {"w": weight}), "w", 0)
    assert found < (0.95 if kind == "depthwise" else 0.7) * nearest, "nine weights have little to trade"


@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "turned Gemm"])
def test_matrix_products(tmp_path: Path, kind: str) -> None:
    turned = kind == "turned Gemm"
    weight = RNG.standard_normal((20, CHANNELS * 14) if turned else (CHANNELS * 14, 20)).astype(np.float32)
    given = {"transB": 1} if turned else {}
    nodes = [  # a row of pixels each
        helper.make_node("Transpose", ["x"], ["rows"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["rows", "shape"], ["flat"]),
        helper.make_node(kind.split()[-1], ["flat", "w"], ["y"], **given),
    ]
    constants = {"w": weight, "shape": np.array([-1, CHANNELS * 14])}
    found, nearest = compare(make_request(tmp_path, nodes, constants), "w", 0 if turned else 1)
    assert found < 0.7 * nearest


def test_weights_that_others_read_too_stay_and_nothing_is_made_twice(tmp_path: Path) -> None:
    weight = RNG.standard_normal((CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["y"]),
    ]
    request = make_request(tmp_path, nodes, {"w": weight, "v": weight * 2})
    path = find_rounded_model(request)
    assert path is not None
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    np.testing.assert_array_equal(found["w"], weight)
    assert np.abs(found["v"] - 2 * weight).max() > 1e-3
    path.write_bytes(b"made before")
    assert find_rounded_model(request) == path
    assert path.read_bytes() == b"made before"


def test_layers_that_read_the_same_are_looked_at_once_and_a_sample_without_numbers_not_at_all(tmp_path: Path) -> None:
    weights = {name: RNG.standard_normal((8, CHANNELS, 3, 3)).astype(np.float32) for name in "wvu"}
    nodes = [
        helper.make_node("Mul", ["x", "large"], ["far"]),
        helper.make_node("Mul", ["far", "small"], ["h"]),
        helper.make_node("Conv", ["h", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["h", "v"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["h", "u"], ["c"], strides=[2, 2]),
        helper.make_node("Concat", ["a", "b"], ["y"], axis=1),
    ]
    factors = {"large": np.float32(1e20), "small": np.float32(1e-20)}
    request = make_request(tmp_path, nodes, weights | factors)
    model = onnx.load(request.model_path)
    readings = find_readings(model, index_graph(model))
    assert [[layer.weight for layer in reading.layers] for reading in readings] == [["w", "v"], ["u"]]
    # 54 columns: a sum over 256 rows and a triangle for both readings, and three layers of 8 channels.
    assert count_rounding(model) == 2 * (256 * 54**2 + 54**3) + 3 * 8 * 54**2 / 2

    assert request.calibration is not None
    round_model(model, request.calibration, tmp_path)
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    images = np.load(tmp_path / "s.npz")["x"]
    images[0, 0] = 1e30  # infinite when it is multiplied
    np.savez(tmp_path / "odd.npz", x=images)
    odd = open_samples(SampleRef(path=tmp_path / "odd.npz", part="calibration"), request.signature)
    again = onnx.load(request.model_path)
    round_model(again, odd, tmp_path)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in again.graph.initializer}
    for name in weights:
        found = stored[name]
        assert not np.array_equal(found, weights[name])
        steps = np.abs(found - expected[name]) * 127 / np.abs(found).max(axis=(1, 2, 3), keepdims=True)
        assert steps.mean() < 0.5, "a few rows less make a few other integers"


def test_what_would_take_minutes_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    request = make_request(tmp_path, nodes, {"w": RNG.standard_normal((4, CHANNELS, 1, 1)).astype(np.float32)})
    monkeypatch.setattr(rounded, "_MOST_WORK", 1e3)
    assert find_rounded_model(request) is None


def test_without_a_layer_there_is_no_copy(tmp_path: Path) -> None:
    request = make_request(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], {})
    assert find_rounded_model(request) is None
    assert find_rounded_model(request) is None
