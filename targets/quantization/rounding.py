"""Rounds weights so that what they make of real inputs stays, not each of them for itself.

The method is GPTQ's (Frantar et al., 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers"): columns are rounded one after the other, and those that are still to come take over the error as far as
the inputs of both go together. The float weights that come out lie on the 8-bit grid of their channel, so that every
runtime's quantizer, which takes a channel's largest weight for 127, finds exactly these integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.targets.quantization.formats import FULL_WEIGHT, LEAST_SCALE

Array = npt.NDArray[Any]
BLOCK = 1152
"""Columns whose errors are made up for together: 128 channels of 3 x 3. What is farther apart has little in common, and
the work grows with the square."""
_LAZY = 64
"""Columns after which the error is handed on to all that come later: one product of matrices instead of many of
vectors."""
_DAMPING = 0.01
"""Of the inputs' mean energy, added to each: inputs that samples show never together must not trade errors freely."""


def round_weights(weights: Array, inputs: Array) -> Array:
    """Returns weights on their channels' grids: whole multiples of a 127th of the channel's largest one.

    Args:
        weights: float [groups, channels, columns]: every channel of a group reads the same columns.
        inputs: float [groups, rows, columns]: what they were multiplied with, some rows of real samples.
    """
    scales = np.maximum(np.abs(weights).max(axis=2) / FULL_WEIGHT, LEAST_SCALE)
    # The largest weight of a channel stays: it is what says how wide the grid is.
    pinned = np.abs(weights).argmax(axis=2)
    rounded = np.empty(weights.shape, np.float64)
    for start in range(0, weights.shape[2], BLOCK):
        part = slice(start, min(start + BLOCK, weights.shape[2]))
        rows = inputs[:, :, part].astype(np.float64)
        rounded[:, :, part] = _round_block(
            weights[:, :, part].astype(np.float64), rows.transpose(0, 2, 1) @ rows, scales, pinned - start
        )
    return rounded.astype(weights.dtype)


def _round_block(weights: Array, energy: Array, scales: Array, pinned: Array) -> Array:
    """Rounds the columns of one block.

    Args:
        weights: float64 [groups, channels, columns].
        energy: float64 [groups, columns, columns]: inputs' products with each other, summed over rows.
        scales: float [groups, channels].
        pinned: int [groups, channels]: the column that stays, or one outside of the block.
    """
    columns = weights.shape[2]
    diagonal = np.diagonal(energy, axis1=1, axis2=2)
    order = np.argsort(-diagonal, axis=1, kind="stable")  # those that matter most while there is most left to adjust
    left = np.take_along_axis(weights, order[:, None, :], 2)
    energy = np.take_along_axis(np.take_along_axis(energy, order[:, :, None], 1), order[:, None, :], 2)
    damping = _DAMPING * np.maximum(diagonal.mean(axis=1), 1e-30)
    energy = energy + damping[:, None, None] * np.eye(columns)
    carry = np.linalg.cholesky(np.linalg.inv(energy)).transpose(0, 2, 1)
    original, rounded = left.copy(), np.empty_like(left)
    for start in range(0, columns, _LAZY):
        end = min(start + _LAZY, columns)
        errors = np.empty((*left.shape[:2], end - start))
        for column in range(start, end):
            values = np.clip(np.rint(left[:, :, column] / scales), -FULL_WEIGHT, FULL_WEIGHT) * scales
            stays = pinned == order[:, None, column]
            rounded[:, :, column] = np.where(stays, original[:, :, column], values)
            error = (left[:, :, column] - rounded[:, :, column]) / carry[:, None, column, column]
            errors[:, :, column - start] = error
            left[:, :, column + 1 : end] -= error[:, :, None] * carry[:, None, column, column + 1 : end]
        left[:, :, end:] -= errors @ carry[:, start:end, end:]
    back = np.argsort(order, axis=1, kind="stable")
    return np.take_along_axis(rounded, back[:, None, :], 2)
