"""Matrices rounded for what they make of real texts (GPTQ's method), kept for all targets of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from modelwright.core.files import hash_json
from modelwright.targets.language.contract import LanguageBuildRequest, Tokens
from modelwright.targets.language.energies import TOGETHER, Energy, measure_energies
from modelwright.targets.language.grids import BlockFormat, Grids, group_layers
from modelwright.targets.language.portable import LinearLayer, PortableModel
from modelwright.targets.quantization.blocks import Blocks
from modelwright.targets.quantization.rounding import describe_rounding, find_exchange, round_in_blocks

_ENERGY_BYTES = 2**29
"""Of what layers read that is held at a time, or half of what the matrices take where that is more: texts are run again
for what is left."""


class CompensatedGrids(Grids):
    """The matrices of linear layers in one format, rounded once and kept in files.

    Args:
        request: Whose calibration texts say what layers read, and whose shared folder keeps the integers.
        model: The portable graph.
        found: How each of the matrices is stored.
        names: Of the layers.

    Attributes:
        folder: Where the integers are kept; its name says what they were made of.
    """

    def __init__(
        self, request: LanguageBuildRequest, model: PortableModel, found: BlockFormat, names: Sequence[str]
    ) -> None:
        super().__init__(model, dict.fromkeys(names, found))
        assert request.calibration is not None, "asked for by the record"
        facts = {
            "model": dict(request.record.files),
            "tokens": hashlib.sha256(request.calibration.tobytes()).hexdigest(),
            "format": found.describe(),
            "rounding": {**describe_rounding(), "together": TOGETHER, "scales": "by energy"},
        }
        self.folder = request.shared / f"grids-{hash_json(facts)[:16]}"
        self._round_missing(request.calibration, request.threads, request.progress)

    def round_layer(self, layer: LinearLayer) -> Blocks:
        with np.load(self._path(layer.name)) as stored:
            zeros = stored["zero_points"]
            return Blocks(
                bits=self.formats[layer.name].bits,
                rows=layer.rows,
                values=stored["values"],
                scales=stored["scales"],
                zero_points=zeros if zeros.size else None,
            )

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def _round_missing(self, tokens: Tokens, threads: int, progress: Callable[[str], None]) -> None:
        self.folder.mkdir(exist_ok=True)
        missing = [name for name in self.formats if not self._path(name).is_file()]
        weights = sum(layer.rows * layer.columns for layer in self.model.linear_layers.values())
        most = max(_ENERGY_BYTES, 4 * weights // 2)
        for part in _split_readers(group_layers(self.model, missing), most):
            progress(f"reading {len(tokens)} texts for what {len(part)} groups of matrices multiply")
            energies = measure_energies(
                self.model, {reads: layers[0].rows for reads, layers in part.items()}, tokens, threads
            )
            for reads, layers in part.items():
                self._round_group(layers, energies.pop(reads))

    def _round_group(self, layers: Sequence[LinearLayer], energy: Energy) -> None:
        """Rounds layers that read the same value."""
        exchanges = [find_exchange(block) for block in energy]
        # A scale is for what its block's channels carry: a large weight of one that is silent may be cut off.
        importance = np.concatenate([np.diagonal(block[0]) for block in energy])
        for layer in layers:
            matrix = np.asarray(self.model.read_matrix(layer))
            rounded = round_in_blocks(matrix, exchanges, self.formats[layer.name].round(matrix, importance))
            zeros = np.zeros(0, np.uint8) if rounded.zero_points is None else rounded.zero_points
            path = self._path(layer.name)
            with path.with_suffix(".part").open("wb") as file:
                np.savez(file, values=rounded.values, scales=rounded.scales, zero_points=zeros)
            path.with_suffix(".part").replace(path)


def _split_readers(readers: Mapping[str, list[LinearLayer]], most: int) -> Iterator[dict[str, list[LinearLayer]]]:
    """Yields groups of layers whose energies take no more bytes together."""
    part: dict[str, list[LinearLayer]] = {}
    held = 0
    for reads, layers in readers.items():
        size = 4 * layers[0].rows * min(layers[0].rows, TOGETHER)
        if part and held + size > most:
            yield part
            part, held = {}, 0
        part[reads] = layers
        held += size
    if part:
        yield part
