"""A copy of the FP32 model whose weights lie on 8-bit grids, rounded for what they make of the calibration samples.

Whatever quantizes it afterwards finds the integers that were chosen here. It is made once for all targets of a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.contract import BuildRequest
from modelwright.targets.graphs.files import is_large, load_model, save_model
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.graphs.rewrite import normalize_graph
from modelwright.targets.quantization.readings import Reading, find_readings
from modelwright.targets.quantization.rounding import find_exchange, round_weights, split_columns
from modelwright.targets.quantization.statistics import stream_tensors
from modelwright.targets.readiness import require_import

Energy = npt.NDArray[np.float32]
SAMPLES = 64
"""Calibration samples that are looked at; each gives rows to every layer."""
_HELD_BYTES = 384 * 2**20
"""Energies held at a time; a model with more is run once for each group of layers of this size."""
_TOGETHER = 512
"""Rows that are multiplied together."""
_MOST_WORK = 2e12
"""Multiplications that a copy for several targets may come to: about a minute of two cores."""


def find_rounded_model(request: BuildRequest) -> Path | None:
    """Returns the rounded copy, which is made at the first call of all builds of a model.

    Args:
        request: Whose calibration samples say what weights are multiplied with.

    Returns:
        None without samples, without a layer that can be rounded, for a model over 2 GiB, and for one whose layers are
        so wide that it would take minutes.
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
    if count_rounding(model) > _MOST_WORK:
        return None
    request.progress("rounding weights for what they make of the calibration samples")
    if not round_model(model, samples, request.scratch):
        return None
    save_model(model, path)
    return path


def count_rounding(model: Any) -> float:
    """Returns how many multiplications rounding a normalized model's weights takes, beside running it on samples."""
    work = 0.0
    for reading in find_readings(model, index_graph(model)):
        channels = sum(layer.values.size for layer in reading.layers) / reading.columns
        for width in _list_widths(reading):
            # Energies, their factors and inverses; then each column's error is handed on to half of the others.
            work += reading.groups * (reading.rows * width**2 + width**3) + channels * width**2 / 2
    return work


def round_model(model: Any, samples: SampleSet, scratch: Path) -> list[str]:
    """Rounds the weights of a normalized model in place.

    Args:
        model: Its convolutions, and matrix products with a constant on the right, are rounded.
        samples: To calibrate on; the first ones are looked at.
        scratch: For the intermediate file of a large model.

    Returns:
        The names of the nodes whose weights can be rounded; those that saw no numbers stay as they are.
    """
    onnx = require_import("onnx", "onnx")
    readings = find_readings(model, index_graph(model))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for group in _split(readings):
        energies = _collect_energies(model, group, samples, scratch)
        for reading in group:
            exchanges = [find_exchange(energy) for energy in energies.pop(reading, ())]
            for layer in reading.layers if exchanges else ():
                values = layer.turn_back(round_weights(layer.turn(), exchanges))
                stored[layer.weight].CopyFrom(onnx.numpy_helper.from_array(values, layer.weight))
    return [layer.node.name for reading in readings for layer in reading.layers]


def _split(readings: Sequence[Reading]) -> Iterator[list[Reading]]:
    """Yields readings in groups whose energies fit into memory together."""
    group: list[Reading] = []
    held = 0
    for reading in readings:
        needed = 4 * reading.groups * sum(width**2 for width in _list_widths(reading))
        if group and held + needed > _HELD_BYTES:
            yield group
            group, held = [], 0
        group.append(reading)
        held += needed
    if group:
        yield group


def _list_widths(reading: Reading) -> list[int]:
    return [part.stop - part.start for part in split_columns(reading.columns)]


def _collect_energies(
    model: Any, readings: Sequence[Reading], samples: SampleSet, scratch: Path
) -> dict[Reading, list[Energy]]:
    """Returns reading -> inputs' products with each other [groups, columns, columns], one for each block of columns.

    Summed over about as many rows of each sample. Without readings whose samples hold no numbers.
    """
    readers: dict[str, list[Reading]] = {}
    for reading in readings:
        readers.setdefault(reading.source, []).append(reading)
    sums = {reading: _Energies(reading) for reading in readings}
    count = min(samples.count, SAMPLES)
    for name, values in stream_tensors(model, list(readers), lambda: samples.feeds(SAMPLES), scratch):
        for reading in readers[name] if values.size else ():
            sums[reading].add(values, -(-reading.rows // count))
    return {reading: found for reading in readings if (found := sums[reading].finish())}


class _Energies:
    """Sums inputs' products with each other for one reading, some hundred rows at a time: adding up takes as long."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._generator = reading.make_generator()
        self._sums: list[Energy] = []
        self._waiting: list[npt.NDArray[np.float32]] = []

    def add(self, values: npt.NDArray[np.float32], count: int) -> None:
        """Takes rows of one sample's values."""
        rows = self._reading.take_rows(values, count, self._generator)
        if rows.size:
            self._waiting.append(rows)
        if sum(rows.shape[1] for rows in self._waiting) >= _TOGETHER:
            self._multiply()

    def finish(self) -> list[Energy]:
        """Returns a sum for each block of columns; none where no rows hold numbers."""
        self._multiply()
        return self._sums

    def _multiply(self) -> None:
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting, axis=1)
        self._waiting.clear()
        blocks = [rows[:, :, part] for part in split_columns(self._reading.columns)]
        products = [block.transpose(0, 2, 1) @ block for block in blocks]
        self._sums = list(map(np.add, self._sums, products)) if self._sums else products
