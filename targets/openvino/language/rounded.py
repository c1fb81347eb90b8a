"""Weights in 4 bits that are rounded for what they make of calibration tokens, by the method of GPTQ.

They stay float, but lie on the grid of their group: from its smallest weight to its largest one in 15 steps. Both of
these stay where they are, so that NNCF, which lays the same grid, finds exactly these integers and packs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.records.language import LanguageModel
from modelwright.targets.language.contract import Tokens
from modelwright.targets.openvino.language.convert import BEAMS, COUNT
from modelwright.targets.quantization.rounding import Exchange, find_exchange
from modelwright.targets.readiness import require_import

Floats = npt.NDArray[np.float32]
_LARGEST = 15
"""Of 4 bits without a sign."""
_LAZY = 32
"""Columns after which the error is handed on to all that come later."""
_LEAST_SCALE = np.float32(1e-10)


@dataclass(frozen=True, kw_only=True)
class RoundedLayer:
    """A matrix on its groups' grids.

    Attributes:
        weights: float32 [out, in].
        error: How far its outputs are from the float ones on the calibration tokens, as a share of their norm.
    """

    weights: Floats = field(repr=False)
    error: float


def find_layers(model: Any, record: LanguageModel) -> dict[str, Any]:
    """Returns name -> product with a constant matrix [out, in], in the order of the graph; not the head."""
    return {
        node.get_friendly_name(): node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul"
        and node.input_value(1).get_node().get_type_name() == "Constant"
        and len(node.input_value(1).get_shape()) == 2
        and node.get_attributes()["transpose_b"]
        and node.input_value(1).get_shape()[0] != record.vocab_size
    }


def measure_inputs(openvino: Any, model: Any, record: LanguageModel, tokens: Tokens) -> dict[str, Floats]:
    """Returns layer -> products of its inputs with each other, [in, in], summed over tokens. Layers may share one.

    Args:
        openvino: The vendor's package.
        model: The stateful float model; stays as it is.
        record: Of the exported model.
        tokens: int64 [rows, length].
    """
    opset = require_import("openvino.opset15", "openvino")
    watched = model.clone()
    layers = find_layers(watched, record)
    sources = {name: node.input_value(0) for name, node in layers.items()}
    keys = {name: f"{value.get_node().get_friendly_name()}:{value.get_index()}" for name, value in sources.items()}
    by_key = {keys[name]: value for name, value in sources.items()}
    watched.add_results([opset.result(value) for value in by_key.values()])
    first = len(watched.outputs) - len(by_key)
    compiled = openvino.Core().compile_model(watched, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    energies: dict[str, Floats] = {}
    for row in tokens:
        request.reset_state()
        request.infer(
            {
                "input_ids": row[None],
                "attention_mask": np.ones((1, len(row)), np.int64),
                "position_ids": np.arange(len(row), dtype=np.int64)[None],
                COUNT: np.ones(1, np.int64),
                BEAMS: np.zeros(1, np.int32),
            }
        )
        for place, key in enumerate(by_key, first):
            inputs = request.get_output_tensor(place).data[0].astype(np.float32)
            energy = inputs.T @ inputs
            energies[key] = energies[key] + energy if key in energies else energy
    return {name: energies[key] for name, key in keys.items()}


def round_layers(
    model: Any, record: LanguageModel, energies: Mapping[str, Floats], group_size: int
) -> dict[str, RoundedLayer]:
    """Returns layer -> its matrix on the grids of groups of so many columns; layers that do not divide into them stay.

    Args:
        model: The float model; stays as it is.
        record: Of the exported model.
        energies: Of `measure_inputs`.
        group_size: Columns that share a grid.
    """
    exchanges: dict[int, Exchange] = {}
    rounded = {}
    for name, node in find_layers(model, record).items():
        weights = np.array(node.input_value(1).get_node().data, np.float32)
        if weights.shape[1] % group_size:
            continue
        energy = energies[name]
        exchange = exchanges.get(id(energy))
        if exchange is None:
            exchange = exchanges[id(energy)] = find_exchange(energy[None])
        found = round_matrix(weights, exchange, group_size)
        rounded[name] = RoundedLayer(weights=found, error=_measure_error(weights, found, energy))
    return rounded


def round_matrix(weights: Floats, exchange: Exchange, group_size: int) -> Floats:
    """Returns a matrix on the grids of its groups.

    Args:
        weights: float32 [out, in].
        exchange: How its columns trade errors; of one group.
        group_size: Columns that share a grid.
    """
    rows, columns = weights.shape
    grouped = weights.reshape(rows, -1, group_size)
    low, high = grouped.min(axis=2), grouped.max(axis=2)
    scales = np.maximum((high - low) / np.float32(_LARGEST), _LEAST_SCALE)
    zeros = np.clip(np.rint(-low / scales), 0, _LARGEST)
    pinned = np.zeros((rows, columns), np.int8)
    starts = np.arange(0, columns, group_size)[None]
    row_index = np.arange(rows)[:, None]
    pinned[row_index, grouped.argmin(axis=2) + starts] = 1
    pinned[row_index, grouped.argmax(axis=2) + starts] = 2

    order, carry = exchange.order[0], exchange.carry[0]
    # Columns first: what is changed together lies together.
    left, marks = weights.T[order].copy(), pinned.T[order]
    rounded = np.empty_like(left)
    for start in range(0, columns, _LAZY):
        end = min(start + _LAZY, columns)
        errors = np.empty((end - start, rows), np.float32)
        for column in range(start, end):
            group = order[column] // group_size
            scale, zero = scales[:, group], zeros[:, group]
            steps = np.clip(np.rint(left[column] / scale) + zero, 0, _LARGEST)
            steps = np.where(marks[column] == 1, 0, np.where(marks[column] == 2, _LARGEST, steps))
            rounded[column] = (steps - zero) * scale
            error = (left[column] - rounded[column]) / carry[column, column]
            errors[column - start] = error
            left[column + 1 : end] -= carry[column, column + 1 : end, None] * error
        left[end:] -= carry[start:end, end:].T @ errors
    result = np.empty_like(rounded)
    result[order] = rounded
    return np.ascontiguousarray(result.T)


def _measure_error(weights: Floats, rounded: Floats, energy: Floats) -> float:
    difference = weights - rounded
    lost = float(np.sum((difference @ energy) * difference, dtype=np.float64))
    whole = float(np.sum((weights @ energy) * weights, dtype=np.float64))
    return float(np.sqrt(max(lost, 0.0) / max(whole, 1e-30)))
