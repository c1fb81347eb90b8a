"""Lookup tables in INT8: half of a small language model's bytes, and nothing of its time.

The integers are looked up and only those rows become floats. A scale for every column keeps what channels differ in.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from modelwright.core.onnx.facts import ONNX_DOMAINS, find_opset, read_attribute
from modelwright.targets.graphs.index import Array, GraphIndex, index_graph
from modelwright.targets.graphs.rewrite import PER_AXIS_OPSET, rebuild_model
from modelwright.targets.quantization.formats import FULL_WEIGHT, quantize_weight
from modelwright.targets.readiness import require_import

LEAST_BYTES = 2**16
"""Tables below this stay as they are."""
_LARGEST_NOISE = 0.05
"""Of the middle row, as a share of its length: beyond it a few rows are so large that the others keep few levels."""


def find_tables(model: Any) -> dict[str, Any]:
    """Returns node name -> node of the lookups in large constant float tables, by rows, that 8 bits hold well."""
    if find_opset(model) < PER_AXIS_OPSET:
        return {}
    index = index_graph(model)
    found, held = {}, dict[str, bool]()
    for node in model.graph.node:
        if _is_lookup(node, index):
            table = str(node.input[0])
            if table not in held:
                held[table] = _holds(index.array(table))
            if held[table]:
                found[str(node.name)] = node
    return found


def _is_lookup(node: Any, index: GraphIndex) -> bool:
    if node.op_type != "Gather" or node.domain not in ONNX_DOMAINS or read_attribute(node, "axis", 0) != 0:
        return False
    if not index.is_float_constant(node.input[0]):
        return False
    dims = list(index.constants[node.input[0]].dims)
    return len(dims) == 2 and 4 * math.prod(dims) >= LEAST_BYTES


def quantize_tables(model: Any, names: Collection[str]) -> Any:
    """Returns the model with the named lookups in INT8; the model itself where there are none.

    Args:
        model: Whatever else of it is quantized. Not changed.
        names: From `find_tables`.
    """
    if not names:
        return model
    onnx = require_import("onnx", "onnx")
    index = index_graph(model)
    nodes: list[Any] = []
    constants: dict[str, Any] = {}
    for node in model.graph.node:
        if node.name not in names:
            nodes.append(node)
            continue
        table, output = node.input[0], node.output[0]
        integers, scales = f"{table}_rows_q", f"{table}_rows_scale"
        if integers not in constants:
            rounded, steps = quantize_weight(index.array(table), 1, FULL_WEIGHT)
            constants[integers] = onnx.numpy_helper.from_array(rounded, integers)
            constants[scales] = onnx.numpy_helper.from_array(steps, scales)
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        copy.input[0], copy.output[0] = integers, f"{output}_integers"
        nodes.append(copy)
        made = [f"{output}_integers", scales]
        nodes.append(onnx.helper.make_node("DequantizeLinear", made, [output], f"{node.name}_floats", axis=-1))
    return rebuild_model(model, nodes, constants)


def _holds(table: Array) -> bool:
    if not np.isfinite(table).all():
        return False
    rounded, steps = quantize_weight(table, 1, FULL_WEIGHT)
    lengths = np.linalg.norm(table, axis=1)
    noise = np.linalg.norm(rounded * steps - table, axis=1)[lengths > 0] / lengths[lengths > 0]
    return bool(noise.size == 0 or np.median(noise) <= _LARGEST_NOISE)
