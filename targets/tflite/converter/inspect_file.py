"""Reads from a `.tflite` file what really is in it: operators by dtype, weights left in float, stateful tensors."""

from __future__ import annotations

from collections import Counter
from typing import Any

WEIGHTED = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "BATCH_MATMUL")
_NAME_LIMIT = 50


def describe_file(data: bytes) -> dict[str, Any]:
    """Returns operator counts by dtype, names of weighted operators left in float, and whether state is kept.

    The dtype of an operator is its activations', followed by its weights' where those differ:
    `float32*int8` is dynamic range.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    counts: dict[str, Counter[str]] = {}
    left_in_float = []
    for graph in model.subgraphs:
        widened = {
            op.outputs[0]: op.inputs[0]
            for op in graph.operators
            if flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) == "DEQUANTIZE"
            and model.buffers[graph.tensors[op.inputs[0]].buffer].data is not None
        }
        for op in graph.operators:
            name = str(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex))
            dtype = _dtype_of(op, name, graph, widened)
            counts.setdefault(name, Counter())[dtype] += 1
            if name in WEIGHTED and dtype == "float32":
                left_in_float.append(_text(graph.tensors[op.outputs[0]].name))
    return {
        "operators": {name: dict(counter) for name, counter in sorted(counts.items())},
        "left_in_float": left_in_float[:_NAME_LIMIT],
        "left_in_float_count": len(left_in_float),
        "keeps_state": any(tensor.isVariable for graph in model.subgraphs for tensor in graph.tensors),
    }


def read_output_shapes(data: bytes) -> dict[str, tuple[int, ...]]:
    """Returns the name of each output's tensor -> its shape, as the file has it."""
    from ai_edge_litert.tools import flatbuffer_utils

    (graph,) = flatbuffer_utils.read_model_from_bytearray(bytearray(data)).subgraphs
    tensors = [graph.tensors[index] for index in graph.outputs]
    return {_text(tensor.name): tuple(int(size) for size in tensor.shape) for tensor in tensors}


def _dtype_of(op: Any, name: str, graph: Any, widened: dict[int, int]) -> str:
    first = 2 if name == "TRANSPOSE_CONV" else 0
    activation = _type_name(graph.tensors[op.inputs[first] if len(op.inputs) > first else op.outputs[0]])
    if name not in WEIGHTED:
        return _type_name(graph.tensors[op.outputs[0]])
    weight_index = op.inputs[1]
    weight = _type_name(graph.tensors[widened.get(weight_index, weight_index)])
    return activation if weight == activation else f"{activation}*{weight}"


def _type_name(tensor: Any) -> str:
    from ai_edge_litert.tools import flatbuffer_utils

    return str(flatbuffer_utils.type_to_name(tensor.type)).lower()


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
