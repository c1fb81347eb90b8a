"""Where TensorRT's Q/DQ pairs stand, and that the numbers in them are right; evaluated by onnx's own reference."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.core.records.shapes import ShapeRange
from modelwright.targets.graphs.dtypes import find_float_types, infer_tensor_types
from modelwright.targets.graphs.emulation import round_half_results
from modelwright.targets.graphs.legality import check_graph
from modelwright.targets.quantization.statistics import TensorStatistics
from modelwright.targets.tensorrt.pair_plan import channel_axis, find_vectors, plan_pairs
from modelwright.targets.tensorrt.quantize import SYMMETRIC_RANGES, find_scales, write_pairs

RNG = np.random.default_rng(0)


def make_model(nodes: list[Any], constants: dict[str, Any], shape: tuple[Any, ...], result: tuple[Any, ...]) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, result)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def make_weight(*shape: int) -> Any:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def make_block() -> Any:
    """Two branches that meet: conv1 - relu - conv2 on one, conv3 (a shortcut) on the other."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "w3"], ["c3"], "conv3"),
        helper.make_node("Add", ["c3", "c2"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["y"], "relu2"),
    ]
    constants = {
        "w1": make_weight(16, 16, 3, 3),
        "b1": make_weight(16, 1)[:, 0],
        "w2": make_weight(16, 16, 3, 3),
        "w3": make_weight(16, 16, 1, 1),
    }
    return make_model(nodes, constants, ("n", 16, 6, 6), ("n", 16, 6, 6))


def make_dense(operator: str, rows: int, columns: int, turned: int = 0) -> Any:
    extra = {"transB": turned} if operator == "Gemm" else {}
    shape = (columns, rows) if turned else (rows, columns)
    nodes = [helper.make_node(operator, ["x", "w"], ["y"], "dense", **extra)]
    return make_model(nodes, {"w": make_weight(*shape)}, ("n", rows), ("n", columns))


def run(model: Any, x: Any) -> Any:
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


def observe(model: Any, names: Any, x: Any) -> dict[str, float]:
    watched = type(model)()
    watched.CopyFrom(model)
    inner = [name for name in names if name not in ("x", "y")]
    watched.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in inner)
    values = dict(zip(["y", *inner], ReferenceEvaluator(watched).run(None, {"x": x}), strict=True)) | {"x": x}
    return {name: float(np.abs(values[name]).max()) for name in names}


def list_inputs(model: Any) -> dict[str, list[str]]:
    return {node.name: list(node.input) for node in model.graph.node}


def test_pairs_stand_on_inputs_and_on_the_residual_only() -> None:
    model = make_block()
    plan = plan_pairs(model, residuals=True)
    assert plan.layers == ["conv1", "conv2", "conv3"]
    # conv2 comes last and takes the Add with it: the other operand is the residual.
    assert plan.residuals == {"add": 0}
    assert list(plan.entries) == ["x", "r1", "c3"]
    written = write_pairs(model, plan, model, dict.fromkeys(plan.entries, 1.0))
    inputs = list_inputs(written)
    assert inputs["relu1"] == ["c1"], "nothing between a convolution and the Relu behind it"
    assert inputs["add"] == ["c3_dequantized", "c2"]
    assert inputs["conv1"] == ["x_dequantized", "conv1_weight_dequantized", "b1"], "the bias stays float"
    assert inputs["conv3"][0] == "x_dequantized", "readers of one tensor share its pair"
    assert sum(node.op_type == "QuantizeLinear" for node in written.graph.node) == 3
    assert check_graph(written) == []


def test_a_transformers_sums_stay_in_float() -> None:
    assert plan_pairs(make_block(), residuals=False).residuals == {}


def test_a_shortcut_that_is_no_convolution_is_the_residual() -> None:
    model = make_block()
    model.graph.node[4].input[0] = "x"
    del model.graph.node[3]
    assert plan_pairs(model, residuals=True).residuals == {"add": 0}
    kept = plan_pairs(model, ["conv2"], residuals=True)
    assert kept.residuals == {}, "the convolution before it is in float"
    assert kept.left == {"conv2": "sensitivity analysis"}


@pytest.mark.parametrize(
    ("shape", "group", "pays"),
    [
        ((16, 16, 3, 3), 1, True),
        ((16, 3, 3, 3), 1, True),  # a first layer
        ((10, 3, 3, 3), 1, False),
        ((16, 1, 3, 3), 16, True),
        ((12, 1, 3, 3), 12, False),
        ((16, 1, 1, 1), 16, False),
        ((24, 8, 3, 1), 1, False),
    ],
)
def test_small_convolutions_are_left_in_float(shape: tuple[int, ...], group: int, pays: bool) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=group)]
    model = make_model(nodes, {"w": make_weight(*shape)}, ("n", shape[1] * group, 8, 8), ("n", shape[0], 6, 6))
    plan = plan_pairs(model, residuals=True)
    assert (plan.layers == ["conv"]) == pays
    assert pays or "too few channels" in plan.left["conv"]


def test_small_matrices_and_missing_kernels_are_told() -> None:
    assert "64x10" in plan_pairs(make_dense("MatMul", 64, 10), residuals=False).left["dense"]
    plan = plan_pairs(make_block(), residuals=True, float_operators=["Conv"])
    assert plan.layers == []
    assert plan.left["conv1"] == "the runtime has no INT8 kernel for Conv"


def test_single_rows_are_known_by_the_shapes_that_an_engine_is_tuned_for() -> None:
    model = make_dense("Gemm", 64, 32)

    def shapes(batch: int) -> dict[str, ShapeRange]:
        return {"x": ShapeRange(minimum=(1, 64), optimum=(batch, 64), maximum=(8, 64))}

    assert find_vectors(model, shapes(1)) == {"dense"}
    assert find_vectors(model, shapes(8)) == set()
    assert find_vectors(model, {}) == set(), "an unknown size may be large"
    assert "single row" in plan_pairs(model, residuals=False, vectors=["dense"]).left["dense"]


@pytest.mark.parametrize(("operator", "turned", "axis"), [("MatMul", 0, 1), ("Gemm", 0, 1), ("Gemm", 1, 0)])
def test_weights_have_one_scale_an_output_channel(operator: str, turned: int, axis: int) -> None:
    model = make_dense(operator, 32, 48, turned)
    assert channel_axis(model.graph.node[0]) == axis
    plan = plan_pairs(model, residuals=False)
    written = write_pairs(model, plan, model, {"x": 1.0})
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    assert constants["dense_weight_scale"].shape == (48,)
    weight = numpy_helper.to_array(model.graph.initializer[0])
    largest = np.abs(weight).max(axis=1 - axis)
    np.testing.assert_allclose(constants["dense_weight_scale"] * 127, largest, rtol=2e-3)
    assert (constants["dense_weight_scale"] * 127 >= largest * (1 - 1e-6)).all(), "nothing is clipped"
    x = RNG.uniform(-1, 1, (5, 32)).astype(np.float32)
    np.testing.assert_allclose(run(written, x), run(model, x), atol=0.05)
    assert check_graph(written) == []


def test_a_transposed_convolution_is_quantized_along_its_output_channels() -> None:
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], "up", strides=[2, 2])]
    model = make_model(nodes, {"w": make_weight(16, 24, 2, 2)}, ("n", 16, 4, 4), ("n", 24, 8, 8))
    written = write_pairs(model, plan_pairs(model, residuals=True), model, {"x": 1.0})
    weight = next(node for node in written.graph.node if node.name == "up_weight_dq")
    assert weight.attribute[0].i == 1
    x = RNG.uniform(-1, 1, (2, 16, 4, 4)).astype(np.float32)
    assert float(np.abs(run(written, x) - run(model, x)).max()) < 0.1


def test_a_quantized_block_follows_the_float_one() -> None:
    model = make_block()
    x = RNG.standard_normal((3, 16, 6, 6)).astype(np.float32)
    plan = plan_pairs(model, residuals=True)
    written = write_pairs(model, plan, model, observe(model, plan.entries, x))
    expected, found = run(model, x).ravel(), run(written, x).ravel()
    assert expected @ found / np.linalg.norm(expected) / np.linalg.norm(found) > 0.9995
    assert float(np.abs(expected - found).max()) > 0


def test_scales_survive_a_cast_to_float16() -> None:
    limits = np.array([127.0, 1.0, 0.3, 1e-5, 0.0, 60000.0], np.float32)
    scales = find_scales(limits)
    assert scales[0] == 1.0
    np.testing.assert_array_equal(scales.astype(np.float16).astype(np.float32), scales)
    assert (scales * 127 >= limits * (1 - 1e-6)).all()
    assert (scales > 0).all(), "TensorRT takes no scale of 0"
    np.testing.assert_allclose(scales[:3], limits[:3] / 127, rtol=1e-3)


def test_pairs_take_the_type_of_the_tensor_that_they_stand_on() -> None:
    """A graph after casts: the layer's activation and bias are float16, so both DequantizeLinear nodes give float16."""
    source = make_dense("Gemm", 32, 48)
    mixed = type(source)()
    mixed.CopyFrom(source)
    weight = numpy_helper.to_array(source.graph.initializer[0]).astype(np.float16)
    mixed.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    del mixed.graph.node[:]
    mixed.graph.node.extend(
        [
            helper.make_node("Cast", ["x"], ["x16"], "down", to=TensorProto.FLOAT16),
            helper.make_node("Gemm", ["x16", "w"], ["y16"], "dense"),
            helper.make_node("Cast", ["y16"], ["y"], "up", to=TensorProto.FLOAT),
        ]
    )
    plan = plan_pairs(source, residuals=False)
    written = write_pairs(mixed, plan, source, {"x": 1.0}, infer_tensor_types(mixed))
    kinds = {tensor.name: tensor.data_type for tensor in written.graph.initializer}
    assert kinds["x16_int8_scale"] == kinds["dense_weight_scale"] == TensorProto.FLOAT16
    assert "w" not in kinds, "the float weight would double the file"
    assert infer_tensor_types(written)["dense_weight_dequantized"] == "float16"
    assert find_float_types(written).compute == {"Gemm": {"int8": 1}}
    x = RNG.uniform(-1, 1, (5, 32)).astype(np.float32)
    np.testing.assert_allclose(run(written, x), run(source, x), atol=0.06)


def test_symmetric_ranges_have_known_answers() -> None:
    counts = np.zeros(2048, np.int64)
    counts[0], counts[1024] = 1, 10_000_000  # one value at the low end, the rest at about 0.5
    seen = TensorStatistics(low=-4.0, high=5.0, counts=counts, size=100)
    assert SYMMETRIC_RANGES["minmax"](seen) == 5.0
    assert SYMMETRIC_RANGES["percentile-99.999"](seen) < 1.0
    # One value in 10 million is worth clipping, down to the end of the search: a fifth of the largest.
    assert 1.0 <= SYMMETRIC_RANGES["least-error"](seen) <= 1.05001
    even = TensorStatistics(low=-1.0, high=1.0, counts=np.ones(2048, np.int64), size=100)
    assert SYMMETRIC_RANGES["least-error"](even) > 0.95


def test_emulation_rounds_every_float16_result() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "down", to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["h", "large"], ["big"], "grow"),
        helper.make_node("Transpose", ["big"], ["turned"], "turn"),
        helper.make_node("Mul", ["turned", "small"], ["back"], "shrink"),
        helper.make_node("Cast", ["back"], ["y"], "up", to=TensorProto.FLOAT),
    ]
    constants = {"large": np.float16(1000), "small": np.float16(0.001)}
    model = make_model(nodes, constants, ("n", 4), (4, "n"))
    emulated = round_half_results(model)
    assert [node.op_type for node in emulated.graph.node] == [
        "Cast", "Mul", "Unsqueeze", "Squeeze", "Transpose", "Mul", "Unsqueeze", "Squeeze", "Cast",
    ]  # fmt: skip
    x = RNG.uniform(-1, 1, (3, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(emulated, x), run(model, x))
