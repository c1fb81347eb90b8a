"""Finds the matrix products whose inputs a fixed 8-bit scale cannot hold: a few huge values next to many small ones.

Transformers have such activations. With a scale chosen for every inference (dynamic range) the same operators
stay 8 bit, at the same speed, and follow FP32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .samples import Samples

Array = npt.NDArray[Any]
_SAMPLE_LIMIT = 4
_OPERATORS = ("FULLY_CONNECTED", "CONV_2D", "TRANSPOSE_CONV", "DEPTHWISE_CONV_2D")


def rank_by_noise(
    data: bytes, tensor_names: Mapping[str, str], samples: Samples, ranges: Mapping[str, Mapping[str, Array]]
) -> list[tuple[float, str, str]]:
    """Returns (signal to noise in dB, operator, pattern of its name) of each weighted operator, worst first.

    The signal is the mean square of its input on a few samples; the noise that of rounding to 255 steps between the
    calibrated minimum and maximum, step^2 / 12.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    graph = model.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    found = []
    for op in graph.operators:
        operator = flatbuffer_utils.opcode_to_name(model, op.opcodeIndex)
        if operator in _OPERATORS:
            found.append((str(operator), op.inputs[2 if operator == "TRANSPOSE_CONV" else 0], names[op.outputs[0]]))
    interpreter = Interpreter(model_content=data, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    details = {detail["name"]: detail for detail in interpreter.get_input_details()}
    squares: dict[int, list[float]] = {}
    for feeds in samples.feeds(_SAMPLE_LIMIT):
        for name, value in feeds.items():
            detail = details[tensor_names[name]]
            interpreter.set_tensor(detail["index"], value.astype(detail["dtype"], copy=False))
        interpreter.reset_all_variables()
        interpreter.invoke()
        for index in {source for _, source, _ in found}:
            squares.setdefault(index, []).append(
                float(np.mean(np.square(interpreter.get_tensor(index), dtype=np.float64)))
            )
    ranked = []
    for operator, source, output in found:
        limits = ranges.get(names[source])
        if limits:
            step = (max(float(np.max(limits["max"])), 0.0) - min(float(np.min(limits["min"])), 0.0)) / 255
            ratio = float(np.mean(squares[source])) / (step**2 / 12 + 1e-30)
            ranked.append((10 * float(np.log10(ratio + 1e-30)), operator, f"^{re.escape(output)}(;|$)"))
    return sorted(ranked)
