"""Weights in blocks: a scale, and perhaps a zero point, for every few values along the axis that is summed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.targets.quantization.formats import LEAST_SCALE

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Shares of a block's range that are tried: cutting off its largest value may leave less error in the others."""
_DEEPER_SHRINKS = (*_SHRINKS, 0.75, 0.7, 0.65, 0.6)
"""Where rows matter unequally: the largest value may be one that hardly counts."""
_TOGETHER = 2**18
"""Values that are rounded at a time: several copies of them are made, and those of a large head would fill memory."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A matrix [rows, columns], rounded.

    Attributes:
        bits: Of a value: 4 or 8.
        rows: Of the matrix; the last block is filled up with zeros.
        values: uint8 [columns, blocks, size], the rows of a column one after the other.
        scales: float32 [columns, blocks]; negative where that uses the lowest level, if it may be.
        zero_points: uint8 [columns, blocks]; None where it is the middle, 8 or 128.
    """

    bits: int
    rows: int
    values: npt.NDArray[np.uint8]
    scales: Floats
    zero_points: npt.NDArray[np.uint8] | None

    def restore(self) -> Floats:
        """Returns the matrix that the integers stand for: float32 [rows, columns]."""
        zero = 2 ** (self.bits - 1) if self.zero_points is None else self.zero_points[:, :, None].astype(np.float32)
        whole = (self.values.astype(np.float32) - zero) * self.scales[:, :, None]
        return np.ascontiguousarray(whole.reshape(len(whole), -1)[:, : self.rows].T)


def round_blocks(
    matrix: Floats,
    *,
    bits: int,
    size: int,
    symmetric: bool,
    positive: bool = False,
    importance: Floats | None = None,
) -> Blocks:
    """Rounds a matrix to the levels that leave the least square error in each block.

    Args:
        matrix: float32 [rows, columns].
        bits: 4 or 8.
        size: Rows of a block.
        symmetric: Whether zero is the middle level.
        positive: Whether scales of symmetric blocks are positive, for kernels that take no others.
        importance: float32 [rows]: what an error in each row counts; None for all the same.
    """
    rows, columns = matrix.shape
    count = -(-rows // size)
    counted = None
    if importance is not None:
        counted = np.zeros(count * size, np.float32)
        counted[:rows] = importance
        counted = counted.reshape(1, count, size)
    values = np.empty((columns, count, size), np.uint8)
    scales = np.empty((columns, count), np.float32)
    zeros = None if symmetric else np.empty((columns, count), np.uint8)
    together = max(1, _TOGETHER // (count * size))
    for part in (slice(start, start + together) for start in range(0, columns, together)):
        padded = np.zeros((len(values[part]), count * size), np.float32)
        padded[:, :rows] = matrix[:, part].T
        blocks = padded.reshape(-1, count, size)
        found = _search_ranges(blocks, bits, counted, symmetric=symmetric, positive=positive)
        values[part], scales[part] = found[:2]
        if zeros is not None:
            zeros[part] = found[2]
    return Blocks(bits=bits, rows=rows, values=values, scales=scales, zero_points=zeros)


def _search_ranges(
    blocks: Floats, bits: int, counted: Floats | None, *, symmetric: bool, positive: bool
) -> tuple[Floats, Floats, Floats]:
    """Returns values, scales and zero points of blocks [columns, blocks, size] that leave the least square error."""
    best: tuple[Floats, Floats, Floats] | None = None
    least = np.full(blocks.shape[:2], np.inf, np.float32)
    for shrink in _SHRINKS if counted is None else _DEEPER_SHRINKS:
        scales, zeros = _centre(blocks, bits, shrink, positive) if symmetric else _spread(blocks, bits, shrink)
        values = np.clip(np.rint(blocks / scales[:, :, None]) + zeros[:, :, None], 0, 2**bits - 1)
        squares = np.square((values - zeros[:, :, None]) * scales[:, :, None] - blocks)
        errors = (squares if counted is None else squares * counted).sum(axis=2)
        if best is None:
            best, least = (values, scales, zeros), errors
            continue
        better = errors < least
        for kept, found in zip(best, (values, scales, zeros), strict=True):
            kept[better] = found[better]
        least = np.minimum(least, errors)
    assert best is not None, "there is always a range to try"
    return best


def share_scales(matrix: Floats, *, bits: int, size: int, rows: int | None) -> Blocks:
    """Rounds a matrix with scales for more than a block, in blocks that repeat them: what has blocks only executes it.

    Args:
        matrix: float32 [rows, columns].
        bits: 4 or 8.
        size: Rows of a block.
        rows: That share a scale, a multiple of `size`, or all of a column; None for one scale for the whole matrix.
    """
    length, columns = matrix.shape
    if rows is None:
        shared = round_blocks(matrix.T.reshape(-1, 1), bits=bits, size=matrix.size, symmetric=True)
        values = shared.values.reshape(columns, length)
        scales = np.full((columns, -(-length // size)), shared.scales[0, 0], np.float32)
    else:
        shared = round_blocks(matrix, bits=bits, size=rows, symmetric=True)
        values = shared.values.reshape(columns, -1)[:, :length]
        scales = np.repeat(shared.scales, -(-rows // size), axis=1)[:, : -(-length // size)]
    padded = np.full((columns, scales.shape[1] * size), 2 ** (bits - 1), np.uint8)
    padded[:, :length] = values
    return Blocks(
        bits=bits,
        rows=length,
        values=padded.reshape(columns, -1, size),
        scales=np.ascontiguousarray(scales),
        zero_points=None,
    )


def pack_nibbles(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Packs pairs along the last axis into bytes, the first in the low half; an odd one out is followed by zero."""
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros((*values.shape[:-1], 1), np.uint8)], axis=-1)
    return np.asarray(values[..., ::2] | (values[..., 1::2] << 4), np.uint8)


def _centre(blocks: Floats, bits: int, shrink: float, positive: bool) -> tuple[Floats, Floats]:
    """Returns scales that give the largest value of a block the lowest level: there is one more below zero.

    Where scales are positive, a largest value above zero has the highest one.
    """
    place = np.abs(blocks).argmax(axis=2)[:, :, None]
    largest = np.take_along_axis(blocks, place, axis=2)[:, :, 0]
    lowest = np.float32(2 ** (bits - 1))
    scales = -shrink * largest / (np.where(largest > 0, 1 - lowest, lowest) if positive else lowest)
    scales[np.abs(scales) < LEAST_SCALE] = LEAST_SCALE
    return scales, np.full(scales.shape, 2 ** (bits - 1), np.float32)


def _spread(blocks: Floats, bits: int, shrink: float) -> tuple[Floats, Floats]:
    """Returns scales and zero points for the range of a block, widened to hold 0."""
    low, high = (np.minimum(blocks.min(axis=2), 0) * shrink, np.maximum(blocks.max(axis=2), 0) * shrink)
    scales = np.asarray(np.maximum((high - low) / (2**bits - 1), LEAST_SCALE), np.float32)
    return scales, np.clip(np.rint(-low / scales), 0, 2**bits - 1)
