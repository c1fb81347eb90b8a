"""Sparse constants, which few tools read, as the dense ones that they stand for.

The TFLite converter loads this in an environment of its own: it needs numpy, onnx and nothing else of the project.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

_SPARSE_VALUE = "sparse_value"
_WIDEST_BYTES = 16
"""Of one element of any type."""


def densify_graph(graph: Any) -> list[str]:
    """Replaces a graph's sparse initializers and sparse Constant nodes by dense ones of the same names, in place.

    Returns:
        The names of what was sparse.
    """
    from onnx import helper

    names = []
    for sparse in getattr(graph, "sparse_initializer", ()):
        graph.initializer.append(_to_dense(sparse, sparse.values.name))
        names.append(sparse.values.name)
    if names:
        del graph.sparse_initializer[:]
    for node, position in _find_constants(graph):
        dense = _to_dense(node.attribute[position].sparse_tensor, node.output[0])
        node.attribute[position].CopyFrom(helper.make_attribute("value", dense))
        names.append(node.output[0])
    return names


def count_dense_bytes(graph: Any) -> int:
    """Returns how large a graph's sparse constants would at most be as dense ones."""
    tensors = [*getattr(graph, "sparse_initializer", ())]
    tensors += [node.attribute[position].sparse_tensor for node, position in _find_constants(graph)]
    return sum(math.prod(tensor.dims) * _WIDEST_BYTES for tensor in tensors)


def _find_constants(graph: Any) -> Iterator[tuple[Any, int]]:
    """Yields the Constant nodes with a sparse value, and where among their attributes it is."""
    for node in graph.node:
        if node.op_type == "Constant":
            for position, attribute in enumerate(node.attribute):
                if attribute.name == _SPARSE_VALUE:
                    yield node, position


def _to_dense(sparse: Any, name: str) -> Any:
    from onnx import numpy_helper

    values = numpy_helper.to_array(sparse.values)
    places = numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if places.ndim == 1:  # positions in the flat array
        dense.reshape(-1)[places] = values
    else:  # one row of coordinates a value
        dense[tuple(places.T)] = values
    return numpy_helper.from_array(dense, name)
