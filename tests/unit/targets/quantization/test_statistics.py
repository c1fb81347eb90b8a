"""SmoothQuant's algebra and the range estimators, on numbers known beforehand. Nothing here runs a model but onnx."""

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.targets.graphs.index import index_graph
from modelwright.targets.quantization.smoothquant import find_smoothable, smooth_model
from modelwright.targets.quantization.statistics import TensorStatistics


def make_model(nodes: list[Any], constants: dict[str, Any]) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ("n", 4))],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def evaluate(model: Any, x: Any) -> Any:
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


WEIGHT = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32) * np.array([1, 100, 0.1, 5], np.float32)
MAXIMA = np.abs(X).max(axis=0)


@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_smoothing_keeps_the_product_and_evens_the_channels(operator: str) -> None:
    weight = WEIGHT.T if operator == "Gemm" else WEIGHT
    extra = {"transB": 1} if operator == "Gemm" else {}
    model = make_model([helper.make_node(operator, ["x", "w"], ["y"], "fc", **extra)], {"w": weight})
    before = evaluate(model, X)

    assert smooth_model(model, {"x": MAXIMA}, 0.7) == ["fc"]

    np.testing.assert_allclose(evaluate(model, X), before, rtol=1e-4)
    mul, product = model.graph.node
    assert mul.op_type == "Mul"
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    smoothed = MAXIMA * constants[mul.input[1]]
    assert smoothed.max() / smoothed.min() < MAXIMA.max() / MAXIMA.min() / 10
    assert product.input[0] == mul.output[0]


def test_factors_follow_the_papers_formula() -> None:
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"w": WEIGHT})
    smooth_model(model, {"x": MAXIMA}, 0.5)
    inverse = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith("_factors"))
    expected = np.sqrt(MAXIMA / np.abs(WEIGHT).max(axis=1))  # equation 4 with alpha = 1/2
    np.testing.assert_allclose(1 / inverse, expected / np.exp(np.log(expected).mean()), rtol=1e-5)


def test_readers_of_one_tensor_share_one_multiplication() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "q"),
        helper.make_node("MatMul", ["x", "v"], ["b"], "k"),
        helper.make_node("Add", ["a", "b"], ["y"], "sum"),
    ]
    model = make_model(nodes, {"w": WEIGHT, "v": 2 * WEIGHT})
    before = evaluate(model, X)
    smooth_model(model, {"x": MAXIMA}, 0.5)
    assert [node.op_type for node in model.graph.node] == ["Mul", "MatMul", "MatMul", "Add"]
    np.testing.assert_allclose(evaluate(model, X), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("has_other_reader", [False, True])
def test_division_is_folded_into_a_norm_that_nothing_else_reads(has_other_reader: bool) -> None:
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g", "b"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "w"], ["h" if has_other_reader else "y"], "fc"),
    ]
    if has_other_reader:
        nodes += [
            helper.make_node("ReduceSum", ["n"], ["s"], "sum", keepdims=0),
            helper.make_node("Add", ["h", "s"], ["y"]),
        ]
    model = make_model(nodes, {"w": WEIGHT, "g": [1, 50, 0.2, 3], "b": [0, 1, 2, 3]})
    before = evaluate(model, X)
    smooth_model(model, {"n": MAXIMA}, 0.7)
    assert any(node.op_type == "Mul" for node in model.graph.node) == has_other_reader
    np.testing.assert_allclose(evaluate(model, X), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("largest", "smoothed"), [(3.9, []), (4.1, ["fc"])])
def test_channels_that_hardly_differ_are_not_worth_a_multiplication(largest: float, smoothed: list[str]) -> None:
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"w": WEIGHT})
    assert smooth_model(model, {"x": np.array([1, 1, 1, largest], np.float32)}, 0.8) == smoothed
    assert len(model.graph.node) == 1 + len(smoothed)


def test_a_dead_channel_stays_finite() -> None:
    weight = WEIGHT.copy()
    weight[2] = 0
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"w": weight})
    x = X * np.array([1, 1, 1, 0], np.float32)
    before = evaluate(model, x)
    smooth_model(model, {"x": np.abs(x).max(axis=0)}, 0.7)
    np.testing.assert_allclose(evaluate(model, x), before, rtol=1e-4, atol=1e-5)


def test_products_of_two_activations_are_not_smoothable() -> None:
    model = make_model([helper.make_node("MatMul", ["x", "x"], ["y"], "qk")], {})
    assert find_smoothable(model, index_graph(model)) == {}


def make_statistics(values: Any, bins: int = 2048) -> TensorStatistics:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    counts, _ = np.histogram(values, bins=bins, range=(low, high))
    return TensorStatistics(low=low, high=high, counts=counts)


def test_percentile_leaves_out_an_outlier_and_nothing_more() -> None:
    values = np.concatenate([np.linspace(0, 1, 100_000), [50.0]])
    low, high = make_statistics(values).percentile_range(0.9999)
    assert low == 0
    assert 0.99 < high < 1.1


def test_least_error_clips_a_lone_outlier_but_keeps_a_uniform_range() -> None:
    uniform = make_statistics(np.linspace(-1, 1, 100_001))
    assert uniform.least_error_range() == pytest.approx((-1, 1), rel=0.03)
    spiked = make_statistics(np.concatenate([np.linspace(0, 1, 1_000_000), [3.0]]))
    assert spiked.least_error_range()[1] < 2


def test_least_error_is_not_worse_than_the_full_range() -> None:
    values = np.random.default_rng(0).laplace(size=100_000)
    seen = make_statistics(values)

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        rounded = np.clip(np.rint((values - low) / step), 0, 255) * step + low
        return float(((values - rounded) ** 2).mean())

    assert error(*seen.least_error_range()) < error(seen.low, seen.high) * 0.9


def test_a_constant_zero_tensor_has_an_empty_range() -> None:
    seen = make_statistics(np.zeros(10))
    assert seen.least_error_range() == (0, 0)
