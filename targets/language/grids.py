"""Matrices of a language model on grids of few bits: the numbers that runtimes share, each packs them in its way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.targets.language.portable import Floats, LinearLayer, PortableModel
from modelwright.targets.quantization.blocks import Blocks, round_blocks


@dataclass(frozen=True, kw_only=True)
class BlockFormat:
    """How a matrix is stored.

    Attributes:
        bits: Of a value: 4 or 8.
        size: Values along the axis that is summed over which share a scale.
        symmetric: Whether zero is the middle level.
        positive: Whether scales of symmetric blocks are positive, for kernels that take no others.
    """

    bits: int
    size: int
    symmetric: bool
    positive: bool = False

    def describe(self) -> dict[str, Any]:
        described = {"bits": self.bits, "block_size": self.size, "symmetric": self.symmetric}
        return {**described, "positive_scales": True} if self.positive else described

    def round(self, matrix: Floats, importance: Floats | None = None) -> Blocks:
        """Returns a matrix, float32 [rows, columns], at the nearest levels.

        Args:
            matrix: float32 [rows, columns].
            importance: float32 [rows]: what errors in each row count; None for all the same.
        """
        return round_blocks(
            matrix,
            bits=self.bits,
            size=self.size,
            symmetric=self.symmetric,
            positive=self.positive,
            importance=importance,
        )


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
        return self.formats[layer.name].round(self.model.read_matrix(layer))


class SparedGrids(Grids):
    """Few bits for most matrices, and more for those that lose most by few.

    Args:
        few: The matrices on grids of few bits.
        spared: Names of layers that get more.
        more: All matrices on grids of more bits, for those, and for what has no grid of few.
    """

    def __init__(self, few: Grids, spared: Collection[str], more: Grids) -> None:
        kept = {name: found for name, found in few.formats.items() if name not in spared}
        super().__init__(few.model, {**more.formats, **kept})
        self._few, self._kept, self._more = few, kept, more

    def round_layer(self, layer: LinearLayer) -> Blocks:
        return (self._few if layer.name in self._kept else self._more).round_layer(layer)


def group_layers(model: PortableModel, names: Iterable[str]) -> dict[str, list[LinearLayer]]:
    """Returns the value that layers read -> those layers: they have one format, so that they can be one product.

    Args:
        model: Whose layers they are.
        names: Of the layers.
    """
    groups: dict[str, list[LinearLayer]] = {}
    for name in names:
        layer = model.linear_layers[name]
        groups.setdefault(layer.reads, []).append(layer)
    return groups


def choose_spared(
    groups: Mapping[str, Sequence[LinearLayer]], harm: Mapping[str, float], share: float
) -> frozenset[str]:
    """Returns the layers with the most harm for their size, until they hold a share of all weights.

    Args:
        groups: The value that layers read -> those layers, which go together.
        harm: Of few bits to each group.
        share: Of the weights of all these layers.
    """
    sizes = {reads: sum(layer.rows * layer.columns for layer in group) for reads, group in groups.items()}
    left = share * sum(sizes.values())
    spared: set[str] = set()
    for reads in sorted(groups, key=lambda reads: harm[reads] / sizes[reads], reverse=True):
        if sizes[reads] <= left:
            spared |= {layer.name for layer in groups[reads]}
            left -= sizes[reads]
    return frozenset(spared)
