"""The walk through nested graphs and functions, and which names belong to whom, on graphs whose answers are plain."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.onnx.facts import find_inputs, find_opset
from modelwright.core.onnx.walk import (
    captured_names,
    find_subgraphs,
    iterate_graphs,
    iterate_tensors,
    own_names,
    read_names,
    rename_reads,
)

FLOAT = TensorProto.FLOAT


def value(name: str) -> Any:
    return helper.make_tensor_value_info(name, FLOAT, None)


def constant(name: str) -> Any:
    return numpy_helper.from_array(np.ones(2, np.float32), name)


def branch(name: str, nodes: list[Any], output: str, **parts: Any) -> Any:
    return helper.make_graph(nodes, name, parts.pop("inputs", []), [value(output)], **parts)


def make_if(then_branch: Any, else_branch: Any) -> Any:
    return helper.make_node("If", ["flag"], ["y"], "if", then_branch=then_branch, else_branch=else_branch)


def make_model(nodes: list[Any], **parts: Any) -> Any:
    functions = parts.pop("functions", [])
    graph = helper.make_graph(nodes, "main", [value("x"), value("flag")], [value("y")], **parts)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], functions=functions)


def test_captures_are_what_no_graph_on_the_way_has_itself() -> None:
    inner = branch("inner", [helper.make_node("Add", ["a", "deep"], ["b"])], "b")
    nodes = [
        helper.make_node("Relu", ["outer"], ["a"]),
        helper.make_node("If", ["a"], ["c"], then_branch=inner, else_branch=inner),
        helper.make_node("Add", ["c", "weight"], ["r"]),
    ]
    then = branch("then", nodes, "r", initializer=[constant("weight")])
    node = make_if(then, branch("else", [], "passed"))
    assert captured_names(node) == ["passed", "outer", "deep"]  # onnx sorts attributes: else_branch comes first
    assert read_names(node) == ["flag", "passed", "outer", "deep"]


def test_a_loop_reads_neither_its_own_inputs_nor_a_name_that_it_hides() -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["state", "step"], ["next"]), helper.make_node("Identity", ["next"], ["h"])],
        "body",
        [value("i"), value("going"), value("state")],
        [value("going"), value("h")],
    )
    node = helper.make_node("Loop", ["", "", "h"], ["y"], body=body)
    assert captured_names(node) == ["step"]
    assert read_names(node) == ["h", "step"]
    assert own_names(body) == {"i", "going", "state", "next", "h"}


def test_a_sparse_initializer_is_a_name_of_its_graph() -> None:
    values, places = constant("w"), numpy_helper.from_array(np.array([0, 2]), "places")
    sparse = helper.make_sparse_tensor(values, places, [3])
    then = branch("then", [helper.make_node("Add", ["w", "x"], ["r"])], "r", sparse_initializer=[sparse])
    assert captured_names(make_if(then, branch("else", [], "x"))) == ["x"]
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], sparse_initializer=[sparse])
    model.graph.input.append(value("w"))
    assert [found.name for found in find_inputs(model.graph)] == ["x", "flag"]


def test_reads_are_renamed_where_the_name_means_the_same_tensor() -> None:
    seeing = branch("seeing", [helper.make_node("Relu", ["h"], ["r"])], "r")
    passing = branch("passing", [], "h")
    hiding = branch("hiding", [helper.make_node("Relu", ["x"], ["h"])], "h")
    nodes = [make_if(seeing, passing), make_if(hiding, seeing), helper.make_node("Add", ["h", "h"], ["y"])]
    rename_reads(nodes, "h", "new")
    assert [read_names(node) for node in nodes] == [["flag", "new"], ["flag", "new", "x"], ["new"]]
    _, hidden = find_subgraphs(nodes[1])
    assert (hidden.node[0].output[0], hidden.output[0].name) == ("h", "h")


def make_function() -> Any:
    nodes = [
        helper.make_node("Constant", [], ["k"], value=constant("in_function")),
        make_if(
            branch("t", [helper.make_node("Constant", [], ["c"], value=constant("in_branch"))], "c"),
            branch("e", [], "k"),
        ),
    ]
    function = helper.make_function("my", "Choose", ["flag"], ["y"], nodes, [helper.make_opsetid("", 17)])
    function.attribute_proto.append(helper.make_attribute("default", constant("default_of_attribute")))
    return function


def test_every_graph_and_tensor_is_found() -> None:
    sparse = helper.make_sparse_tensor(constant("sparse"), numpy_helper.from_array(np.array([0, 2]), "places"), [3])
    attribute = helper.make_sparse_tensor(constant("kept"), numpy_helper.from_array(np.array([1, 2]), "kept_at"), [3])
    then = branch("then", [helper.make_node("Identity", ["w"], ["r"])], "r", initializer=[constant("w")])
    nodes = [
        make_if(then, branch("else", [], "x")),
        helper.make_node("Constant", [], ["s"], sparse_value=attribute),
        helper.make_node("Listed", [], ["l"], domain="my", several=[constant("first"), constant("second")]),
        helper.make_node("Choose", ["flag"], ["z"], domain="my"),
    ]
    model = make_model(nodes, initializer=[constant("main")], sparse_initializer=[sparse], functions=[make_function()])
    training = model.training_info.add()
    training.algorithm.initializer.append(constant("rate"))
    names = {tensor.name for tensor in iterate_tensors(model)}
    assert names == {
        "main", "sparse", "places", "kept", "kept_at", "first", "second", "w",
        "in_function", "in_branch", "default_of_attribute", "rate",
    }  # fmt: skip
    assert len(list(iterate_graphs(model))) == 8  # main, then, else, the function and its two, training's two


def test_a_call_of_a_function_reads_its_inputs_only() -> None:
    assert read_names(helper.make_node("Choose", ["flag"], ["z"], domain="my")) == ["flag"]
    assert own_names(make_function()) == {"flag", "k", "y"}


@pytest.mark.parametrize(("domain", "opset"), [("", 17), ("ai.onnx", 17), ("com.microsoft", 1)])
def test_opset_of_either_name(domain: str, opset: int) -> None:
    model = make_model([])
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid(domain, 17))
    assert find_opset(model) == opset


def test_tied_weights_are_read_by_both() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"]),
        helper.make_node("Transpose", ["table"], ["t"]),
        helper.make_node("MatMul", ["e", "t"], ["y"]),
    ]
    assert [node.op_type for node in nodes if "table" in read_names(node)] == ["Gather", "Transpose"]
    model = make_model(nodes, initializer=[constant("table")])
    assert [tensor.name for tensor in iterate_tensors(model)] == ["table"]


def test_an_attribute_that_refers_to_its_functions_has_no_graph() -> None:
    node = helper.make_node("If", ["flag"], ["y"])
    reference = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH, ref_attr_name="chosen")
    node.attribute.append(reference)
    assert list(find_subgraphs(node)) == []
