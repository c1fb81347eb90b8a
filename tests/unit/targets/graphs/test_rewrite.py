"""Graph rewrites, checked by running the rewritten graph in onnx's reference evaluator."""

from typing import Any

import numpy as np
import pytest
from graph_models import make_model, random_array
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.facts import find_opset
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.graphs.rewrite import (
    normalize_graph,
    pool_spatial_means,
    raise_opset,
    rebuild_model,
    split_gemms,
)


def evaluate(model: Any, x: Any) -> Any:
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("with_bias", [False, True])
def test_split_gemm_computes_the_same(turned: int, with_bias: bool) -> None:
    weight = random_array(3, 4) if turned else random_array(4, 3)
    inputs = ["x", "w", "b"] if with_bias else ["x", "w"]
    constants = {"w": weight, "b": random_array(3)} if with_bias else {"w": weight}
    model = make_model([helper.make_node("Gemm", inputs, ["y"], "fc", transB=turned)], constants)
    x = random_array(2, 4)
    before = evaluate(model, x)

    assert split_gemms(model) == ["fc"]

    assert [node.op_type for node in model.graph.node] == (["MatMul", "Add"] if with_bias else ["MatMul"])
    np.testing.assert_allclose(evaluate(model, x), before, rtol=1e-6)


def test_scaled_gemm_is_left_alone() -> None:
    model = make_model([helper.make_node("Gemm", ["x", "w"], ["y"], "fc", alpha=0.5)], {"w": random_array(4, 3)})
    assert split_gemms(model) == []
    assert model.graph.node[0].op_type == "Gemm"


def test_normalize_takes_initializers_out_of_the_inputs_of_old_files() -> None:
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": random_array(4, 3)}, ir_version=3)
    model.graph.input.append(helper.make_tensor_value_info("w", 1, (4, 3)))
    normalize_graph(model)
    assert [value.name for value in model.graph.input] == ["x"]
    assert index_graph(model).is_float_constant("w")


def test_normalize_hoists_constants_names_nodes_and_drops_stale_value_info() -> None:
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(random_array(4, 3)))
    nodes = [constant, helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    model = make_model(nodes, {})
    model.graph.value_info.append(helper.make_tensor_value_info("w", 1, (4, 3)))
    model.graph.value_info.append(helper.make_tensor_value_info("h", 1, ("n", 3)))
    normalize_graph(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Relu"]
    assert len({node.name for node in model.graph.node} - {""}) == 2
    assert [value.name for value in model.graph.value_info] == ["h"]


@pytest.mark.parametrize("keepdims", [0, 1])
def test_spatial_mean_becomes_a_pool_only_over_all_spatial_axes(keepdims: int) -> None:
    def build(axes: list[int]) -> Any:
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
            helper.make_node("ReduceMean", ["c"], ["m"], "mean", axes=axes, keepdims=keepdims),
            helper.make_node("Relu", ["m"], ["y"], "relu"),
        ]
        return make_model(nodes, {"w": random_array(5, 3, 1, 1)}, shape=("n", 3, 6, 6))

    x = random_array(2, 3, 6, 6)
    model = build([-1, -2])
    before = evaluate(model, x)
    pool_spatial_means(model)
    assert [node.op_type for node in model.graph.node[1:]] == [
        "GlobalAveragePool",
        *(["Flatten"] if keepdims == 0 else []),
        "Relu",
    ]
    assert evaluate(model, x).shape == before.shape == ((2, 5, 1, 1) if keepdims else (2, 5))
    np.testing.assert_allclose(evaluate(model, x), before, rtol=1e-5, atol=1e-6)
    channels = build([1])
    pool_spatial_means(channels)
    assert channels.graph.node[1].op_type == "ReduceMean"


def test_raise_opset_converts_once_and_asks_the_verifier() -> None:
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {}, opset=11)
    asked: list[Any] = []
    raised = raise_opset(model, 13, asked.append)
    assert find_opset(raised) == 13
    assert asked == [raised]
    assert raise_opset(raised, 13) is raised


def test_raise_opset_names_the_versions_when_the_converter_fails() -> None:
    model = make_model([helper.make_node("NoSuchOperator", ["x"], ["y"])], {}, opset=11)
    with pytest.raises(BuildFailedError, match="from opset 11 to 13"):
        raise_opset(model, 13)


def test_normalize_makes_sparse_initializers_dense_and_computes_the_same() -> None:
    weight = np.zeros((4, 3), np.float32)
    weight[1, 2], weight[3, 0] = 2, -1
    values = numpy_helper.from_array(np.array([2, -1], np.float32), "w")
    places = numpy_helper.from_array(np.array([5, 9]), "places")
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {})
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 3]))
    normalize_graph(model)
    x = random_array(2, 4)
    np.testing.assert_allclose(evaluate(model, x), x @ weight, rtol=1e-6)
    assert index_graph(model).is_float_constant("w")


def test_rebuilding_keeps_what_subgraphs_read_and_a_tied_table_once() -> None:
    then = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["r"])], "then", [], [helper.make_tensor_value_info("r", 1, None)]
    )
    hiding = helper.make_graph(
        [helper.make_node("MatMul", ["x", "unused"], ["s"])],
        "hiding",
        [],
        [helper.make_tensor_value_info("s", 1, None)],
        [numpy_helper.from_array(random_array(4, 3), "unused")],
    )
    nodes = [
        helper.make_node("If", ["flag"], ["h"], then_branch=then, else_branch=hiding),
        helper.make_node("MatMul", ["h", "table"], ["a"]),
        helper.make_node("MatMul", ["h", "table"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    constants = {"flag": np.array(True), "w": random_array(4, 3), "table": random_array(3, 3)}
    model = make_model(nodes, {**constants, "unused": random_array(9, 9)})
    made = rebuild_model(model, list(model.graph.node), {})
    assert [tensor.name for tensor in made.graph.initializer] == ["flag", "w", "table"]
    assert [reader.output[0] for reader in index_graph(made).consumers["table"]] == ["a", "b"]
    x = random_array(2, 4)
    np.testing.assert_array_equal(evaluate(made, x), evaluate(model, x))
