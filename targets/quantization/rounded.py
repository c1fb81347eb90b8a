"""A copy of the FP32 model whose weights lie on 8-bit grids, rounded for what they make of the calibration samples.

Whatever quantizes it afterwards finds the integers that were chosen here. It is made once for all targets of a model.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.onnx.facts import ONNX_DOMAINS, read_attribute
from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.contract import BuildRequest
from modelwright.targets.graphs.files import is_large, load_model, save_model
from modelwright.targets.graphs.index import GraphIndex, index_graph
from modelwright.targets.graphs.rewrite import normalize_graph
from modelwright.targets.quantization.rounding import round_weights
from modelwright.targets.quantization.statistics import stream_tensors
from modelwright.targets.readiness import require_import

Array = npt.NDArray[Any]
_SAMPLES = 64
"""Calibration samples that are looked at; each gives rows to every layer."""
_LEAST_ROWS, _MOST_ROWS, _ROWS_PER_COLUMN = 256, 2048, 4
"""Rows of a layer's inputs in all: so many, by the columns that are rounded together."""
_HELD_BYTES = 256 * 2**20
"""Rows held at a time; a model with more is run once for each group of layers of this size."""


def find_rounded_model(request: BuildRequest) -> Path | None:
    """Returns the rounded copy, which is made at the first call of all builds of a model.

    Args:
        request: Whose calibration samples say what weights are multiplied with.

    Returns:
        None without samples, without a layer that can be rounded, and for a model over 2 GiB.
    """
    folder = request.shared / "rounded"
    path = folder / "model.onnx"
    if folder.is_dir():
        return path if path.is_file() else None
    folder.mkdir()
    samples = request.calibration
    if samples is None or samples.count == 0:
        return None
    model = load_model(request.model_path)
    if is_large(model):
        return None
    normalize_graph(model)
    request.progress("rounding weights for what they make of the calibration samples")
    if not round_model(model, samples, request.scratch):
        return None
    save_model(model, path)
    return path


def round_model(model: Any, samples: SampleSet, scratch: Path) -> list[str]:
    """Rounds the weights of a normalized model in place.

    Args:
        model: Its convolutions, and matrix products with a constant on the right, are rounded.
        samples: To calibrate on; the first ones are looked at.
        scratch: For the intermediate file of a large model.

    Returns:
        The names of the nodes whose weights were rounded.
    """
    onnx = require_import("onnx", "onnx")
    layers = _find_layers(model, index_graph(model))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for group in _split(layers):
        rows = _collect_rows(model, group, samples, scratch)
        for layer in group:
            if layer.node.name in rows:
                values = layer.turn_back(round_weights(layer.turn(), rows[layer.node.name]))
                stored[layer.weight].CopyFrom(onnx.numpy_helper.from_array(values, layer.weight))
    return [layer.node.name for layer in layers]


@dataclass(frozen=True, kw_only=True)
class _Layer:
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

    @property
    def columns(self) -> int:
        return int(self.turn().shape[2])

    @property
    def rows(self) -> int:
        return min(max(_ROWS_PER_COLUMN * self.columns, _LEAST_ROWS), _MOST_ROWS)

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

    def take_rows(self, values: Array, count: int, rng: np.random.Generator) -> Array:
        """Returns rows of what the weights are multiplied with, at random places: [groups, rows, columns]."""
        if self.node.op_type != "Conv":
            rows = values.reshape(-1, values.shape[-1])
            return rows[_choose(len(rows), count, rng)][None]
        kernel = self.values.shape[2:]
        strides = read_attribute(self.node, "strides", None) or [1] * len(kernel)
        dilations = read_attribute(self.node, "dilations", None) or [1] * len(kernel)
        pads = read_attribute(self.node, "pads", None) or [0] * 2 * len(kernel)
        ends = list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
        padded = np.pad(values, [(0, 0), (0, 0), *ends])
        reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
        places = [
            (size - span) // stride + 1 for size, span, stride in zip(padded.shape[2:], reach, strides, strict=True)
        ]
        chosen = _choose(int(np.prod(places)) * len(padded), count, rng)
        sample, *starts = np.unravel_index(chosen, (len(padded), *places))
        taken = []
        for number, *corner in zip(sample, *starts, strict=True):
            window = tuple(
                slice(at * stride, at * stride + span, step)
                for at, stride, span, step in zip(corner, strides, reach, dilations, strict=True)
            )
            taken.append(padded[(number, slice(None), *window)].reshape(self.groups, -1))
        return np.stack(taken, axis=1)


def _choose(available: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.sort(rng.choice(available, min(count, available), replace=False))


def _find_layers(model: Any, index: GraphIndex) -> list[_Layer]:
    layers = []
    for node in model.graph.node:
        if node.domain not in ONNX_DOMAINS or node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.input) < 2:
            continue
        weight = node.input[1]
        if not index.is_float_constant(weight) or len(index.consumers[weight]) != 1 or weight in index.outputs:
            continue
        values = index.array(weight)
        is_conv = node.op_type == "Conv"
        pads_itself = is_conv and read_attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        if pads_itself or (not is_conv and (values.ndim != 2 or read_attribute(node, "transA", 0))):
            continue
        groups = int(read_attribute(node, "group", 1)) if is_conv else 1
        if values.size and np.isfinite(values).all():
            layers.append(_Layer(node=node, weight=weight, values=values, groups=groups))
    return layers


def _split(layers: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    """Yields layers in groups whose rows fit into memory together."""
    group: list[_Layer] = []
    held = 0
    for layer in layers:
        needed = 4 * layer.rows * layer.columns * layer.groups
        if group and held + needed > _HELD_BYTES:
            yield group
            group, held = [], 0
        group.append(layer)
        held += needed
    if group:
        yield group


def _collect_rows(model: Any, layers: Sequence[_Layer], samples: SampleSet, scratch: Path) -> dict[str, Array]:
    """Returns node -> rows of its inputs, about as many of each sample; without those that hold no numbers."""
    readers: dict[str, list[_Layer]] = {}
    for layer in layers:
        readers.setdefault(layer.node.input[0], []).append(layer)
    # Seeded by name: which rows are taken depends on nothing but the model and the samples.
    rngs = {layer.node.name: np.random.default_rng(zlib.crc32(layer.node.name.encode())) for layer in layers}
    taken: dict[str, list[Array]] = {}
    count = min(samples.count, _SAMPLES)
    for name, values in stream_tensors(model, list(readers), lambda: samples.feeds(_SAMPLES), scratch):
        for layer in readers[name] if values.size and np.isfinite(values).all() else ():
            rows = layer.take_rows(values, -(-layer.rows // count), rngs[layer.node.name])
            taken.setdefault(layer.node.name, []).append(rows)
    return {name: np.concatenate(parts, axis=1) for name, parts in taken.items()}
