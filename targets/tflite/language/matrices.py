"""How matrices are stored and multiplied by: as floats, in 8 bits by the column, or in blocks of 4 bits."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from modelwright.targets.language.grids import BlockFormat, Grids
from modelwright.targets.language.portable import Floats, LinearLayer, PortableModel
from modelwright.targets.quantization.blocks import Blocks, pack_nibbles
from modelwright.targets.tflite.language.model_file import Constant, GraphWriter, Scales, Value

BLOCK_SIZE = 32
"""Rows of a block of 4 bits: the fewest for which XNNPACK has kernels. LiteRT 2.3 runs blocks of 16 in its reference
kernel, some 500 times as slow, and reads no zero points, whatever the file says: blocks are symmetric."""
_LEAST_SCALE = np.float32(2.0**-14)
"""Of a block: the smallest normal number of the 16 bits that it is stored in."""
_SCALE_STEPS = 2**8
"""Of a block's scale between two powers of 2: XNNPACK reads it as BF16."""


class Matrices(ABC):
    """Writes products with constant matrices, and lookups in tables. In the file, a row makes an output.

    Args:
        model: Whose they are.
    """

    def __init__(self, model: PortableModel) -> None:
        self.model = model

    def write_product(self, graph: GraphWriter, layer: LinearLayer, bias: Value | None, reads: Value) -> Value:
        """Writes a product, and returns what it makes, [tokens, columns].

        Args:
            graph: That it becomes part of.
            layer: Whose matrix it is.
            bias: float32 [columns], which is added.
            reads: What is multiplied, [tokens, rows].
        """
        matrix = self.add_table(graph, layer.weight) if layer.is_turned else self.add_matrix(graph, layer)
        inputs = [reads, matrix] if bias is None else [reads, matrix, bias]
        return graph.add("FULLY_CONNECTED", inputs, [-1, layer.columns], layer.name, "FullyConnectedOptions")

    def write_lookup(self, graph: GraphWriter, table: str, ids: Value, name: str) -> Value:
        """Writes a lookup of rows, and returns them, [ids, channels]."""
        stored = self.add_table(graph, table)
        return graph.add("EMBEDDING_LOOKUP", [ids, stored], [-1, stored.shape[1]], name)

    @abstractmethod
    def add_matrix(self, graph: GraphWriter, layer: LinearLayer) -> Value:
        """Adds the matrix of a layer."""

    @abstractmethod
    def add_table(self, graph: GraphWriter, table: str) -> Value:
        """Adds a table that rows are looked up in; a head may read it too."""


class FloatMatrices(Matrices):
    """Matrices as the export has them."""

    def add_matrix(self, graph: GraphWriter, layer: LinearLayer) -> Value:
        return graph.add_constant(layer.weight, lambda: Constant.of(self.model.read_matrix(layer).T))

    def add_table(self, graph: GraphWriter, table: str) -> Value:
        return graph.add_constant(table, lambda: Constant.of(self.model.read(table)))


class RoundedMatrices(Matrices):
    """Matrices in integers, whose inputs are rounded to 8 bits as they come, each token's by itself.

    Tables, and the heads that read them, have 8 bits.

    Args:
        grids: Where the integers come from.
    """

    def __init__(self, grids: Grids) -> None:
        super().__init__(grids.model)
        self._grids = grids

    def add_matrix(self, graph: GraphWriter, layer: LinearLayer) -> Value:
        return graph.add_constant(layer.weight, lambda: store_blocks(self._grids.round_layer(layer)))

    def add_table(self, graph: GraphWriter, table: str) -> Value:
        return graph.add_constant(table, lambda: self._round_table(self.model.read(table).T))

    def _round_table(self, turned: Floats) -> Constant:
        return store_blocks(choose_format(8, len(turned)).round(turned))


def choose_format(bits: int, rows: int) -> BlockFormat:
    """Returns how a matrix with so many rows to sum over is stored: 4 bits are for those that blocks fill."""
    if bits == 4 and rows % BLOCK_SIZE == 0:
        return BlockFormat(bits=4, size=BLOCK_SIZE, symmetric=True, positive=True)
    return BlockFormat(bits=8, size=rows, symmetric=True, positive=True)


def store_blocks(blocks: Blocks) -> Constant:
    """Returns a rounded matrix as TFLite stores it, with signed integers."""
    columns, count, size = blocks.values.shape
    shape = (columns, count * size)
    if blocks.bits == 8:
        assert count == 1, "kernels of 8 bits have a scale for a whole column"
        levels = (blocks.values ^ 128).view(np.int8)  # less 128
        return Constant.of(levels.reshape(shape), Scales(values=blocks.scales[:, 0]))
    levels = blocks.values.astype(np.int8) - np.int8(8)
    mantissas, exponents = np.frexp(np.maximum(blocks.scales, _LEAST_SCALE))
    scales = np.ldexp(np.rint(mantissas * _SCALE_STEPS) / _SCALE_STEPS, exponents).astype(np.float32)
    # The same integers, but where a scale was too small to be stored.
    levels = np.clip(np.rint(levels * (blocks.scales / scales)[:, :, None]), -8, 7).astype(np.int8)
    packed = pack_nibbles(levels.reshape(shape).view(np.uint8) & 15)
    return Constant(values=packed, shape=shape, kind="INT4", scales=Scales(values=scales, block_size=size))
