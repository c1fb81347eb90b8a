"""What TFLite does not have, written with what it has: proved by value against ONNX's own reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.targets.tflite.converter.doubles import narrow_doubles
from modelwright.targets.tflite.converter.graph import Graph
from modelwright.targets.tflite.converter.operators import UnsupportedOperatorError
from modelwright.targets.tflite.converter.prepare import prepare_graph

RNG = np.random.default_rng(0)
FLOAT, DOUBLE, BOOL = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL


def make_model(nodes: list[Any], constants: dict[str, Any], inputs: dict[str, Any], opset: int = 18) -> onnx.ModelProto:
    kinds = {np.dtype(np.float64): DOUBLE, np.dtype(np.float32): FLOAT, np.dtype(bool): BOOL}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kinds[value.dtype], value.shape) for name, value in inputs.items()],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> Any:
    return ReferenceEvaluator(model).run(["y"], feeds)[0]


def prepare(model: onnx.ModelProto, **feeds: Any) -> Graph:
    graph = prepare_graph(model, {name: value.shape for name, value in feeds.items()})
    prepared = graph.to_model()
    onnx.checker.check_model(prepared)
    narrow = {name: value.astype(np.float32) if value.dtype == np.float64 else value for name, value in feeds.items()}
    expected = run(model, feeds)
    actual = run(prepared, narrow)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    return graph


def kinds(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


# Pads


@pytest.mark.parametrize("strides", [[1, 1], [2, 3]])
@pytest.mark.parametrize("size", [(8, 9), (7, 7)])
def test_same_lower_pads_before_what_same_upper_pads_after(size: tuple[int, int], strides: list[int]) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=strides)
    graph = prepare(make_model([node], {"w": floats(2, 3, 4, 3)}, {"x": floats(1, 3, *size)}), x=floats(1, 3, *size))
    assert not any(attribute.name == "auto_pad" for attribute in graph.nodes[0].attribute)


def test_the_numbers_of_same_lower() -> None:
    """7 wide, 4 across, stride 2: 4 windows end at 7, so 3 are missing, of which 2 go before."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2])
    graph = prepare(make_model([node], {"w": floats(1, 1, 4)}, {"x": floats(1, 1, 7)}), x=floats(1, 1, 7))
    pads = next(attribute for attribute in graph.nodes[0].attribute if attribute.name == "pads")
    assert list(pads.ints) == [2, 1]


def test_same_lower_of_a_pool() -> None:
    node = helper.make_node("AveragePool", ["x"], ["y"], auto_pad="SAME_LOWER", kernel_shape=[4, 3], strides=[2, 2])
    x = floats(1, 2, 9, 8)
    graph = prepare_graph(make_model([node], {}, {"x": x}), {"x": x.shape})
    pads = next(attribute for attribute in graph.nodes[0].attribute if attribute.name == "pads")
    assert list(pads.ints) == [2, 1, 1, 0]


def test_same_upper_is_left_to_tflite() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")
    graph = prepare(make_model([node], {"w": floats(1, 1, 4)}, {"x": floats(1, 1, 7)}), x=floats(1, 1, 7))
    assert any(attribute.s == b"SAME_UPPER" for attribute in graph.nodes[0].attribute)


# Doubles


def test_a_model_in_float64_computes_in_float32_and_says_so() -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), helper.make_node("Cast", ["z"], ["y"], to=FLOAT)]
    x = RNG.standard_normal((2, 4))
    graph = prepare(make_model(nodes, {"w": RNG.standard_normal((4, 3)), "b": np.ones(3)}, {"x": x}), x=x)
    assert DOUBLE not in graph.dtypes.values()
    assert any("float32" in note for note in graph.notes)


def test_every_place_that_names_the_type_is_narrowed() -> None:
    body = helper.make_graph(
        [
            helper.make_node(
                "Constant", [], ["c"], value=numpy_helper.from_array(np.array([1e300, -1e300, np.inf, 2.5]))
            )
        ],
        "body",
        [],
        [helper.make_tensor_value_info("c", DOUBLE, [4])],
    )
    nodes = [
        helper.make_node("If", ["flag"], ["d"], then_branch=body, else_branch=body),
        helper.make_node("Cast", ["d"], ["y"], to=FLOAT),
        helper.make_node("RandomNormal", [], ["r"], dtype=DOUBLE, shape=[1]),
    ]
    model = make_model(nodes, {}, {"flag": np.array(True)})
    assert narrow_doubles(model)
    limit = np.finfo(np.float32).max
    assert run(model, {"flag": np.array(True)}).tolist() == [limit, -limit, np.inf, 2.5]
    assert DOUBLE not in [attribute.i for node in model.graph.node for attribute in node.attribute]
    assert not narrow_doubles(model)


# Branches


def branch(name: str, op_type: str, other: str) -> onnx.GraphProto:
    """`x op other`, then its own constant added; all branches use the same names inside."""
    nodes = [
        helper.make_node(op_type, ["x", other], ["inner"], "same"),
        helper.make_node("Add", ["inner", "own"], [name]),
    ]
    own = numpy_helper.from_array(np.float32(len(op_type)), "own")
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, FLOAT, None)], [own])


def choose(condition: str, **changes: Any) -> onnx.NodeProto:
    branches = {"then_branch": branch("out", "Mul", "two"), "else_branch": branch("out", "Sub", "two")} | changes
    return helper.make_node("If", [condition], ["y"], "choice", **branches)


@pytest.mark.parametrize("value", [True, False])
def test_of_a_known_condition_only_the_branch_that_runs_is_kept(*, value: bool) -> None:
    x = floats(2, 3)
    graph = prepare(make_model([choose("flag")], {"flag": np.array(value), "two": np.float32(2)}, {"x": x}), x=x)
    assert kinds(graph)[:2] == ["Mul" if value else "Sub", "Add"]
    assert not {"Mul", "Sub", "If", "Where"} & set(kinds(graph)[1:])
    assert graph.notes == []


def test_a_condition_on_the_shape_is_known() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=1),
        helper.make_node("Equal", ["s", "three"], ["flag"]),
        choose("flag"),
    ]
    x = floats(2, 3)
    graph = prepare(make_model(nodes, {"three": np.array([3]), "two": np.float32(2)}, {"x": x}), x=x)
    assert "Mul" in kinds(graph)
    assert "Sub" not in kinds(graph)


@pytest.mark.parametrize("value", [True, False])
def test_of_a_condition_on_the_inputs_both_branches_are_computed(*, value: bool) -> None:
    x = floats(2, 3)
    model = make_model([choose("flag")], {"two": np.float32(2)}, {"x": x, "flag": np.array(value)})
    graph = prepare(model, x=x, flag=np.array(value))
    assert sorted(kinds(graph)) == ["Add", "Add", "Mul", "Sub", "Where"]
    assert graph.notes == ["If choice: both branches are computed, as the inputs say which one counts"]


@pytest.mark.parametrize("value", [True, False])
def test_a_branch_in_a_branch(*, value: bool) -> None:
    inner = helper.make_graph([choose("flag")], "inner", [], [helper.make_tensor_value_info("y", FLOAT, None)])
    x = floats(2, 3)
    model = make_model(
        [choose("always", then_branch=inner)],
        {"two": np.float32(2), "always": np.array(True)},
        {"x": x, "flag": np.array(value)},
    )
    assert "Where" in kinds(prepare(model, x=x, flag=np.array(value)))


def test_branches_of_different_shapes_are_refused_by_name_and_with_the_reason() -> None:
    narrow = helper.make_graph(
        [helper.make_node("ReduceMax", ["x"], ["less"], keepdims=0)],
        "narrow",
        [],
        [helper.make_tensor_value_info("less", FLOAT, None)],
    )
    x = floats(2, 3)
    model = make_model([choose("flag", else_branch=narrow)], {"two": np.float32(2)}, {"x": x, "flag": np.array(True)})
    with pytest.raises(UnsupportedOperatorError, match="only the inputs say which one runs") as caught:
        prepare_graph(model, {"x": x.shape, "flag": ()})
    assert (caught.value.operator, caught.value.node) == ("If", "choice")


# Spectra


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("window", ["w", ""])
@pytest.mark.parametrize("shape", [(2, 40), (2, 40, 1)])
def test_a_short_time_spectrum_is_a_convolution(shape: tuple[int, ...], window: str, onesided: int) -> None:
    inputs = ["x", "step", window, "length"]
    node = helper.make_node("STFT", inputs, ["y"], onesided=onesided)
    constants = {"step": np.array(6), "length": np.array(16)} | ({"w": np.hanning(16).astype("f4")} if window else {})
    x = floats(*shape)
    model = make_model([node], constants, {"x": x})
    graph = prepare_graph(model, {"x": shape})
    assert "STFT" not in kinds(graph)
    (actual,) = ReferenceEvaluator(graph.to_model()).run(["y"], {"x": x})
    frames = np.stack([x.reshape(2, 40)[:, start : start + 16] for start in range(0, 25, 6)], axis=1)
    weights = np.hanning(16) if window else np.ones(16)
    spectrum = (np.fft.rfft if onesided else np.fft.fft)(frames * weights)
    np.testing.assert_allclose(actual, np.stack([spectrum.real, spectrum.imag], axis=-1), atol=1e-4)


def test_a_spectrum_of_a_step_that_varies_keeps_its_operator() -> None:
    node = helper.make_node("STFT", ["x", "step", "", "length"], ["y"])
    x = floats(1, 40)
    model = make_model([node], {"length": np.array(16)}, {"x": x})
    model.graph.input.append(helper.make_tensor_value_info("step", TensorProto.INT64, []))
    assert "STFT" in kinds(prepare_graph(model, {"x": x.shape, "step": ()}))


# Means


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(("opset", "axes"), [(13, [2, 3]), (18, [-1, -2])])
def test_a_mean_over_rows_and_columns_of_a_convolution_is_a_pooling(keepdims: int, opset: int, axes: list[int]) -> None:
    constants: dict[str, Any] = {"w": floats(5, 3, 3, 3)}
    given: dict[str, Any] = {"axes": axes}
    if opset >= 18:
        constants["axes"], given = np.array(axes), {}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r", *(["axes"] if opset >= 18 else [])], ["y"], keepdims=keepdims, **given),
    ]
    x = floats(2, 3, 6, 7)
    found = kinds(prepare(make_model(nodes, constants, {"x": x}, opset), x=x))
    assert found == ["Conv", "Relu", "GlobalAveragePool", *([] if keepdims else ["Flatten"])]


@pytest.mark.parametrize(("axes", "made"), [([1, 2], "Conv"), ([3], "Conv"), ([2, 3], "Transpose")])
def test_other_means_stay(axes: list[int], made: str) -> None:
    attributes = {"perm": [0, 2, 1, 3]} if made == "Transpose" else {}
    nodes = [
        helper.make_node(made, ["x", *(["w"] if made == "Conv" else [])], ["c"], **attributes),
        helper.make_node("ReduceMean", ["c"], ["y"], axes=axes),
    ]
    x = floats(2, 3, 6, 7)
    constants = {"w": floats(5, 3, 3, 3)} if made == "Conv" else {}
    assert kinds(prepare(make_model(nodes, constants, {"x": x}, 13), x=x)) == [made, "ReduceMean"]
