"""Sparse initializers as dense ones: values where their places say, zero elsewhere."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.onnx.sparse import densify_graph

EXPECTED = np.array([[0, 2, 0], [0, 0, -3]], np.float32)


@pytest.mark.parametrize("places", [[1, 5], [[0, 1], [1, 2]]])
def test_flat_places_and_coordinates_say_the_same(places: Any) -> None:
    values = numpy_helper.from_array(np.array([2, -3], np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array(places, np.int64), "places"), [2, 3])
    other = numpy_helper.from_array(np.ones(1, np.float32), "other")
    graph = helper.make_graph(
        [helper.make_node("Add", ["w", "other"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [other],
        sparse_initializer=[sparse],
    )
    densify_graph(graph)
    assert [tensor.name for tensor in graph.initializer] == ["other", "w"]
    np.testing.assert_array_equal(numpy_helper.to_array(graph.initializer[1]), EXPECTED)
    assert not graph.sparse_initializer
