"""How much noise each way of quantizing makes at each operator itself, from one pass over a few samples.

Transformers have activations that a fixed 8-bit scale cannot hold: a few huge values next to many small ones. With a
scale chosen for every inference (dynamic range) the same operators stay 8 bit, at the same speed, and follow FP32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..session import fit_input
from .quantize import Ranges, read_table_ranges
from .samples import Samples

Array = npt.NDArray[Any]
_SAMPLE_LIMIT = 4
_BLOCK = 32
"""Weights that share a scale of 4 bits."""
_SOURCES = {"FULLY_CONNECTED": 0, "CONV_2D": 0, "TRANSPOSE_CONV": 2, "DEPTHWISE_CONV_2D": 0}
"""Operator -> position of the input that it multiplies; of a lookup, what it finds counts."""
_LEAST_SIGNAL = 1e-30


def measure_noise(
    data: bytes, tensor_names: Mapping[str, str], samples: Samples, ranges: Ranges | None
) -> list[dict[str, Any]]:
    """Returns the operators with weights, in the order of the graph: name, operator, products, values, weights, noise.

    The signal is the mean square of an operator's input on a few samples, for a lookup table that of the table; the
    noise is that of rounding, step^2 / 12, by what is rounded: `static`, the input to 255 steps between the calibrated
    minimum and maximum; `dynamic`, the input to steps of its own; `weights` and `four_bits`, what the operator is
    multiplied with. Products are multiplications, values what it makes.

    Args:
        data: The FP32 file.
        tensor_names: ONNX input name -> the file's input name.
        samples: The first ones are looked at.
        ranges: Calibrated ones: operators without are left out. None where nothing has fixed scales but tables.
    """
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
    inputs = _look_at_inputs(data, tensor_names, samples, {(operator, source) for operator, _, source in found})
    layers = []
    for operator, op, source in found:
        limits = (tables if ranges is None else ranges).get(names[source])
        if limits or ranges is None:
            stored = graph.tensors[op.inputs[0 if operator == "GATHER" else 1]]
            signal, running = inputs[operator, source]
            products = _count_products(
                operator, *(graph.tensors[index].shape for index in (source, op.inputs[1], op.outputs[0]))
            )
            noise = {"dynamic": running / signal}
            if limits:
                noise["static"] = float(_square_step(np.min(limits["min"]), np.max(limits["max"]))) / 12 / signal
            layers.append(
                {
                    "name": names[op.outputs[0]],
                    "operator": operator,
                    "weights": float(np.prod(stored.shape)),
                    "products": products,
                    "values": float(np.prod(graph.tensors[op.outputs[0]].shape)),
                    "noise": noise | _round_weights(operator, model.buffers[stored.buffer].data, stored.shape),
                }
            )
    return layers


def _look_at_inputs(
    data: bytes, tensor_names: Mapping[str, str], samples: Samples, wanted: set[tuple[str, int]]
) -> dict[tuple[str, int], tuple[float, float]]:
    """Returns operator and tensor -> mean square of the tensor, and of rounding it to steps of its own."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, experimental_preserve_all_tensors=True)
    details = {detail["name"]: detail for detail in interpreter.get_input_details()}
    seen: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in wanted}
    interpreter.allocate_tensors()
    for feeds in samples.feeds(_SAMPLE_LIMIT):
        for name, value in feeds.items():
            detail = details[tensor_names[name]]
            interpreter.set_tensor(detail["index"], fit_input(value, detail))
        interpreter.reset_all_variables()
        interpreter.invoke()
        for (operator, index), squares in seen.items():
            value = interpreter.get_tensor(index)
            square = float(np.mean(np.square(value, dtype=np.float64)))
            squares.append((square, _round_running(operator, value)))
    means = {key: np.mean(squares, axis=0) for key, squares in seen.items()}
    return {key: (max(float(square), _LEAST_SIGNAL), float(rounded)) for key, (square, rounded) in means.items()}


def _square_step(low: Any, high: Any) -> Any:
    """Returns the square of a 255th of ranges, which hold 0."""
    return ((np.maximum(high, 0.0) - np.minimum(low, 0.0)) / 255) ** 2


def _round_running(operator: str, value: Array) -> float:
    """Returns the mean square of rounding an input to steps of its own: of each row of a product, else of all of it."""
    rows = value.reshape(-1, value.shape[-1]) if operator == "FULLY_CONNECTED" and value.ndim else value.reshape(1, -1)
    return float(np.mean(_square_step(rows.min(axis=1), rows.max(axis=1)))) / 12


def _round_weights(operator: str, stored: Any, shape: Sequence[int]) -> dict[str, float]:
    """Returns noise to signal of rounding weights: to 8 bits, a scale a channel, and to 4 bits, a scale a block."""
    if operator == "GATHER" or stored is None:
        return {}
    shaped = np.frombuffer(bytes(stored), np.float32).reshape(shape)
    channels = np.moveaxis(shaped, -1, 0) if operator == "DEPTHWISE_CONV_2D" else shaped
    rows = channels.reshape(len(channels), -1)
    blocks = rows.reshape(-1, _BLOCK) if rows.shape[1] % _BLOCK == 0 else rows
    return {"weights": _round_rows(rows, 127), "four_bits": _round_rows(blocks, 7)}


def _round_rows(rows: Array, steps: int) -> float:
    """Returns noise to signal of rounding rows to so many steps on either side of 0."""
    step = np.abs(rows).max(axis=1) / steps
    return float(np.mean(step**2) / 12 / max(float(np.mean(rows**2)), _LEAST_SIGNAL))


def _count_products(operator: str, source: Array, weight: Array, result: Array) -> float:
    """Returns multiplications."""
    if operator == "GATHER":
        return 0.0
    if operator == "TRANSPOSE_CONV":  # each input goes into a kernel of outputs
        return float(np.prod(source) * np.prod(weight[:-1]))
    return float(np.prod(result) * np.prod(weight[1:3] if operator == "DEPTHWISE_CONV_2D" else weight[1:]))
