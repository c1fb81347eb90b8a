"""What a file whose weights were rounded together takes from the float file: names, and weights of some operators.

Operators are told by their names what they compute in, and ranges are kept by name; a graph whose nodes had none got
others when it was rounded. And weights on an 8-bit grid are right for integers, and a loss for nothing in float.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def restore_weights(data: bytes, original: bytes, names: Collection[str]) -> bytes:
    """Returns a file in which some operators have another one's weights.

    Args:
        data: The file.
        original: The same graph with other weights; tensors have the same names.
        names: Of the operators, by their outputs' tensors.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    source = flatbuffer_utils.read_model_from_bytearray(bytearray(original))
    stored = {tensor.name: source.buffers[tensor.buffer].data for graph in source.subgraphs for tensor in graph.tensors}
    for graph in model.subgraphs:
        for op in graph.operators:
            if graph.tensors[op.outputs[0]].name.decode() not in names:
                continue
            for tensor in (graph.tensors[index] for index in op.inputs if index >= 0):
                held, other = model.buffers[tensor.buffer].data, stored.get(tensor.name)
                if held is not None and other is not None and len(held) == len(other):
                    model.buffers[tensor.buffer].data = other
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def adopt_names(data: bytes, original: bytes) -> bytes:
    """Returns a file whose tensors have the names that they have in another one of the same graph.

    Raises:
        ValueError: The graphs differ.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    source = flatbuffer_utils.read_model_from_bytearray(bytearray(original))
    if _describe_graphs(model) != _describe_graphs(source):
        raise ValueError("with rounded weights the model becomes another graph")
    for graph, other in zip(model.subgraphs, source.subgraphs, strict=True):
        for tensor, named in zip(graph.tensors, other.tensors, strict=True):
            tensor.name = named.name
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _describe_graphs(model: Any) -> list[Any]:
    """Returns what graphs are but for names and values."""
    from ai_edge_litert.tools import flatbuffer_utils

    return [
        (
            [(tensor.type, [] if tensor.shape is None else list(tensor.shape)) for tensor in graph.tensors],
            [
                (flatbuffer_utils.opcode_to_name(model, op.opcodeIndex), list(op.inputs), list(op.outputs))
                for op in graph.operators
            ],
        )
        for graph in model.subgraphs
    ]
