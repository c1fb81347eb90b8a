"""The numbers that a few bits can stand for: symmetric uniform grids, and their scales.

A grid of `b` bits and scale `s` holds `s * q` for whole numbers `q`: from -(2^(b-1) - 1) to 2^(b-1) - 1, so that it is
the same on both sides of zero, or from 0 to 2^b - 1 for what is never negative, such as what comes out of a Relu or a
Softmax. Zero is always on it. `x` becomes `s * clip(round(x / s))`, halves rounded to even.

Where a grid ends is one of two: `minmax` at the largest value seen, as quantization after training is taught; `mse`
where the squared error is least, which cuts off what is rare for the sake of resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelwright.harness.mixing.settings import Ranges
from modelwright.targets.quantization.statistics import TensorStatistics

Floats = npt.NDArray[np.float32]

_COARSE = tuple(share / 10 for share in range(10, 1, -1))
"""Shares of the largest value that are tried as the end of a weight's grid: outliers are worth less than resolution."""
_FINE_STEPS = (0.05, 0.025)
_ACTIVATION_SHARES = np.linspace(0.1, 1.0, 91)
_BLOCK = 2**20
"""Weights that are rounded at a time, so that memory stays small."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What one tensor, or each channel of a weight, is rounded to.

    Attributes:
        bits: From 2 to 16.
        signed: Whether it reaches below zero.
        scale: Distance of its numbers.
    """

    bits: int
    signed: bool
    scale: float

    @property
    def ends(self) -> tuple[int, int]:
        return find_ends(self.bits, signed=self.signed)


def find_ends(bits: int, *, signed: bool) -> tuple[int, int]:
    """Returns the smallest and the largest whole number of a grid."""
    return (-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def choose_grid(seen: TensorStatistics, bits: int, ranges: Ranges) -> Grid:
    """Returns the grid of an activation: of those that end at a share of its range, the one with the least error.

    Args:
        seen: Range and histogram on the calibration samples.
        bits: Of the grid.
        ranges: `minmax` takes the whole range.
    """
    signed = seen.low < 0.0
    low, high = find_ends(bits, signed=signed)
    reach = max(seen.high, -seen.low)
    if reach <= 0.0:  # nothing but zeros was seen: any grid holds those
        return Grid(bits=bits, signed=signed, scale=1.0)
    if ranges == "minmax":
        return Grid(bits=bits, signed=signed, scale=reach / high)
    edges = np.linspace(seen.low, seen.high, len(seen.counts) + 1)
    values = (edges[:-1] + edges[1:]) / 2
    values[(edges[:-1] <= 0.0) & (edges[1:] > 0.0)] = 0.0  # most of what a Relu gives is exactly that
    scales = reach * _ACTIVATION_SHARES[:, None] / high
    errors = np.clip(np.rint(values / scales), low, high) * scales - values
    best = int(np.argmin((seen.counts * errors**2).sum(axis=1)[::-1]))  # of equal ones the widest
    return Grid(bits=bits, signed=signed, scale=float(scales[::-1][best, 0]))


def choose_scales(rows: Floats, bits: int, ranges: Ranges) -> Floats:
    """Returns the scale of each channel of a weight.

    Args:
        rows: float32 [channels, weights].
        bits: Of the grids, which are signed.
        ranges: `mse` gives the least squared error, `minmax` ends the grid at the largest weight.
    """
    _, high = find_ends(bits, signed=True)
    reach = np.abs(rows).max(axis=1, initial=0.0)
    reach = np.where(reach > 0.0, reach, np.float32(high))  # a channel without weights is on any grid
    if ranges == "minmax":
        return (reach / high).astype(np.float32)
    best = np.ones(len(rows), np.float32)
    least = np.full(len(rows), np.inf)
    tries = [np.full(len(rows), share, np.float32) for share in _COARSE]
    for step in (None, *_FINE_STEPS):
        if step is not None:
            tries = [np.minimum(best + step, 1.0), np.maximum(best - step, step)]
        for shares in tries:
            errors = _sum_errors(rows, (reach * shares / high).astype(np.float32), bits)
            better = errors < least
            best, least = np.where(better, shares, best).astype(np.float32), np.where(better, errors, least)
    return (reach * best / high).astype(np.float32)


def round_rows(rows: Floats, scales: Floats, bits: int) -> Floats:
    """Returns the rows of a weight, each rounded to the grid of its scale: float32 [channels, weights]."""
    low, high = find_ends(bits, signed=True)
    steps = scales[:, None].astype(np.float32)
    return np.asarray(np.clip(np.rint(rows / steps), low, high) * steps, np.float32)


def _sum_errors(rows: Floats, scales: Floats, bits: int) -> npt.NDArray[np.float64]:
    """Returns the squared error of each channel."""
    errors = np.zeros(len(rows))
    width = max(1, _BLOCK // max(1, len(rows)))
    for start in range(0, rows.shape[1], width):
        part = rows[:, start : start + width]
        errors += np.square(round_rows(part, scales, bits) - part).sum(axis=1, dtype=np.float64)
    return errors
