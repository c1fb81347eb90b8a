"""Stores a lookup table once that is a weight matrix too, as in language models whose output layer is their embedding.

AEQ quantizes the matrix and keeps the table as it was, so that a smaller precision made a larger file. Here the lookup
reads rows of the quantized matrix and widens those.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np

from .polish import drop_tensors, find_opcode, new_tensor

_COPY = re.compile(r"_duplicated_\d+$")
"""How AEQ names a copy that it makes for a reader with other needs."""
_ROUNDED = 0.51
"""Steps that a rounded number may be off by."""


def share_tables(data: bytes) -> bytes:
    """Returns the file with each such table once; the same bytes where there is none."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    changed = False
    for graph in model.subgraphs:
        for op in list(graph.operators):
            is_lookup = flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) == "GATHER"
            if is_lookup and not op.builtinOptions.axis and not op.builtinOptions.batchDims:
                changed |= _share(model, graph, op)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)) if changed else data


def find_shared_lookups(data: bytes) -> list[str]:
    """Returns patterns for the lookups in a float file whose table a matrix product multiplies by."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    shared = []
    for graph in model.subgraphs:
        named = [(str(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex)), op) for op in graph.operators]
        matrices = {op.inputs[1] for name, op in named if name == "FULLY_CONNECTED"}
        shared += [
            f"^{re.escape(graph.tensors[op.outputs[0]].name.decode())}(;|$)"
            for name, op in named
            if name == "GATHER" and op.inputs[0] in matrices
        ]
    return shared


def _share(model: Any, graph: Any, op: Any) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    table = op.inputs[0]
    matrix = _find_matrix(model, graph, table, schema)
    if matrix is None:
        return False
    kind = graph.tensors[matrix].type
    rows = new_tensor(graph, graph.tensors[op.outputs[0]], "rows", kind)
    result, op.outputs = op.outputs[0], [rows]
    if kind == schema.TensorType.FLOAT16:
        steps = [_make(model, schema, schema.BuiltinOperator.DEQUANTIZE, 3, [rows], [result])]
    else:
        steps = _scale_rows(model, graph, op, rows, result, graph.tensors[matrix].quantization.scale)
    position = next(index for index, other in enumerate(graph.operators) if other is op)
    graph.operators[position + 1 : position + 1] = steps
    drop_tensors(model, graph, {table: matrix})
    return True


def _find_matrix(model: Any, graph: Any, table: int, schema: Any) -> int | None:
    """Returns the quantized tensor that holds what a float table does; None without one."""
    own = graph.tensors[table]
    if own.type != schema.TensorType.FLOAT32 or model.buffers[own.buffer].data is None:
        return None
    values = np.frombuffer(model.buffers[own.buffer].data, np.float32).reshape(own.shape)
    stem = _COPY.sub("", own.name.decode())
    for index, tensor in enumerate(graph.tensors):
        same = index != table and _COPY.sub("", tensor.name.decode()) == stem and list(tensor.shape) == list(own.shape)
        data = model.buffers[tensor.buffer].data if same else None
        if data is None:
            continue
        # The name is a hint; the numbers decide.
        if tensor.type == schema.TensorType.FLOAT16:
            halves = np.frombuffer(data, np.float16).reshape(own.shape)
            if np.array_equal(halves, values.astype(np.float16), equal_nan=True):
                return index
        elif tensor.type == schema.TensorType.INT8 and _is_row_by_row(tensor.quantization, len(values)):
            scales = np.asarray(tensor.quantization.scale, np.float32)[:, None]
            steps = np.frombuffer(data, np.int8).reshape(own.shape)
            if (np.abs(steps * scales - values) <= _ROUNDED * scales).all():
                return index
    return None


def _is_row_by_row(quantization: Any, rows: int) -> bool:
    return (
        quantization.quantizedDimension == 0 and len(quantization.scale) == rows and not np.any(quantization.zeroPoint)
    )


def _scale_rows(model: Any, graph: Any, lookup: Any, rows: int, result: int, scales: Any) -> list[Any]:
    """Returns the operators that multiply each row of 8-bit numbers by its scale."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.asarray(scales, np.float32).tobytes(), dtype=np.uint8)
    model.buffers.append(buffer)
    kind = schema.TensorType.FLOAT32
    table = new_tensor(graph, graph.tensors[lookup.inputs[0]], "scales", kind)
    graph.tensors[table].shape, graph.tensors[table].buffer = [len(scales), 1], len(model.buffers) - 1
    widened = new_tensor(graph, graph.tensors[result], "widened", kind)
    factors = new_tensor(graph, graph.tensors[result], "factors", kind)
    graph.tensors[factors].shape = [*list(graph.tensors[result].shape)[:-1], 1]
    signature = graph.tensors[result].shapeSignature
    graph.tensors[factors].shapeSignature = None if signature is None else [*list(signature)[:-1], 1]
    find = copy.deepcopy(lookup)
    find.inputs, find.outputs = [table, lookup.inputs[1]], [factors]
    builtin = schema.BuiltinOperator
    cast = _make(model, schema, builtin.CAST, 1, [rows], [widened])
    multiply = _make(model, schema, builtin.MUL, 1, [widened, factors], [result])
    multiply.builtinOptionsType = schema.BuiltinOptions.MulOptions
    multiply.builtinOptions = schema.MulOptionsT()
    return [cast, find, multiply]


def _make(model: Any, schema: Any, builtin: int, version: int, inputs: list[int], outputs: list[int]) -> Any:
    op = schema.OperatorT()
    op.opcodeIndex = find_opcode(model, builtin, version)
    op.inputs, op.outputs = inputs, outputs
    return op
