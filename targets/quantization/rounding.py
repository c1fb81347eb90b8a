"""Rounds weights so that what they make of real inputs stays, not each of them for itself.

The method is GPTQ's (Frantar et al., 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers"): columns are rounded one after the other, and those that are still to come take over the error as far as
the inputs of both go together. The float weights that come out lie on the 8-bit grid of their channel, so that every
runtime's quantizer, which takes a channel's largest weight for 127, finds exactly these integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.targets.quantization.blocks import Blocks
from modelwright.targets.quantization.formats import FULL_WEIGHT, LEAST_SCALE

Array = npt.NDArray[Any]
BLOCK = 1152
"""Columns whose errors are made up for together: 128 channels of 3 x 3. What is farther apart has little in common, and
the work grows with the square."""
_LAZY = 32
"""Columns after which the error is handed on to all that come later: one product of matrices instead of many of
vectors."""
_DAMPING = 0.01
"""Of the inputs' mean energy, added to each: inputs that samples show never together must not trade errors freely."""
_SMALL = 64
"""Triangles of so many columns are inverted as any matrix is; larger ones are halved, which costs a sixth."""


def describe_rounding() -> dict[str, Any]:
    """Returns what decides which integers are taken: with other values other ones would be."""
    return {"block": BLOCK, "damping": _DAMPING}


def split_columns(columns: int, together: int = BLOCK) -> list[slice]:
    """Returns the blocks of columns that trade errors among themselves."""
    return [slice(start, min(start + together, columns)) for start in range(0, columns, together)]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """How far the columns of a block take over each other's errors. Weights that read the same inputs share it.

    Attributes:
        order: int [groups, columns]: in which columns are rounded.
        carry: float32 [groups, columns, columns], columns in that order: what an error of the column of a row, divided
            by that column's own entry, takes away from the later ones.
    """

    order: npt.NDArray[np.int64]
    carry: npt.NDArray[np.float32]


def find_exchange(energy: Array) -> Exchange:
    """Finds how columns trade errors: the upper triangle C of inverse(energy) = transposed(C) C, as in GPTQ.

    Args:
        energy: float [groups, columns, columns]: inputs' products with each other, summed over rows.
    """
    diagonal = np.diagonal(energy, axis1=1, axis2=2).astype(np.float64)
    order = np.argsort(-diagonal, axis=1, kind="stable")  # those that matter most while there is most left to adjust
    groups = np.arange(len(energy))[:, None, None]
    # The other way round, so that the lower triangle that there is a function for becomes an upper one.
    last_first = order[:, ::-1]
    turned = energy[groups, last_first[:, :, None], last_first[:, None, :]].astype(np.float64)
    columns = np.arange(energy.shape[1])
    turned[:, columns, columns] += _DAMPING * np.maximum(diagonal.mean(axis=1), 1e-30)[:, None]
    carry = _invert_lower(np.linalg.cholesky(turned))[:, ::-1, ::-1]
    return Exchange(order=order, carry=np.ascontiguousarray(carry, np.float32))


def _invert_lower(triangle: Array) -> Array:
    """Returns the inverse of lower triangles [groups, n, n], by halves."""
    size = triangle.shape[-1]
    if size <= _SMALL:
        return np.asarray(np.tril(np.linalg.inv(triangle)))
    half = size // 2
    inverse = np.zeros_like(triangle)
    first, second = _invert_lower(triangle[:, :half, :half]), _invert_lower(triangle[:, half:, half:])
    inverse[:, :half, :half], inverse[:, half:, half:] = first, second
    inverse[:, half:, :half] = -second @ (triangle[:, half:, :half] @ first)
    return inverse


def round_weights(weights: Array, exchanges: Sequence[Exchange]) -> Array:
    """Returns weights on their channels' grids: whole multiples of a 127th of the channel's largest one.

    Args:
        weights: float [groups, channels, columns]: every channel of a group reads the same columns.
        exchanges: One for each block of `split_columns`.
    """
    scales = np.maximum(np.abs(weights).max(axis=2) / FULL_WEIGHT, LEAST_SCALE).astype(np.float32)
    # The largest weight of a channel stays: it is what says how wide the grid is.
    pinned = np.abs(weights).argmax(axis=2)
    rounded = np.empty_like(weights)
    for part, exchange in zip(split_columns(weights.shape[2]), exchanges, strict=True):
        block, kept = weights[:, :, part], pinned - part.start

        def snap(columns: Array, wanted: Array, block: Array = block, kept: Array = kept) -> Array:
            values = np.clip(np.rint(wanted / scales), -FULL_WEIGHT, FULL_WEIGHT) * scales
            original = np.take_along_axis(block, columns[:, None, None], 2)[:, :, 0]
            return np.where(kept == columns[:, None], original, values)

        rounded[:, :, part] = _round_block(block, exchange, snap)
    return rounded


def round_in_blocks(matrix: Array, exchanges: Sequence[Exchange], grid: Blocks) -> Blocks:
    """Returns a matrix on a grid whose scales stay, its integers chosen for what they make of inputs.

    Args:
        matrix: float32 [rows, columns].
        exchanges: Of its rows, which are summed over; one for each block of them, in their order.
        grid: The matrix rounded to the nearest levels.
    """
    most = 2**grid.bits - 1
    size = grid.values.shape[2]
    middle = np.full(grid.scales.shape, 2.0 ** (grid.bits - 1), np.float32)
    zeros = middle if grid.zero_points is None else grid.zero_points.astype(np.float32)
    levels = np.empty(matrix.shape, np.float32)
    start = 0
    for exchange in exchanges:
        part = slice(start, start + exchange.order.shape[1])
        start = part.stop

        def snap(columns: Array, wanted: Array, first: int = part.start) -> Array:
            place = (first + int(columns[0])) // size
            scale, zero = grid.scales[:, place], zeros[:, place]
            return np.asarray((np.clip(np.rint(wanted / scale) + zero, 0, most) - zero) * scale)

        levels[part] = _round_block(matrix[part].T[None], exchange, snap)[0].T
    padded = np.zeros((grid.values.shape[0], grid.values.shape[1] * size), np.float32)
    padded[:, : len(matrix)] = levels.T
    blocks = padded.reshape(grid.values.shape)
    values = np.clip(np.rint(blocks / grid.scales[:, :, None]) + zeros[:, :, None], 0, most)
    return replace(grid, values=values.astype(np.uint8))


def _round_block(weights: Array, exchange: Exchange, snap: Callable[[Array, Array], Array]) -> Array:
    """Rounds the columns of one block.

    Args:
        weights: float [groups, channels, columns].
        exchange: Of these columns.
        snap: Takes which column of each group it is, int [groups], and what its weights should be, float32
            [groups, channels]; returns the nearest that they can be.
    """
    order, carry = exchange.order, exchange.carry
    columns = order.shape[1]
    # Columns first: what is changed together lies together.
    left = np.take_along_axis(weights.transpose(0, 2, 1), order[:, :, None], 1).astype(np.float32)
    rounded = np.empty_like(left)
    for start in range(0, columns, _LAZY):
        end = min(start + _LAZY, columns)
        errors = np.empty((len(left), end - start, left.shape[2]), np.float32)
        for column in range(start, end):
            wanted = left[:, column]
            rounded[:, column] = snap(order[:, column], wanted)
            error = (wanted - rounded[:, column]) / carry[:, column, column, None]
            errors[:, column - start] = error
            left[:, column + 1 : end] -= carry[:, column, column + 1 : end, None] * error[:, None, :]
        left[:, end:] -= carry[:, start:end, end:].transpose(0, 2, 1) @ errors
    back = np.argsort(order, axis=1, kind="stable")
    return np.take_along_axis(rounded, back[:, :, None], 1).transpose(0, 2, 1)
