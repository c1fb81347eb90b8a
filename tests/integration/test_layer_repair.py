"""Layers of quantized models put back into float graphs, in the runtimes that compute them: known answers."""

from pathlib import Path
from typing import Any

import breakers
import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelwright.targets.graphs.rewrite import normalize_graph
from modelwright.targets.graphs.run import open_session
from modelwright.targets.ort.plan import plan_static
from modelwright.targets.ort.quantize import quantize_dynamic, quantize_static
from modelwright.targets.quantization.formats import Scheme
from modelwright.targets.quantization.statistics import collect_statistics
from modelwright.targets.quantization.twins import EXACT_ARITHMETIC, find_twins, measure_noise, quantize_only

SCHEME = Scheme(signed_activations=False, weight_limit=127)


def make_residual(path: Path) -> Path:
    """x [batch, 3, 8, 8] -> conv, Relu, conv, Add, Concat, pool, Gemm with a bias -> y [batch, 4]."""
    rng = np.random.default_rng(0)
    constants = {
        "w0": rng.standard_normal((8, 3, 3, 3)) / 5,
        "b0": rng.standard_normal(8),
        "w1": rng.standard_normal((8, 8, 3, 3)) / 8,
        "w2": rng.standard_normal((16, 4)),
        "b2": rng.standard_normal(4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], name="conv0", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu0"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="conv1", pads=[1] * 4),
        helper.make_node("Add", ["c1", "r0"], ["sum"], name="add"),
        helper.make_node("Concat", ["sum", "r0"], ["both"], name="concat", axis=1),
        helper.make_node("GlobalAveragePool", ["both"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w2", "b2"], ["y"], name="head"),
    ]
    arrays = {name: value.astype(np.float32) for name, value in constants.items()}
    inputs = [("x", TensorProto.FLOAT, ["batch", 3, 8, 8])]
    return models.save(path, nodes, inputs, [("y", TensorProto.FLOAT, ["batch", 4])], arrays)


def make_feeds(count: int = 4) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def quantize(model: Any, scratch: Path) -> tuple[Any, list[str]]:
    """Returns a static candidate with everything in integers, and its layers."""
    plan = plan_static(model, (), carry=True)
    seen = collect_statistics(model, plan.ranged_tensors(), lambda: iter(make_feeds()), scratch)
    ranges = {name: (seen[name].low, seen[name].high) for name in plan.ranged_tensors()}
    layers = [node.name for node in model.graph.node if node.name in {*plan.integer, *plan.carried}]
    return quantize_static(model, plan, ranges, SCHEME), layers


def answer(model: Any, scratch: Path) -> Any:
    session = open_session(model, scratch, entries=EXACT_ARITHMETIC)
    return np.stack([session.run(None, feeds)[0] for feeds in make_feeds()])


def test_all_twins_are_the_quantized_model_and_none_is_the_float_one(tmp_path: Path) -> None:
    model = onnx.load(make_residual(tmp_path / "m.onnx"))
    normalize_graph(model)
    quantized, layers = quantize(model, tmp_path)
    assert {"conv0", "conv1", "add", "concat", "pool", "head"} <= set(layers)
    twins = find_twins(model, quantized, layers)
    assert set(twins) == set(layers)
    assert twins["conv0"].tensor == "r0", "its Relu is absorbed"
    float_answer, integer_answer = answer(model, tmp_path), answer(quantized, tmp_path)
    np.testing.assert_array_equal(answer(quantize_only(model, twins.values()), tmp_path), integer_answer)
    np.testing.assert_array_equal(answer(quantize_only(model, ()), tmp_path), float_answer)
    one = answer(quantize_only(model, [twins["concat"]]), tmp_path)
    assert 0 < np.abs(one - float_answer).max() < np.abs(integer_answer - float_answer).max() * 2, "alone it rounds too"


def test_noise_is_that_of_the_layer_on_what_fp32_makes(tmp_path: Path) -> None:
    model = onnx.load(make_residual(tmp_path / "m.onnx"))
    normalize_graph(model)
    quantized, layers = quantize(model, tmp_path)
    twins = find_twins(model, quantized, layers)
    noise = measure_noise(model, twins.values(), make_feeds(), tmp_path)
    assert set(noise) == set(layers)
    probe, alone = onnx.ModelProto(), onnx.ModelProto()
    for copy, source in ((probe, model), (alone, quantize_only(model, [twins["conv1"]]))):
        copy.CopyFrom(source)
        copy.graph.output.append(helper.make_tensor_value_info("c1", TensorProto.FLOAT, None))
    sessions = [open_session(each, tmp_path, entries=EXACT_ARITHMETIC) for each in (probe, alone)]
    expected, found = (
        np.concatenate([session.run(["c1"], feeds)[0] for feeds in make_feeds()]) for session in sessions
    )
    shares = ((found - expected) ** 2).sum(axis=(0, 2, 3)) / (expected**2).sum(axis=(0, 2, 3))
    assert noise["conv1"] == pytest.approx(shares.mean(), rel=1e-3)


def test_a_channel_a_thousand_times_the_rest_is_heard_at_its_reader(tmp_path: Path) -> None:
    """The tensor as a whole loses next to nothing: all of its energy is in the one channel that is right."""
    model = onnx.load(make_residual(tmp_path / "m.onnx"))
    normalize_graph(model)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w0")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] *= 1000
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "w0"))
    quantized, layers = quantize(model, tmp_path)
    noise = measure_noise(model, find_twins(model, quantized, layers).values(), make_feeds(), tmp_path)
    assert noise["conv0"] > 0.5, "seven of its eight channels are gone"


def test_dynamic_layers_have_twins_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    constants = {name: rng.standard_normal((8, 8)).astype(np.float32) for name in ("w0", "w1")}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"], name="first"),
        helper.make_node("Tanh", ["h"], ["t"], name="tanh"),
        helper.make_node("MatMul", ["t", "w1"], ["y"], name="second"),
    ]
    path = models.save(
        tmp_path / "m.onnx", nodes, [("x", TensorProto.FLOAT, [2, 8])], [("y", TensorProto.FLOAT, [2, 8])], constants
    )
    model = onnx.load(path)
    quantized = quantize_dynamic(model, ["first", "second"], SCHEME)
    twins = find_twins(model, quantized, ["first", "second"])
    feeds = [{"x": rng.standard_normal((2, 8)).astype(np.float32)}]
    noise = measure_noise(model, twins.values(), feeds, tmp_path)
    assert all(1e-7 < value < 1e-2 for value in noise.values())
    whole, twin = (
        open_session(each, tmp_path).run(None, feeds[0])[0]
        for each in (quantized, quantize_only(model, twins.values()))
    )
    np.testing.assert_array_equal(twin, whole)


@pytest.mark.parametrize("transformer", [False, True])
def test_openvino_layers_are_put_back_as_they_were(tmp_path: Path, transformer: bool) -> None:
    """Weights, biases that NNCF changed or added, and the factors of SmoothQuant: what is left is FP32."""
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    nncf = pytest.importorskip("nncf", reason="NNCF is not installed")
    from modelwright.targets.openvino.bypass import bypass_layers, find_consumers, is_activation_quantizer
    from modelwright.targets.openvino.bypass import measure_noise as measure_openvino_noise

    model = openvino.convert_model(make_residual(tmp_path / "m.onnx"))
    quantized = nncf.quantize(
        model.clone(),
        nncf.Dataset(make_feeds()),
        subset_size=4,
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
    )
    rounding = [node for node in quantized.get_ops() if is_activation_quantizer(node)]
    layers = set().union(*map(find_consumers, rounding))
    core = openvino.Core()

    def run(each: Any) -> Any:
        compiled = core.compile_model(each, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return np.stack([compiled(feeds)[0] for feeds in make_feeds()])

    expected = run(model)
    assert np.abs(run(quantized) - expected).max() > 1e-3
    freed = bypass_layers(openvino, model, quantized, layers)
    np.testing.assert_allclose(run(freed), expected, atol=1e-5)
    assert [node for node in quantized.get_ops() if is_activation_quantizer(node)] == rounding, "a copy was changed"
    noise = measure_openvino_noise(openvino, core, model, quantized, layers, make_feeds())
    assert set(noise) == layers
    assert all(1e-7 < value < 0.1 for value in noise.values()), noise


@pytest.mark.slow
def test_a_table_that_one_row_ruins_is_put_back(tmp_path: Path) -> None:
    """NNCF rounds it with one scale for all rows; what looks it up are integers, which no quantizer rounds."""
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    nncf = pytest.importorskip("nncf", reason="NNCF is not installed")
    from modelwright.targets.openvino.bypass import bypass_layers, find_quantized

    breaker = breakers.huge_row(tmp_path / "m.onnx")
    rows = breaker.draw(41, 1)["x"][1:]  # the first looks the large row up
    feeds = [{"x": row[None]} for row in rows]
    model = openvino.convert_model(breaker.model)
    quantized = nncf.quantize(model.clone(), nncf.Dataset(feeds), subset_size=len(feeds))
    assert "lookup" in find_quantized(quantized.get_ordered_ops())
    core = openvino.Core()

    def follow(layers: set[str]) -> float:
        found, expected = (
            np.concatenate([core.compile_model(each, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0] for x in feeds])
            for each in (bypass_layers(openvino, model, quantized, layers), model)
        )
        return breakers.follow(expected, found)

    assert follow(set()) < 0.0, "nothing is left of the other rows"
    assert follow({"lookup"}) > 0.7
