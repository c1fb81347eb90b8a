"""Gives operators that stay in float the weights that they have in the float file, where others were rounded together.

Weights that were rounded for what all of a layer's inputs make of them lie on an 8-bit grid: right for integers, and a
loss for nothing in float.
"""

from __future__ import annotations

from collections.abc import Collection


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
