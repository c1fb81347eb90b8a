"""How matrices are stored and multiplied by: as floats, or in blocks of few bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelwright.targets.language.portable import Floats, LinearLayer, PortableModel
from modelwright.targets.ort.language.graph_file import GraphFile


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
