"""Finds the matrix products whose inputs a fixed 8-bit scale cannot hold: a few huge values next to many small ones.

Transformers have such activations. With a scale chosen for every inference (dynamic range) the same operators
stay 8 bit, at the same speed, and follow FP32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..session import fit_input
from .quantize import Ranges, read_table_ranges
from .samples import Samples

Array = npt.NDArray[Any]
_SAMPLE_LIMIT = 4
_SOURCES = {"FULLY_CONNECTED": 0, "CONV_2D": 0, "TRANSPOSE_CONV": 2, "DEPTHWISE_CONV_2D": 0}
"""Operator -> position of the input that it multiplies; of a lookup, what it finds counts."""
_LEAST_SIGNAL = 1e-30
_PASSING = 10
"""Reading and writing a value takes as long as some ten multiplications."""


def measure_noise(
    data: bytes, tensor_names: Mapping[str, str], samples: Samples, ranges: Ranges
) -> list[dict[str, Any]]:
    """Returns the operators with weights, in the order of the graph: name, operator, work, weights, noise to signal.

    The signal is the mean square of an operator's input on a few samples, for a lookup table that of the table; the
    noise is that of rounding to 255 steps between the calibrated minimum and maximum, step^2 / 12. Work is in
    multiplications.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    graph = model.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    tables = read_table_ranges(data)
    found = []
    for op in graph.operators:
        operator = str(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex))
        if operator in _SOURCES or (operator == "GATHER" and names[op.outputs[0]] in tables):
            found.append((operator, op, (*op.inputs, op.outputs[0])[_SOURCES.get(operator, -1)]))
    interpreter = Interpreter(model_content=data, experimental_preserve_all_tensors=True)
    details = {detail["name"]: detail for detail in interpreter.get_input_details()}
    squares: dict[int, list[float]] = {}
    interpreter.allocate_tensors()
    for feeds in samples.feeds(_SAMPLE_LIMIT):
        for name, value in feeds.items():
            detail = details[tensor_names[name]]
            interpreter.set_tensor(detail["index"], fit_input(value, detail))
        interpreter.reset_all_variables()
        interpreter.invoke()
        for index in {source for _, _, source in found}:
            squares.setdefault(index, []).append(
                float(np.mean(np.square(interpreter.get_tensor(index), dtype=np.float64)))
            )
    layers = []
    for operator, op, source in found:
        limits = ranges.get(names[source])
        if limits:
            step = (max(float(np.max(limits["max"])), 0.0) - min(float(np.min(limits["min"])), 0.0)) / 255
            signal = float(np.mean(squares[source]))
            layers.append(
                {
                    "name": names[op.outputs[0]],
                    "operator": operator,
                    "weights": float(np.prod(graph.tensors[op.inputs[0 if operator == "GATHER" else 1]].shape)),
                    "work": _count_work(
                        operator, *(graph.tensors[index].shape for index in (source, op.inputs[1], op.outputs[0]))
                    ),
                    "noise": step**2 / 12 / max(signal, _LEAST_SIGNAL),
                }
            )
    return layers


def _count_work(operator: str, source: Array, weight: Array, result: Array) -> float:
    """Returns multiplications, and what reading and writing the values counts as."""
    if operator == "GATHER":
        return float(np.prod(result))
    if operator == "TRANSPOSE_CONV":  # each input goes into a kernel of outputs
        return float(np.prod(source) * np.prod(weight[:-1]))
    each = np.prod(weight[1:3]) if operator == "DEPTHWISE_CONV_2D" else np.prod(weight[1:])
    return float(np.prod(result) * (each + _PASSING))
