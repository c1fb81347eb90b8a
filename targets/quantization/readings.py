"""What layers with weights read: rows of the inputs that their weights are multiplied with."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.onnx.facts import ONNX_DOMAINS, read_attribute
from modelwright.targets.graphs.index import GraphIndex

Array = npt.NDArray[Any]
_LEAST_ROWS, _MOST_ROWS, _ROWS_PER_COLUMN = 256, 2048, 4
"""Rows of a layer's inputs in all: so many, by the columns that are rounded together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedLayer:
    """A node with weights that nothing else reads.

    Attributes:
        node: Conv, Gemm or MatMul.
        weight: Name of the initializer.
        values: As it is stored.
        groups: Of a convolution.
    """

    node: Any
    weight: str
    values: Array
    groups: int

    def turn(self) -> Array:
        """Returns the weights [groups, channels of a group, columns]."""
        if self.node.op_type == "Conv":
            return self.values.reshape(self.groups, len(self.values) // self.groups, -1)
        return (self.values if self._is_turned else self.values.T)[None]

    def turn_back(self, weights: Array) -> Array:
        """Returns weights as they are stored."""
        if self.node.op_type == "Conv":
            return weights.reshape(self.values.shape)
        return np.ascontiguousarray(weights[0] if self._is_turned else weights[0].T)

    @property
    def _is_turned(self) -> bool:
        return bool(self.node.op_type == "Gemm" and read_attribute(self.node, "transB", 0))


@dataclass(frozen=True, kw_only=True)
class Window:
    """Where a convolution looks, axis by axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @staticmethod
    def of_node(node: Any, kernel: Sequence[int]) -> Window:
        ones, zeros = [1] * len(kernel), [0] * 2 * len(kernel)
        return Window(
            kernel=tuple(kernel),
            strides=tuple(read_attribute(node, "strides", None) or ones),
            dilations=tuple(read_attribute(node, "dilations", None) or ones),
            pads=tuple(read_attribute(node, "pads", None) or zeros),
        )

    def take(self, values: Array, count: int, rng: np.random.Generator) -> Array:
        """Returns what the kernel covers at random places of [n, channels, ...]: [places, channels, *kernel]."""
        axes = len(self.kernel)
        ends = list(zip(self.pads[:axes], self.pads[axes:], strict=True))
        padded = np.pad(values, [(0, 0), (0, 0), *ends]) if any(self.pads) else values
        reach = tuple((size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True))
        covered = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + axes)))
        every = [slice(None, None, step) for step in (*self.strides, *self.dilations)]
        covered = covered[(slice(None), slice(None), *every)]
        places = (len(covered), *covered.shape[2 : 2 + axes])
        sample, *corner = np.unravel_index(_choose(int(np.prod(places)), count, rng), places)
        taken: tuple[Any, ...] = (sample, slice(None), *corner)
        return np.asarray(covered[taken])


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """Layers whose weights are multiplied with the same rows.

    Attributes:
        source: The tensor that they read.
        window: Of convolutions; None for matrix products, which read whole rows.
        groups: Of convolutions.
        layers: Those that do.
    """

    source: str
    window: Window | None
    groups: int
    layers: tuple[WeightedLayer, ...]

    @property
    def columns(self) -> int:
        return int(self.layers[0].turn().shape[2])

    @property
    def rows(self) -> int:
        """How many of all samples together are enough."""
        return min(max(_ROWS_PER_COLUMN * self.columns, _LEAST_ROWS), _MOST_ROWS)

    def make_generator(self) -> np.random.Generator:
        """Returns what chooses rows. Seeded by name: they depend on nothing but the model and the samples."""
        return np.random.default_rng(zlib.crc32(self.source.encode()))

    def take_rows(self, values: Array, count: int, rng: np.random.Generator) -> Array:
        """Returns rows at random places, without those that hold what is no number: [groups, rows, columns]."""
        if self.window is None:
            flat = values.reshape(-1, values.shape[-1])
            taken = flat[_choose(len(flat), count, rng)]
        else:
            taken = self.window.take(values, count, rng)
        rows = taken.reshape(len(taken), self.groups, self.columns)
        return rows[np.isfinite(rows).all(axis=(1, 2))].transpose(1, 0, 2)


def find_readings(model: Any, index: GraphIndex) -> list[Reading]:
    """Returns what convolutions, and matrix products with a constant on the right, read: in the graph's order."""
    found: dict[tuple[str, Window | None, int], list[WeightedLayer]] = {}
    for node in model.graph.node:
        layer = _find_layer(node, index)
        if layer is not None:
            window = Window.of_node(node, layer.values.shape[2:]) if node.op_type == "Conv" else None
            found.setdefault((str(node.input[0]), window, layer.groups), []).append(layer)
    return [
        Reading(source=source, window=window, groups=groups, layers=tuple(layers))
        for (source, window, groups), layers in found.items()
    ]


def _find_layer(node: Any, index: GraphIndex) -> WeightedLayer | None:
    if node.domain not in ONNX_DOMAINS or node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.input) < 2:
        return None
    weight = node.input[1]
    if not index.is_float_constant(weight) or len(index.consumers[weight]) != 1 or weight in index.outputs:
        return None
    values = index.array(weight)
    is_conv = node.op_type == "Conv"
    pads_itself = is_conv and read_attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    if pads_itself or (not is_conv and (values.ndim != 2 or read_attribute(node, "transA", 0))):
        return None
    if not values.size or not np.isfinite(values).all():
        return None
    groups = int(read_attribute(node, "group", 1)) if is_conv else 1
    return WeightedLayer(node=node, weight=weight, values=values, groups=groups)


def _choose(available: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.sort(rng.choice(available, min(count, available), replace=False))
