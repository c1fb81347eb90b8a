"""Tables that one model reads in two ways: a quantized model then holds them twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from modelwright.core.onnx.facts import ONNX_DOMAINS
from modelwright.targets.graphs.index import GraphIndex, index_graph
from modelwright.targets.ort.tables import LEAST_BYTES, find_tables


def explain_tied(model: Any) -> list[str]:
    """Returns a sentence for each table that an embedding looks up and a layer multiplies by.

    Folding makes a transposed copy of it for the layer, and each has scales of its own: one for every column.

    Args:
        model: A normalized float model, constants folded.
    """
    index = index_graph(model)
    notes = []
    for reader in find_tables(model).values():
        table = reader.input[0]
        for weight, layer in _list_matrices(model, index):
            if weight == table or _are_same(index, table, weight):
                told = f"{math.prod(index.constants[table].dims) / 1e6:.1f} MB"
                notes.append(
                    f"the table {table} is stored twice, in 8 bits {told} each: where {reader.output[0]} is looked up, "
                    f"and for {layer.output[0]}; FP32 has one for both"
                )
    return notes


def _list_matrices(model: Any, index: GraphIndex) -> Iterator[tuple[str, Any]]:
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm") and node.domain in ONNX_DOMAINS and _is_large(index, node.input[1]):
            yield node.input[1], node


def _is_large(index: GraphIndex, name: str) -> bool:
    return index.is_float_constant(name) and 4 * math.prod(index.constants[name].dims) >= LEAST_BYTES


def _are_same(index: GraphIndex, table: str, weight: str) -> bool:
    sizes = [list(index.constants[name].dims) for name in (table, weight)]
    if len(sizes[0]) != 2 or sizes[0] not in (sizes[1], sizes[1][::-1]):
        return False
    first, second = index.array(table), index.array(weight)
    return any(np.array_equal(first, other) for other in (second, second.T) if other.shape == first.shape)
