"""Matrices of a language model on grids of few bits: the numbers that runtimes share, each packs them in its way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.targets.language.portable import LinearLayer, PortableModel
from modelwright.targets.quantization.blocks import Blocks, round_blocks


@dataclass(frozen=True, kw_only=True)
class BlockFormat:
    """How a matrix is stored.

    Attributes:
        bits: Of a value: 4 or 8.
        size: Values along the axis that is summed over which share a scale.
        symmetric: Whether zero is the middle level.
    """

    bits: int
    size: int
    symmetric: bool

    def describe(self) -> dict[str, Any]:
        return {"bits": self.bits, "block_size": self.size, "symmetric": self.symmetric}


class Grids(ABC):
    """The matrices of all linear layers, each rounded or read when it is asked for.

    A head that shares the embedding table has one format with it: the rounded head is the table.

    Args:
        model: Whose layers they are.
        formats: Name of a linear layer -> how it is stored.
    """

    def __init__(self, model: PortableModel, formats: Mapping[str, BlockFormat]) -> None:
        self.model, self.formats = model, formats

    @abstractmethod
    def round_layer(self, layer: LinearLayer) -> Blocks:
        """Returns the matrix [rows, columns] of a layer on its grid."""

    def describe(self) -> list[dict[str, Any]]:
        """Returns each format with how many of the layers have it, the most frequent one first."""
        counts: dict[BlockFormat, int] = {}
        for found in self.formats.values():
            counts[found] = counts.get(found, 0) + 1
        return [
            {**found.describe(), "layers": count} for found, count in sorted(counts.items(), key=lambda item: -item[1])
        ]


class NearestGrids(Grids):
    """Every value at the level nearest to it."""

    def round_layer(self, layer: LinearLayer) -> Blocks:
        found = self.formats[layer.name]
        matrix = self.model.read_matrix(layer)
        return round_blocks(matrix, bits=found.bits, size=found.size, symmetric=found.symmetric)
