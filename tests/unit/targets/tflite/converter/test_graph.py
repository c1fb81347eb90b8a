"""The converter's rewrites of ONNX graphs, proved by value: the model before and after must give the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.targets.tflite.converter.graph import Graph, infer
from modelwright.targets.tflite.converter.prepare import finish_outputs, prepare_graph
from modelwright.targets.tflite.converter.rewrite import drop_expands
from modelwright.targets.tflite.converter.twin import BatchPinnedError, align_constants

RNG = np.random.default_rng(0)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def node(op_type: str, inputs: str, outputs: str, name: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), outputs.split(), name, **attributes)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Any],
    shape: Sequence[int | str] = ("n", 4),
    outputs: str = "y",
    *,
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs.split()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def run(model: onnx.ModelProto, **feeds: Any) -> list[Any]:
    return list(ReferenceEvaluator(model).run(None, feeds))


def prepare(model: onnx.ModelProto, x: Any) -> Graph:
    """Prepares the model and proves that it still gives the same numbers."""
    graph = prepare_graph(model, {"x": x.shape})
    prepared = graph.to_model()
    onnx.checker.check_model(prepared)
    for actual, expected in zip(run(prepared, x=x), run(model, x=x), strict=True):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    return graph


def kinds(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


# Products with a constant


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 4), ["Gemm"]),
        ((2, 3, 4), ["Reshape", "Gemm", "Reshape"]),
        ((2, 3, 5, 4), ["Reshape", "Gemm", "Reshape"]),
    ],
)
def test_a_product_with_a_constant_becomes_gemm(shape: tuple[int, ...], expected: list[str]) -> None:
    graph = prepare(make_model([node("MatMul", "x w", "y")], {"w": floats(4, 6)}, shape), floats(*shape))
    assert kinds(graph) == expected
    assert graph.shapes["y"] == (*shape[:-1], 6)


@pytest.mark.parametrize("order", ["m b", "b m"])
@pytest.mark.parametrize("bias", [(6,), (1, 6), (1, 1, 6)])
def test_the_bias_goes_into_the_gemm(order: str, bias: tuple[int, ...]) -> None:
    nodes = [node("MatMul", "x w", "m"), node("Add", order, "y")]
    graph = prepare(make_model(nodes, {"w": floats(4, 6), "b": floats(*bias)}, (2, 3, 4)), floats(2, 3, 4))
    assert kinds(graph) == ["Reshape", "Gemm", "Reshape"]


@pytest.mark.parametrize("bias", [(3, 6), (3, 1), (2, 1, 1, 6), ()])
def test_what_is_not_one_number_a_column_stays_an_add(bias: tuple[int, ...]) -> None:
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b", "y")]
    graph = prepare(make_model(nodes, {"w": floats(4, 6), "b": floats(*bias)}, (3, 4)), floats(3, 4))
    assert kinds(graph) == ["Gemm", "Add"]


def test_a_product_that_others_read_keeps_its_value() -> None:
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b", "y"), node("Relu", "m", "z")]
    constants = {"w": floats(4, 6), "b": floats(6)}
    assert "Add" in kinds(prepare(make_model(nodes, constants, outputs="y z"), floats(3, 4)))
    assert "Add" in kinds(prepare(make_model(nodes[:2], constants, outputs="y m"), floats(3, 4)))


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_a_constant_on_the_left(shape: tuple[int, ...]) -> None:
    graph = prepare(make_model([node("MatMul", "w x", "y")], {"w": floats(5, 4)}, shape), floats(*shape))
    assert "MatMul" not in kinds(graph)
    assert kinds(graph).count("Gemm") == 1
    assert graph.shapes["y"] == (*shape[:-2], 5, 3)


@pytest.mark.parametrize(
    ("inputs", "weight", "shape"), [("x w", (2, 4, 6), (2, 3, 4)), ("x w", (4,), (3, 4)), ("w x", (5, 4), (4,))]
)
def test_other_ranks_are_left_alone(inputs: str, weight: tuple[int, ...], shape: tuple[int, ...]) -> None:
    graph = prepare(make_model([node("MatMul", inputs, "y")], {"w": floats(*weight)}, shape), floats(*shape))
    assert kinds(graph) == ["MatMul"]


# GELU

ROOT, ONE, HALF = (np.float32(value) for value in (2**0.5, 1, 0.5))
GELUS = {
    "product last": ["Div x root s", "Erf s e", "Add e one a", "Mul x a p", "Mul p half y"],
    "half first": ["Div x root s", "Erf s e", "Add one e a", "Mul a half p", "Mul p x y"],
    "halved source": ["Mul x inverse s", "Erf s e", "Add e one a", "Mul half x h", "Mul h a y"],
    "inverse on the left": ["Mul inverse x s", "Erf s e", "Add e one a", "Mul half a p", "Mul x p y"],
}
NOT_GELUS = {
    "another root": ["Div x one s", "Erf s e", "Add e one a", "Mul x a p", "Mul p half y"],
    "another factor": ["Div x root s", "Erf s e", "Add e one a", "Mul x a p", "Mul p root y"],
    "another source": ["Div x root s", "Relu x r", "Erf s e", "Add e one a", "Mul r a p", "Mul p half y"],
    "source twice": ["Div x root s", "Erf s e", "Add e one a", "Mul x a p", "Mul p x y"],
    "square": ["Div x root s", "Erf s e", "Add e one a", "Mul a a y"],
    "no end": ["Div x root s", "Erf s e", "Add e one y"],
}
GELU_CONSTANTS = {"root": ROOT, "one": ONE, "half": HALF, "inverse": np.float32(0.5**0.5)}


def make_gelu(lines: list[str], outputs: str = "y") -> onnx.ModelProto:
    nodes = [node(op, " ".join(inputs), output) for op, *inputs, output in (line.split() for line in lines)]
    return make_model(nodes, GELU_CONSTANTS, outputs=outputs)


@pytest.mark.parametrize("spelling", GELUS)
def test_every_spelling_of_gelu_becomes_the_one_that_is_fused(spelling: str) -> None:
    graph = prepare(make_gelu(GELUS[spelling]), np.linspace(-4, 4, 12, dtype=np.float32).reshape(3, 4))
    assert kinds(graph) == ["Div", "Erf", "Add", "Mul", "Mul"]
    scaled, _, _, gated, last = graph.nodes
    assert scaled.input[0] == gated.input[0] == "x"
    assert graph.constants[last.input[1]] == HALF


def test_gelu_has_the_textbook_value() -> None:
    model = prepare_graph(make_gelu(GELUS["halved source"]), {"x": (1, 4)}).to_model()
    x = np.array([[-1, 0, 1, 2]], np.float32)
    np.testing.assert_allclose(run(model, x=x)[0], [[-0.158655, 0, 0.841345, 1.954500]], atol=1e-5)


@pytest.mark.parametrize("spelling", NOT_GELUS)
def test_what_only_looks_like_gelu_keeps_its_value(spelling: str) -> None:
    before = make_gelu(NOT_GELUS[spelling])
    graph = prepare(before, floats(3, 4))
    assert kinds(graph) == [line.split()[0] for line in NOT_GELUS[spelling]]


def test_an_inner_value_of_gelu_that_is_an_output_stays() -> None:
    prepare(make_gelu(GELUS["product last"], "y a e"), floats(3, 4))


# Max pools


def make_pool(before: str, opset: int = 17, **attributes: Any) -> onnx.ModelProto:
    nodes = [
        node(before, "x", "r") if before != "Clip" else node(before, "x low", "r"),
        node("MaxPool", "r", "y", "pool", **{"kernel_shape": [3, 3], "pads": [1, 0, 2, 1], **attributes}),
    ]
    return make_model(nodes, {"low": np.float32(attributes.pop("low", 0))}, (2, 3, 6, 7), opset=opset)


@pytest.mark.parametrize("before", ["Relu", "Sigmoid", "Clip"])
@pytest.mark.parametrize("extra", [{"strides": [2, 2]}, {"dilations": [2, 1]}])
def test_a_max_pool_of_what_is_never_negative_is_padded_with_zeros(before: str, extra: dict[str, Any]) -> None:
    graph = prepare(make_pool(before, **extra), floats(2, 3, 6, 7))
    assert kinds(graph) == [before, "Pad", "MaxPool"]
    assert not any(attribute.name == "pads" for attribute in graph.nodes[-1].attribute)
    assert graph.shapes[graph.nodes[1].output[0]] == (2, 3, 9, 8)


def test_a_padded_max_pool_has_the_value_of_its_windows() -> None:
    # Written out: onnx's reference implementation mistakes uneven padding where stride and dilation are 1.
    x = floats(2, 3, 6, 7)
    prepared = prepare_graph(make_pool("Relu"), {"x": x.shape}).to_model()
    padded = np.pad(np.maximum(x, 0), [(0, 0), (0, 0), (1, 2), (0, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    np.testing.assert_array_equal(run(prepared, x=x)[0], windows.max(axis=(4, 5)))


@pytest.mark.parametrize("before", ["Neg", "Tanh", "LeakyRelu"])
def test_a_max_pool_of_negative_values_keeps_its_padding(before: str) -> None:
    graph = prepare(make_pool(before), -np.abs(floats(2, 3, 6, 7)))
    assert kinds(graph) == [before, "MaxPool"]


def test_a_clip_from_below_zero_is_not_taken_for_positive() -> None:
    model = make_pool("Clip")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(-2), "low"))
    assert kinds(prepare(model, -np.abs(floats(2, 3, 6, 7)))) == ["Clip", "MaxPool"]


def test_a_max_pool_without_padding_and_old_opsets_are_left_alone() -> None:
    assert kinds(prepare(make_pool("Relu", pads=[0] * 4), floats(2, 3, 6, 7))) == ["Relu", "MaxPool"]
    assert kinds(prepare(make_pool("Relu", opset=9), floats(2, 3, 6, 7))) == ["Relu", "MaxPool"]


# Freezing and folding


def test_shape_arithmetic_is_folded_away() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "batch"),
        node("Unsqueeze", "batch first", "b"),
        node("Concat", "b rest", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]
    constants = {"zero": np.array(0), "first": np.array([0]), "rest": np.array([6, 2])}
    graph = prepare(make_model(nodes, constants, ("n", 3, 4)), floats(5, 3, 4))
    assert kinds(graph) == ["Reshape"]
    np.testing.assert_array_equal(graph.constants[graph.nodes[0].input[1]], [5, 6, 2])


def test_part_of_a_shape_and_size() -> None:
    nodes = [
        node("Shape", "x", "s", start=-2, end=-1),
        node("Size", "x", "z"),
        node("Cast", "s", "sf", to=FLOAT),
        node("Cast", "z", "zf", to=FLOAT),
        node("Mul", "x sf", "m"),
        node("Add", "m zf", "y"),
    ]
    assert kinds(prepare(make_model(nodes, {}, ("n", 3, 4)), floats(2, 3, 4))) == ["Mul", "Add"]


def test_random_operators_are_not_folded() -> None:
    nodes = [node("RandomUniform", "", "r", shape=[4]), node("Add", "x r", "y")]
    graph = prepare_graph(make_model(nodes, {}), {"x": (1, 4)})
    assert kinds(graph) == ["RandomUniform", "Add"]


def test_identities_go_and_an_output_keeps_its_name() -> None:
    nodes = [node("Identity", "x", "a"), node("Dropout", "a", "b"), node("Relu", "b", "c"), node("Identity", "c", "y")]
    graph = prepare(make_model(nodes, {}), floats(2, 4))
    assert kinds(graph) == ["Relu", "Identity"]
    assert graph.outputs == ["y"]


def make_branches() -> onnx.ModelProto:
    """`i = identity(x)` and the input itself are read only inside the branches of an If."""
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(op, reads, name)], name, [], [helper.make_tensor_value_info(name, FLOAT, None)]
        )
        for name, op, reads in (("then", "Relu", "i"), ("else", "Neg", "x"))
    }
    nodes = [
        node("Identity", "x", "i"),
        node("ReduceSum", "x", "s", keepdims=0),
        node("Greater", "s zero", "c"),
        node("If", "c", "y", **branches),
    ]
    return make_model(nodes, {"zero": np.float32(0)})


@pytest.mark.parametrize("sign", [1, -1])
def test_what_a_branch_reads_from_outside_stays_readable(sign: int) -> None:
    model, x = make_branches(), sign * np.abs(floats(2, 4))
    finished, input_names, _ = finish_outputs(prepare(model, x))
    onnx.checker.check_model(finished)
    np.testing.assert_allclose(run(finished, **{input_names["x"]: x})[0], run(model, x=x)[0])


def test_a_product_that_a_branch_reads_keeps_its_value() -> None:
    model = make_branches()
    model.graph.node[0].CopyFrom(node("MatMul", "x w", "i"))
    model.graph.node.append(node("Add", "i b", "z"))
    model.graph.output.append(helper.make_tensor_value_info("z", FLOAT, None))
    for name, value in (("w", floats(4, 4)), ("b", floats(4))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    assert "Add" in kinds(prepare(model, np.abs(floats(2, 4))))


# Expands


def make_expand(reader: str, low: tuple[int, ...] = (1, 4)) -> Graph:
    nodes = [node("Expand", "c size", "e"), node(reader, "x e", "y", **({"axis": 0} if reader == "Concat" else {}))]
    model = make_model(nodes, {"size": np.array([3, 4])}, (3, 4))
    model.graph.input.append(helper.make_tensor_value_info("c", FLOAT, low))
    return Graph(infer(model))


def test_an_expand_goes_where_its_reader_broadcasts_anyway() -> None:
    graph = make_expand("Add")
    drop_expands(graph)
    assert kinds(graph) == ["Add"]
    x, c = floats(3, 4), floats(1, 4)
    np.testing.assert_array_equal(run(graph.to_model(), x=x, c=c)[0], x + c)


def test_an_expand_stays_where_it_makes_the_shape() -> None:
    graph = make_expand("Concat")
    drop_expands(graph)
    assert kinds(graph) == ["Expand", "Concat"]
    nodes = [node("Expand", "x size", "e"), node("Add", "e one", "y")]
    alone = make_model(nodes, {"size": np.array([3, 4]), "one": ONE}, (1, 4))
    assert kinds(prepare(alone, floats(1, 4))) == ["Expand", "Add"]


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("infinity", [-np.inf, np.inf])
@pytest.mark.parametrize("inputs", ["c x inf", "c inf x"])
def test_an_infinity_of_a_mask_is_made_where_it_is_needed(inputs: str, infinity: float) -> None:
    nodes = [node("Greater", "x zero", "c"), node("Where", inputs, "y")]
    model = make_model(nodes, {"zero": np.float32(0), "inf": np.float32(infinity)}, (2, 4))
    x = floats(2, 4)
    graph = prepare_graph(model, {"x": x.shape}, infinities=True)
    prepared = graph.to_model()
    onnx.checker.check_model(prepared)
    assert "inf" not in graph.constants
    np.testing.assert_array_equal(run(prepared, x=x)[0], run(model, x=x)[0])
    assert "Where" in kinds(prepare(model, x)), "it costs speed"


def test_of_two_expands_the_one_that_makes_the_shape_stays() -> None:
    nodes = [node("Expand", "x size", "e"), node("Expand", "c size", "f"), node("Add", "e f", "y")]
    model = make_model(nodes, {"size": np.array([3, 4])}, (1, 4))
    model.graph.input.append(helper.make_tensor_value_info("c", FLOAT, (1, 4)))
    graph = Graph(infer(model))
    drop_expands(graph)
    assert kinds(graph) == ["Expand", "Add"]
    x, c = floats(1, 4), floats(1, 4)
    np.testing.assert_array_equal(run(graph.to_model(), x=x, c=c)[0], np.broadcast_to(x + c, (3, 4)))


# Inputs and outputs


def test_outputs_are_flattened_and_names_cleaned() -> None:
    nodes = [node("Relu", "x", "a/b:0"), node("ReduceMean", "a/b:0", "a.b.0", axes=[2, 3], keepdims=0)]
    model = make_model(nodes, {}, ("n", 3, 3, 3), "a/b:0 a.b.0")
    x = floats(2, 3, 3, 3)
    finished, inputs, outputs = finish_outputs(prepare_graph(model, {"x": x.shape}))
    assert inputs == {"x": "in_x"}
    assert list(outputs) == ["a/b:0", "a.b.0"]
    assert len(set(outputs.values())) == 2
    assert all(name.replace("_", "").isalnum() for name in outputs.values())
    flat, mean = run(finished, in_x=x)
    np.testing.assert_array_equal(flat, np.maximum(x, 0).reshape(2, 27))
    np.testing.assert_allclose(mean, np.maximum(x, 0).mean(axis=(2, 3)), rtol=1e-6)


def test_an_input_that_is_an_output_too() -> None:
    model = make_model([node("Relu", "x", "y")], {}, outputs="y x")
    finished, _, outputs = finish_outputs(prepare_graph(model, {"x": (2, 4)}))
    x = floats(2, 4)
    np.testing.assert_array_equal(run(finished, in_x=x)[1], x)
    assert list(outputs) == ["y", "x"]


# Constants that grew with the batch


def prepare_pair(nodes: Sequence[onnx.NodeProto], constants: dict[str, Any]) -> tuple[Graph, Graph]:
    model = make_model(nodes, constants, ("n", 2, 4))
    first, second = (prepare_graph(model, {"x": (batch, 2, 4)}) for batch in (2, 3))
    return first, second


def expand_to_batch(constant: str, output: str, rest: str) -> list[onnx.NodeProto]:
    """`output` is `constant` with one copy a sample; folding bakes the batch size into it."""
    return [
        node("Shape", "x", "n", start=0, end=1),
        node("Concat", f"n {rest}", "size", axis=0),
        node("Expand", f"{constant} size", output),
    ]


@pytest.mark.parametrize("batch", [2, 3, 5])
def test_a_class_token_broadcasts_over_any_batch(batch: int) -> None:
    token = floats(1, 1, 4)
    nodes = [*expand_to_batch("token", "tokens", "rest"), node("Concat", "tokens x", "y", "join", axis=1)]
    graphs = prepare_pair(nodes, {"token": token, "rest": np.array([1, 4])})
    align_constants(*graphs)
    assert all(kinds(graph) == ["Pad", "Add"] for graph in graphs)
    x = floats(batch, 2, 4)
    expected = np.concatenate([np.broadcast_to(token, (batch, 1, 4)), x], axis=1)
    for graph in graphs:
        graph.shapes["x"] = x.shape
        graph.shapes["y"] = expected.shape
        np.testing.assert_array_equal(run(graph.to_model(), x=x)[0], expected)


def test_rows_that_differ_or_readers_that_cannot_broadcast_pin_the_batch() -> None:
    ranged = [
        node("Shape", "x", "n", start=0, end=1),
        node("Squeeze", "n", "count"),
        node("Range", "zero count one", "rows"),
        node("Cast", "rows", "numbers", to=FLOAT),
        node("Reshape", "numbers column", "grown"),
        node("Add", "x grown", "y"),
    ]
    constants = {"zero": np.array(0), "one": np.array(1), "column": np.array([-1, 1, 1])}
    with pytest.raises(BatchPinnedError, match="differs from sample to sample"):
        align_constants(*prepare_pair(ranged, constants))
    gather = [*expand_to_batch("table", "tables", "rest"), node("MatMul", "x tables", "y", "product")]
    with pytest.raises(BatchPinnedError, match="MatMul product"):
        align_constants(*prepare_pair(gather, {"table": floats(1, 4, 4), "rest": np.array([4, 4])}))


# Names and constants of other kinds


def test_a_sparse_weight_is_a_constant_like_any_other() -> None:
    model = make_model([node("MatMul", "x w", "y", "fc")], {})
    values = numpy_helper.from_array(np.array([2, -1], np.float32), "w")
    places = numpy_helper.from_array(np.array([[1, 2], [3, 0]]), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 3]))
    x = floats(2, 4)
    graph = prepare_graph(model, {"x": x.shape})
    expected = x @ np.array([[0, 0, 0], [0, 0, 2], [0, 0, 0], [-1, 0, 0]], np.float32)
    np.testing.assert_allclose(run(graph.to_model(), x=x)[0], expected, rtol=1e-6)


def test_a_new_name_is_none_that_a_branch_would_hide() -> None:
    branch = helper.make_graph(
        [node("Relu", "x", "inner")], "b", [], [helper.make_tensor_value_info("inner", FLOAT, None)]
    )
    graph = Graph(make_model([node("If", "flag", "y", then_branch=branch, else_branch=branch)], {"flag": True}))
    assert graph.new_name("inner") == "inner_1"
    graph.replace_input("x", graph.new_name("in_x"))
    assert set(graph.consumers()) == {"flag", "in_x"}
