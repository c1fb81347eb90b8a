"""Number formats of the INT8 graphs for ONNX Runtime: which ones a machine wants, and rounding to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.records.machine import Machine

Array = npt.NDArray[Any]

LEAST_SCALE = 1e-12
FULL_WEIGHT = 127
"""The largest weight of 8 bits: -128 is never one."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """Number formats.

    Attributes:
        signed_activations: int8 activations instead of uint8.
        weight_limit: Weights are rounded to -limit..limit: 127, or 63 where sums of two products may saturate.
    """

    signed_activations: bool
    weight_limit: int

    def to_dict(self) -> dict[str, Any]:
        """Returns what a recipe says of it."""
        return {
            "activations": "int8 asymmetric" if self.signed_activations else "uint8 asymmetric",
            "weights": "int8 symmetric, one scale a channel",
            "weight_bits": 8 if self.weight_limit == FULL_WEIGHT else 7,
        }


def choose_scheme(machine: Machine, *, static: bool) -> Scheme:
    """Chooses the number formats that a machine's kernels are fast and exact with.

    x86: uint8 activations x int8 weights is what VNNI and AMX multiply; int8 x int8 ran 2.4 times slower. Without
    them, VPMADDUBSW adds pairs of products in 16 bits and saturates, so weights get 7 bits: 2 * 255 * 63 < 2**15.
    aarch64: ONNX Runtime's documentation makes int8 x int8 the first choice, and its ARM64 convolution kernels were
    written for symmetric int8 weights (onnxruntime pull request 9772). Pairs of products stay within 16 bits there
    because -128 is never a weight: 2 * 128 * 127 < 2**15. Dynamic activations are uint8 everywhere by definition.
    """
    if machine.architecture == "aarch64":
        return Scheme(signed_activations=static, weight_limit=FULL_WEIGHT)
    return Scheme(signed_activations=False, weight_limit=FULL_WEIGHT if machine.has_int8_dot_product else 63)


def quantize_weight(values: Array, axis: int, limit: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Rounds a weight symmetrically with one scale a channel; -128 is never used.

    Returns:
        int8 values of the same shape, and float32 scales [channels].
    """
    others = tuple(position for position in range(values.ndim) if position != axis)
    largest = np.abs(values).max(axis=others)
    scales = np.asarray(np.maximum(largest / limit, LEAST_SCALE), np.float32)
    return round_weight(values, scales, axis, limit), scales


def round_weight(values: Array, scales: npt.NDArray[np.float32], axis: int, limit: int) -> npt.NDArray[np.int8]:
    """Rounds a weight with given scales [channels] along `axis`."""
    shape = [-1 if position == axis else 1 for position in range(values.ndim)]
    scaled = values / scales.reshape(shape)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -limit, limit, out=scaled).astype(np.int8)


def find_parameters(low: float, high: float, *, signed: bool) -> tuple[float, Array]:
    """Returns scale and zero point that map [low, high], widened to hold 0, on the 256 levels."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / 255, LEAST_SCALE)))
    info = np.iinfo(np.int8 if signed else np.uint8)
    zero_point = np.clip(np.rint(info.min - low / scale), info.min, info.max)
    return scale, np.array(zero_point, info.dtype)
