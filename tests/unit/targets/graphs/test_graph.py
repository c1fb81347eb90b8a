"""Graph rewrites, checked by running the rewritten graph in onnx's reference evaluator."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.targets.graphs import graph as onnx_graph


def make_model(
    nodes: list[Any],
    constants: dict[str, Any],
    *,
    shape: tuple[int | str, ...] = ("n", 4),
    output: str = "y",
    opset: int = 13,
    ir_version: int = 8,
) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info(output, 1, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    return model


def evaluate(model: Any, x: Any) -> Any:
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


def random_array(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("with_bias", [False, True])
def test_split_gemm_computes_the_same(turned: int, with_bias: bool) -> None:
    weight = random_array(3, 4) if turned else random_array(4, 3)
    inputs = ["x", "w", "b"] if with_bias else ["x", "w"]
    constants = {"w": weight, "b": random_array(3)} if with_bias else {"w": weight}
    model = make_model([helper.make_node("Gemm", inputs, ["y"], "fc", transB=turned)], constants)
    x = random_array(2, 4)
    before = evaluate(model, x)

    assert onnx_graph.split_gemms(model) == ["fc"]

    assert [node.op_type for node in model.graph.node] == (["MatMul", "Add"] if with_bias else ["MatMul"])
    np.testing.assert_allclose(evaluate(model, x), before, rtol=1e-6)


def test_scaled_gemm_is_left_alone() -> None:
    model = make_model([helper.make_node("Gemm", ["x", "w"], ["y"], "fc", alpha=0.5)], {"w": random_array(4, 3)})
    assert onnx_graph.split_gemms(model) == []
    assert model.graph.node[0].op_type == "Gemm"


def test_normalize_takes_initializers_out_of_the_inputs_of_old_files() -> None:
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": random_array(4, 3)}, ir_version=3)
    model.graph.input.append(helper.make_tensor_value_info("w", 1, (4, 3)))
    onnx_graph.normalize_graph(model)
    assert [value.name for value in model.graph.input] == ["x"]
    assert onnx_graph.index_graph(model).is_float_constant("w")


def test_an_initializer_that_callers_may_override_is_no_constant() -> None:
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": random_array(4, 3)})
    model.graph.input.append(helper.make_tensor_value_info("w", 1, (4, 3)))
    assert not onnx_graph.index_graph(model).is_float_constant("w")


def test_normalize_hoists_constants_names_nodes_and_drops_stale_value_info() -> None:
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(random_array(4, 3)))
    nodes = [constant, helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    model = make_model(nodes, {})
    model.graph.value_info.append(helper.make_tensor_value_info("w", 1, (4, 3)))
    model.graph.value_info.append(helper.make_tensor_value_info("h", 1, ("n", 3)))
    onnx_graph.normalize_graph(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Relu"]
    assert len({node.name for node in model.graph.node} - {""}) == 2
    assert [value.name for value in model.graph.value_info] == ["h"]


def test_spatial_mean_becomes_a_pool_only_over_all_spatial_axes() -> None:
    def build(axes: list[int]) -> Any:
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
            helper.make_node("ReduceMean", ["c"], ["y"], "mean", axes=axes, keepdims=1),
        ]
        return make_model(nodes, {"w": random_array(5, 3, 1, 1)}, shape=("n", 3, 6, 6))

    x = random_array(2, 3, 6, 6)
    model = build([-1, -2])
    before = evaluate(model, x)
    onnx_graph.pool_spatial_means(model)
    assert model.graph.node[1].op_type == "GlobalAveragePool"
    np.testing.assert_allclose(evaluate(model, x), before, rtol=1e-5, atol=1e-6)
    channels = build([1])
    onnx_graph.pool_spatial_means(channels)
    assert channels.graph.node[1].op_type == "ReduceMean"


def test_classify() -> None:
    dense = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": random_array(4, 3)})
    assert onnx_graph.classify_graph(dense) == "dense"
    conv = [helper.make_node("Conv", ["x", "w"], ["y"])]
    assert onnx_graph.classify_graph(make_model(conv, {"w": random_array(5, 3, 1, 1)})) == "cnn"
    attention = [
        helper.make_node("LayerNormalization", ["x", "g"], ["n"]),
        helper.make_node("MatMul", ["n", "w"], ["h"]),
        helper.make_node("Softmax", ["h"], ["y"]),
    ]
    constants = {"w": random_array(4, 3), "g": random_array(4)}
    assert onnx_graph.classify_graph(make_model(attention, constants, opset=17)) == "transformer"
    assert onnx_graph.classify_graph(make_model([helper.make_node("Relu", ["x"], ["y"])], {})) == "other"


def test_raise_opset_converts_once_and_asks_the_verifier() -> None:
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {}, opset=11)
    asked: list[Any] = []
    raised = onnx_graph.raise_opset(model, 13, asked.append)
    assert onnx_graph.find_opset(raised) == 13
    assert asked == [raised]
    assert onnx_graph.raise_opset(raised, 13) is raised


def test_raise_opset_names_the_versions_when_the_converter_fails() -> None:
    model = make_model([helper.make_node("NoSuchOperator", ["x"], ["y"])], {}, opset=11)
    with pytest.raises(BuildFailedError, match="from opset 11 to 13"):
        onnx_graph.raise_opset(model, 13)


def test_large_models_keep_their_weights_apart_and_are_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "_PROTOBUF_LIMIT_BYTES", 1000)
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": random_array(4, 200)})
    before = model.SerializeToString()
    onnx_graph.save_model(model, tmp_path / "model.onnx")
    assert model.SerializeToString() == before
    assert onnx_graph.find_external_files(tmp_path / "model.onnx") == ["model.onnx.data"]
    loaded = onnx.load(str(tmp_path / "model.onnx"))
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), random_array(4, 200))


def test_external_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4000))
    (tmp_path / "model").mkdir()
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": random_array(4, 200)})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "model" / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BadInputError, match=r"\.\./secret"):
        onnx_graph.find_external_files(tmp_path / "model" / "model.onnx")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xff\xff\xff")
    with pytest.raises(BadInputError, match=r"broken\.onnx"):
        onnx_graph.load_model(tmp_path / "broken.onnx")


def test_subgraphs_count_as_readers() -> None:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["h"], ["r"])], "then", [], [helper.make_tensor_value_info("r", 1, None)]
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("If", ["flag"], ["y"], "if", then_branch=inner, else_branch=inner),
    ]
    model = make_model(nodes, {"w": random_array(4, 3), "flag": np.array(True)})
    reader = onnx_graph.index_graph(model).sole_consumer("h")
    assert reader is not None
    assert reader.op_type == "If"
