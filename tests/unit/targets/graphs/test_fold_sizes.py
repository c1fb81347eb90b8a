"""What a graph computes of its own sizes: numbers and names known beforehand, and the same answers at any batch."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.targets.graphs.fold_sizes import fold_sizes
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.graphs.sizes import broadcast, find_sizes

RNG = np.random.default_rng(0)


def make_model(nodes: list[Any], constants: dict[str, Any], shape: tuple[Any, ...] = ("n", 6, 8)) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def size_of(tensor: str, axis: int) -> list[Any]:
    """Nodes as torch writes them: one size of a tensor, as a vector."""
    name = f"{tensor}_{axis}"
    return [
        helper.make_node("Shape", [tensor], [f"{name}_shape"], f"{name}_shape"),
        helper.make_node("Gather", [f"{name}_shape", f"at{axis}"], [f"{name}_scalar"], f"{name}_gather"),
        helper.make_node("Unsqueeze", [f"{name}_scalar", "at0v"], [name], f"{name}_unsqueeze"),
    ]


CONSTANTS = {
    "w": RNG.standard_normal((8, 8)).astype(np.float32),
    "b": RNG.standard_normal(8).astype(np.float32),
    "at0": np.array(0),
    "at1": np.array(1),
    "at0v": np.array([0]),
    "heads": np.array([2]),
    "rest": np.array([-1]),
}
HEADS = [  # a projection cut into heads, by the batch and length of what it was made from
    helper.make_node("MatMul", ["x", "w"], ["m"], "dense"),
    helper.make_node("Add", ["b", "m"], ["p"], "bias"),
    *size_of("x", 0),
    *size_of("x", 1),
    helper.make_node("Concat", ["x_0", "x_1", "heads", "rest"], ["shape"], "concat", axis=0),
    helper.make_node("Reshape", ["p", "shape"], ["h"], "cut"),
    helper.make_node("Transpose", ["h"], ["t"], "turn", perm=[0, 2, 1, 3]),
    helper.make_node("Concat", ["x_0", "rest"], ["flat"], "concat2", axis=0),
    helper.make_node("Reshape", ["t", "flat"], ["y"], "join"),
]


def check(model: Any, shapes: list[tuple[int, ...]], less: int) -> list[str]:
    """Folds, and returns the operators that are left; the answers must be those of before."""
    inputs = [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]
    before = [ReferenceEvaluator(model).run(None, {"x": x})[0] for x in inputs]
    assert fold_sizes(model) == less
    for x, expected in zip(inputs, before, strict=True):
        found = ReferenceEvaluator(model).run(None, {"x": x})[0]
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)
    return [node.op_type for node in model.graph.node]


def test_shapes_of_heads_become_constants_that_copy_the_batch() -> None:
    model = make_model(HEADS, CONSTANTS)
    left = check(model, [(1, 6, 8), (3, 6, 8)], less=8)
    assert left == ["MatMul", "Add", "Reshape", "Transpose", "Reshape"]
    index = index_graph(model)
    shapes = [index.array(node.input[1]).tolist() for node in model.graph.node if node.op_type == "Reshape"]
    assert shapes == [[0, 6, 2, 4], [0, 48]]


def test_two_sizes_that_vary_take_the_copy_and_the_one_open_place() -> None:
    model = make_model(HEADS, CONSTANTS, ("n", "s", 8))
    assert find_sizes(model).shapes["h"] == ("x:0", "x:1", 2, 4)
    left = check(model, [(1, 6, 8), (3, 5, 8)], less=8)
    assert left == ["MatMul", "Add", "Reshape", "Transpose", "Reshape"]


def test_two_sizes_of_one_name_need_not_be_one() -> None:
    model = make_model(HEADS, CONSTANTS, ("?", "?", 8))
    assert find_sizes(model).shapes["x"] == ("x:0", "x:1", 8)
    check(model, [(2, 6, 8), (3, 3, 8)], less=8)


def test_a_shape_with_two_open_places_stays() -> None:
    nodes = [
        *size_of("x", 0),
        *size_of("x", 1),
        helper.make_node("Concat", ["x_1", "x_0", "rest"], ["shape"], "concat", axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"], "swap"),
    ]
    left = check(make_model(nodes, CONSTANTS, ("n", "s", 8)), [(2, 3, 8), (4, 4, 8)], less=0)
    assert left.count("Shape") == 2


def test_positions_and_expands_as_torch_writes_them() -> None:
    """`expand` compares a shape with -1 before it uses it; positions are a range to the length."""
    nodes = [
        *size_of("x", 0),
        *size_of("x", 1),
        helper.make_node("Range", ["at0", "x_1_scalar", "at1"], ["positions"], "range"),
        helper.make_node("Cast", ["positions"], ["numbers"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Concat", ["x_0", "x_1"], ["shape"], "concat", axis=0),
        helper.make_node("ConstantOfShape", ["two"], ["ones"], "ones", value=numpy_helper.from_array(np.array([1]))),
        helper.make_node("Mul", ["ones", "rest"], ["unset"], "minus"),
        helper.make_node("Equal", ["shape", "unset"], ["is_unset"], "equal"),
        helper.make_node("Where", ["is_unset", "ones", "shape"], ["wanted"], "where"),
        helper.make_node("Expand", ["numbers", "wanted"], ["e"], "expand"),
        helper.make_node("ReduceSum", ["x", "last"], ["s"], "sum", keepdims=0),
        helper.make_node("Add", ["e", "s"], ["a"], "add"),
        helper.make_node("Expand", ["a", "wanted"], ["y"], "nothing to expand"),
    ]
    model = make_model(nodes, CONSTANTS | {"two": np.array([2]), "last": np.array([2])})
    sizes = find_sizes(model)
    assert sizes.values["positions"].tolist() == [0, 1, 2, 3, 4, 5]
    assert sizes.values["wanted"].tolist() == ["x:0", 6]
    left = check(model, [(1, 6, 8), (3, 6, 8)], less=7)
    assert left[:5] == ["Shape", "Gather", "Unsqueeze", "Cast", "Concat"]
    assert left[5:] == ["Identity", "Expand", "ReduceSum", "Add", "Identity"]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([("n", 6), (6,)], ("n", 6)),
        ([("n", 1), ("n", 6)], ("n", 6)),
        ([("n",), (4,)], (4,)),
        ([("n",), (1,)], ("n",)),
        ([("n",), ("m",)], ("out:-1",)),
        ([(), ()], ()),
    ],
)
def test_broadcasting_of_names(shapes: Any, expected: Any) -> None:
    assert broadcast(shapes, "out") == expected
