"""Sparse initializers, which few tools read, as the dense ones that they stand for.

The TFLite converter loads this in an environment of its own: it needs numpy, onnx and nothing else of the project.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def densify_graph(graph: Any) -> None:
    """Replaces a graph's sparse initializers by dense ones of the same names, in place."""
    from onnx import numpy_helper

    for sparse in graph.sparse_initializer:
        values = numpy_helper.to_array(sparse.values)
        places = numpy_helper.to_array(sparse.indices)
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        if places.ndim == 1:  # positions in the flat array
            dense.reshape(-1)[places] = values
        else:  # one row of coordinates a value
            dense[tuple(places.T)] = values
        graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
    del graph.sparse_initializer[:]
