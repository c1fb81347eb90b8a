"""A graph that is written node by node: its weights apart and on pages, and nothing in it that nobody reads."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelwright.targets.ort.language.graph_file import GraphFile, list_tensors

SOURCE = helper.make_model(
    helper.make_graph([], "source", [], []), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
)
X, Y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 40]) for name in "xy")
UNREAD = helper.make_tensor_value_info("unread", TensorProto.FLOAT, [1])


def write(path: Path) -> onnx.ModelProto:
    with GraphFile(path, SOURCE) as graph:
        graph.add_constant("small", np.arange(40, dtype=np.float32))
        graph.add_constant("odd", np.arange(300, dtype=np.float32))
        graph.add_constant("matrix", np.eye(40, dtype=np.float32).T)
        graph.add_constant("matrix", np.zeros((40, 40), np.float32))
        graph.add_node("MatMul", ["x", "matrix"], ["product"], "first")
        graph.add_node("Neg", ["product"], ["dead"], "unneeded")
        graph.add_node("Identity", ["odd"], ["dead_too"], "unneeded_too")
        graph.add_node("Add", ["product", "small"], ["y"], "second")
        graph.finish([X, UNREAD], [Y])
    return onnx.load(path, load_external_data=False)


def test_only_what_is_needed_is_written_and_the_first_values_of_a_name(tmp_path: Path) -> None:
    graph = write(tmp_path / "m.onnx").graph
    assert [node.name for node in graph.node] == ["first", "second"]
    assert [value.name for value in graph.input] == ["x"]
    assert [tensor.name for tensor in graph.initializer] == ["small", "matrix"]
    loaded = onnx.load(tmp_path / "m.onnx").graph.initializer
    assert np.array_equal(numpy_helper.to_array(loaded[1]), np.eye(40))


def test_large_weights_lie_apart_and_begin_on_pages(tmp_path: Path) -> None:
    small, matrix = write(tmp_path / "m.onnx").graph.initializer
    assert small.raw_data
    facts = {entry.key: entry.value for entry in matrix.external_data}
    assert facts == {"location": "m.onnx.data", "offset": "4096", "length": "6400"}
    assert (tmp_path / "m.onnx.data").stat().st_size == 4096 + 6400


def test_a_twin_lies_where_its_values_do_and_is_counted_once(tmp_path: Path) -> None:
    with GraphFile(tmp_path / "m.onnx", SOURCE) as graph:
        graph.add_constant("matrix", np.eye(40, dtype=np.float32))
        graph.add_twin("rows", "matrix", (1600,))
        graph.add_node("MatMul", ["x", "matrix"], ["product"], "first")
        graph.add_node("Gather", ["rows", "places"], ["looked_up"], "second")
        graph.add_node("Add", ["product", "looked_up"], ["y"], "third")
        graph.finish([X], [Y])
    matrix, rows = onnx.load(tmp_path / "m.onnx").graph.initializer
    assert np.array_equal(numpy_helper.to_array(rows), numpy_helper.to_array(matrix).ravel())
    assert (tmp_path / "m.onnx.data").stat().st_size == 6400
    assert [(tensor.name, tensor.size_bytes) for tensor in list_tensors(tmp_path / "m.onnx")] == [("matrix", 6400)]
