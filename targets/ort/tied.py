"""Tables that one model reads in two ways: a quantized copy then lies beside the float one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from modelwright.core.onnx.facts import ONNX_DOMAINS
from modelwright.targets.graphs.index import GraphIndex, index_graph

_LEAST_BYTES = 2**16
"""Tables below this are not worth a word."""


def explain_tied(model: Any) -> list[str]:
    """Returns a sentence for each table that an embedding looks up and a layer multiplies by.

    Folding makes a transposed copy of it for the layer, and only the copy can be quantized: an integer Gather would
    round what all later layers read.

    Args:
        model: A normalized float model, constants folded.
    """
    index = index_graph(model)
    notes = []
    for table, reader in _list_tables(model, index):
        for weight, layer in _list_matrices(model, index):
            if weight == table or _are_same(index, table, weight):
                told = f"{index.array(table).nbytes / 1e6:.1f} MB"
                notes.append(
                    f"the table {table} is stored twice, in float where {reader.output[0]} is looked up ({told}) "
                    f"and once more for {layer.output[0]}: FP32 has one for both"
                )
    return notes


def _list_tables(model: Any, index: GraphIndex) -> Iterator[tuple[str, Any]]:
    for node in model.graph.node:
        if node.op_type == "Gather" and node.domain in ONNX_DOMAINS and _is_large(index, node.input[0]):
            yield node.input[0], node


def _list_matrices(model: Any, index: GraphIndex) -> Iterator[tuple[str, Any]]:
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm") and node.domain in ONNX_DOMAINS and _is_large(index, node.input[1]):
            yield node.input[1], node


def _is_large(index: GraphIndex, name: str) -> bool:
    return index.is_float_constant(name) and 4 * math.prod(index.constants[name].dims) >= _LEAST_BYTES


def _are_same(index: GraphIndex, table: str, weight: str) -> bool:
    sizes = [list(index.constants[name].dims) for name in (table, weight)]
    if len(sizes[0]) != 2 or sizes[0] not in (sizes[1], sizes[1][::-1]):
        return False
    first, second = index.array(table), index.array(weight)
    return any(np.array_equal(first, other) for other in (second, second.T) if other.shape == first.shape)
