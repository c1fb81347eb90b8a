"""Finds the operators that make a file's outputs: from the last one with weights on.

With fixed scales they round each output to 256 steps of the widest range that calibration saw, which is most of what
full INT8 loses of a classifier, and they are next to no work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .inspect_file import WEIGHTED


def find_ends(data: bytes) -> list[dict[str, str]]:
    """Returns `name` and `operator` of each operator whose values reach outputs only, through none with weights.

    Args:
        data: The FP32 file.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    graph = model.subgraphs[0]
    kinds = [str(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex)) for op in graph.operators]
    readers: dict[int, list[int]] = {}
    for position, op in enumerate(graph.operators):
        for tensor in op.inputs:
            readers.setdefault(tensor, []).append(position)
    passes: Mapping[int, bool] = mark_ends(graph, kinds, readers)
    return [
        {"name": graph.tensors[graph.operators[position].outputs[0]].name.decode(), "operator": kinds[position]}
        for position in sorted(passes)
    ]


def mark_ends(graph: Any, kinds: list[str], readers: Mapping[int, list[int]]) -> dict[int, bool]:
    """Returns the positions of the ends -> whether what they read may be one too: not where they have weights."""
    passes: dict[int, bool] = {}
    outputs = set(graph.outputs)
    for position in reversed(range(len(graph.operators))):
        made = list(graph.operators[position].outputs)
        after = [reader for tensor in made for reader in readers.get(tensor, ())]
        if (after or outputs.intersection(made)) and all(passes.get(reader, False) for reader in after):
            passes[position] = kinds[position] not in WEIGHTED
    return passes
