"""The operators of a file in outline: what they are called, what they read, and what their weights are stored as."""

from __future__ import annotations

from typing import Any

from .inspect_file import WEIGHTED

_ACTIVATION = {"TRANSPOSE_CONV": 2}
"""Operator -> position of what it multiplies, where that is not the first input."""


def outline_graph(data: bytes) -> list[dict[str, Any]]:
    """Returns the operators of a file's main graph, in its order.

    Each with its `name` (of its first output's tensor), `operator`, `sources` (names of the operators that make what it
    reads, and None for what the caller gives), and, where it has weights, `stored` (the tensor's name), `shape` and
    `weight` (its type). `activation` is the type of what is multiplied, and `widens` says whether the weight is made
    float again before.

    Args:
        data: The file.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    graph = model.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    types = [str(flatbuffer_utils.type_to_name(tensor.type)).lower() for tensor in graph.tensors]
    constants = {index for index, tensor in enumerate(graph.tensors) if model.buffers[tensor.buffer].data is not None}
    widened: dict[int, int] = {}
    makers: dict[int, str] = {}
    outlines = []
    for op in graph.operators:
        operator = str(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex))
        inputs = [index for index in op.inputs if index >= 0]
        if operator == "DEQUANTIZE" and inputs[0] in constants:
            widened[op.outputs[0]] = inputs[0]
            constants.add(op.outputs[0])
            continue
        makers.update(dict.fromkeys(op.outputs, names[op.outputs[0]]))
        outline: dict[str, Any] = {
            "name": names[op.outputs[0]],
            "operator": operator,
            "sources": [makers.get(index) for index in inputs if index not in constants],
        }
        if operator in WEIGHTED:
            outline["activation"] = types[inputs[_ACTIVATION.get(operator, 0)]]
            if inputs[1] in constants:
                stored = widened.get(inputs[1], inputs[1])
                outline |= {
                    "stored": names[stored],
                    "shape": [int(size) for size in graph.tensors[stored].shape],
                    "weight": types[stored],
                    "widens": inputs[1] in widened,
                }
        outlines.append(outline)
    return outlines
