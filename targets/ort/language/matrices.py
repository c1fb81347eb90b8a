"""How matrices are stored and multiplied by: as floats, or in blocks of few bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelwright.targets.language.grids import BlockFormat, Grids
from modelwright.targets.language.portable import Floats, LinearLayer, PortableModel
from modelwright.targets.ort.language.graph_file import GraphFile
from modelwright.targets.quantization.blocks import Blocks, pack_nibbles, round_blocks

_IN_INTEGERS = 4
"""`accuracy_level`: the products are summed as 8-bit integers, activations taking a scale for every block."""
_LOOKED_UP_BITS = 8
"""What tables are looked up in: a table of 4 bits loses more than the few rows that are read could save."""


class Matrices(ABC):
    """Writes products with constant matrices, and lookups of tokens."""

    @abstractmethod
    def can_join(self, layers: Sequence[LinearLayer]) -> bool:
        """Whether layers that read the same value can be one product, whose columns lie beside each other."""

    @abstractmethod
    def write_product(
        self, graph: GraphFile, layers: Sequence[LinearLayer], bias: Floats | None, reads: str, gives: str
    ) -> None:
        """Writes a product with one matrix, or with several beside each other.

        Args:
            graph: That it becomes part of.
            layers: Whose matrices they are.
            bias: float32 [columns of all], which is added.
            reads: The value that is multiplied.
            gives: What the product is called.
        """

    @abstractmethod
    def write_lookup(self, graph: GraphFile, node: Any) -> None:
        """Writes a node that looks up tokens in a table."""


class FloatMatrices(Matrices):
    """Matrices as the export has them.

    Args:
        model: Whose they are.
    """

    def __init__(self, model: PortableModel) -> None:
        self._model = model

    def can_join(self, layers: Sequence[LinearLayer]) -> bool:
        return not any(layer.is_turned for layer in layers)

    def write_product(
        self, graph: GraphFile, layers: Sequence[LinearLayer], bias: Floats | None, reads: str, gives: str
    ) -> None:
        first = layers[0]
        if first.is_turned:
            table = graph.add_constant(first.weight, self._model.read(first.weight))
            # Not MatMul: its table would be turned while it is loaded, a second copy in memory.
            graph.add_node("Gemm", [reads, table], [gives], first.name, transB=1)
            return
        matrices = [self._model.read_matrix(layer) for layer in layers]
        joined = matrices[0] if len(matrices) == 1 else np.concatenate(matrices, axis=1)
        matrix = graph.add_constant(name_joined(layers), joined)
        if bias is None:
            graph.add_node("MatMul", [reads, matrix], [gives], first.name)
            return
        product = graph.add_node("MatMul", [reads, matrix], [f"{gives}.product"], first.name)
        added = graph.add_constant(f"{name_joined(layers)}.bias", bias)
        graph.add_node("Add", [product, added], [gives], f"{first.name}.add_bias")

    def write_lookup(self, graph: GraphFile, node: Any) -> None:
        table = graph.add_constant(node.input[0], self._model.read(node.input[0]))
        graph.add_node("Gather", [table, node.input[1]], list(node.output), node.name)


def name_joined(layers: Sequence[LinearLayer]) -> str:
    """Returns what the matrices of layers are called when they lie beside each other."""
    return layers[0].weight if len(layers) == 1 else f"{layers[0].weight}.and_{len(layers) - 1}_more"


class BlockMatrices(Matrices):
    """Matrices in blocks of few bits; a table that the head shares is stored once, for both.

    Args:
        grids: Where the integers come from.
        table_format: Of tables that no head shares.
    """

    def __init__(self, grids: Grids, table_format: BlockFormat) -> None:
        self._grids, self._table_format = grids, table_format
        heads = [layer for layer in grids.model.linear_layers.values() if layer.is_turned]
        self._heads = {layer.weight: layer for layer in heads}

    def can_join(self, layers: Sequence[LinearLayer]) -> bool:
        formats = {self._grids.formats[layer.name] for layer in layers}
        return len(formats) == 1 and not any(layer.is_turned for layer in layers)

    def write_product(
        self, graph: GraphFile, layers: Sequence[LinearLayer], bias: Floats | None, reads: str, gives: str
    ) -> None:
        found = self._grids.formats[layers[0].name]
        stem = layers[0].weight if layers[0].is_turned else name_joined(layers)
        names = _name_parts(stem, found)
        if not graph.has_constant(names[0]):
            _store(graph, names, join_blocks([self._grids.round_layer(layer) for layer in layers]))
        inputs = [reads, *names[: 2 if found.symmetric else 3]]
        if bias is not None:
            inputs += [""] * (5 - len(inputs))
            inputs.append(graph.add_constant(f"{stem}.bias", bias))
        graph.add_fused(
            "MatMulNBits",
            inputs,
            [gives],
            layers[0].name,
            K=layers[0].rows,
            N=sum(layer.columns for layer in layers),
            bits=found.bits,
            block_size=found.size,
            accuracy_level=_IN_INTEGERS,
        )

    def write_lookup(self, graph: GraphFile, node: Any) -> None:
        table, model = node.input[0], self._grids.model
        head = self._heads.get(table)
        found = self._table_format if head is None else self._grids.formats[head.name]
        width = model.index.constants[table].dims[1]
        if found.bits != _LOOKED_UP_BITS or width % found.size:
            found = BlockFormat(bits=_LOOKED_UP_BITS, size=found.size, symmetric=True)
            head = None
        blocks = -(-width // found.size)
        names = _name_parts(table if head is not None else f"{table}.rows", found)
        rounded = (
            self._grids.round_layer(head)
            if head is not None
            else round_blocks(model.read(table).T, bits=found.bits, size=found.size, symmetric=found.symmetric)
        )
        _store(graph, names, rounded)
        # As [rows, blocks, values] it is what the product reads: to flatten it would be a second copy in memory.
        shapes = [rounded.values.shape, *[(*rounded.scales.shape, 1)] * 2]
        values, scales, *zeros = (
            graph.add_twin(f"{name}.rows", name, shape)
            for name, shape in zip(names, shapes, strict=True)
            if graph.has_constant(name)
        )
        inputs = [values, node.input[1], scales, *zeros]
        looked_up = graph.add_fused(
            "GatherBlockQuantized",
            inputs,
            [f"{node.output[0]}.blocks"],
            node.name,
            bits=found.bits,
            block_size=found.size,
            gather_axis=0,
            quantize_axis=2,
        )
        flat = graph.add_integers(0, 0, blocks * found.size)
        whole = width == blocks * found.size
        joined = list(node.output) if whole else [f"{node.output[0]}.padded"]
        graph.add_node("Reshape", [looked_up, flat], joined, f"{node.name}.join")
        if not whole:
            ends = [graph.add_integers(place) for place in (0, width, -1)]
            graph.add_node("Slice", [joined[0], *ends], list(node.output), f"{node.name}.cut")


def join_blocks(parts: Sequence[Blocks]) -> Blocks:
    """Returns matrices in blocks of one format, which read the same rows, beside each other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    zeros = [part.zero_points for part in parts if part.zero_points is not None]
    return Blocks(
        bits=first.bits,
        rows=first.rows,
        values=np.concatenate([part.values for part in parts]),
        scales=np.concatenate([part.scales for part in parts]),
        zero_points=np.concatenate(zeros) if zeros else None,
    )


def _name_parts(stem: str, found: BlockFormat) -> list[str]:
    return [f"{stem}_b{found.bits}_{part}" for part in ("values", "scales", "zero_points")]


def _store(graph: GraphFile, names: Sequence[str], blocks: Blocks) -> None:
    packed = pack_nibbles if blocks.bits == 4 else np.asarray
    graph.add_constant(names[0], packed(blocks.values))
    graph.add_constant(names[1], blocks.scales)
    if blocks.zero_points is not None:
        graph.add_constant(names[2], packed(blocks.zero_points))
