"""Weights in 4 or 8 bits and activations in float: for models that wait for memory, as language models do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelwright.targets.contract import BuildRequest, Feeds
from modelwright.targets.graphs.files import hash_graph
from modelwright.targets.graphs.index import find_weight_matmuls, index_graph
from modelwright.targets.graphs.rewrite import MICROSOFT_DOMAIN, rebuild_model, split_gemms
from modelwright.targets.ort.tables import find_tables, quantize_tables
from modelwright.targets.quantization.blocks import Blocks, pack_nibbles, round_blocks
from modelwright.targets.quantization.judge import Outputs
from modelwright.targets.quantization.onnx_quantizer import run_candidate
from modelwright.targets.quantization.quantizer import Quantizer
from modelwright.targets.quantization.savings import LayerWork
from modelwright.targets.readiness import require_import

_IN_INTEGERS = 4
"""`accuracy_level`: the products are summed as 8-bit integers, activations taking a scale for every block."""
_IN_FLOATS = 1
_SPARED_BITS, _SPARED_SIZE = 8, 32


@dataclass(frozen=True, kw_only=True)
class WeightCandidate:
    """One way to store weights: bits, how many share a scale, and whether zero is the middle level."""

    bits: int
    size: int
    symmetric: bool

    @property
    def name(self) -> str:
        return f"int{self.bits} in blocks of {self.size}, {'symmetric' if self.symmetric else 'asymmetric'}"


CANDIDATES: Mapping[int, Sequence[WeightCandidate]] = {
    8: (
        WeightCandidate(bits=8, size=32, symmetric=True),
        WeightCandidate(bits=8, size=16, symmetric=False),
    ),
    4: (
        WeightCandidate(bits=4, size=32, symmetric=True),
        WeightCandidate(bits=4, size=32, symmetric=False),
        WeightCandidate(bits=4, size=16, symmetric=False),
    ),
}
"""By bits, the smallest file first."""


class WeightQuantizer(Quantizer[WeightCandidate, Any]):
    """Builds candidates with matrices in blocks (`MatMulNBits`) and lookup tables in 8 bits.

    Args:
        request: Whose samples judge.
        model: The normalized float model; its Gemms are split.
        bits: Of the matrices. One that cannot have 4 gets 8; one that cannot have 8 stays in float.
    """

    def __init__(self, request: BuildRequest, model: Any, bits: int) -> None:
        split_gemms(model)
        self._request, self._model, self._bits = request, model, bits
        dense = find_weight_matmuls(model, index_graph(model))
        self._layers = [node.name for node in dense if node.op_type == "MatMul"]
        self._tables = frozenset(find_tables(model))

    @property
    def has_layers(self) -> bool:
        return bool(self._layers or self._tables)

    def candidates(self) -> Sequence[Sequence[WeightCandidate]]:
        return [[candidate] for candidate in CANDIDATES[self._bits]]

    def build(self, candidate: WeightCandidate, kept: Collection[str]) -> Any:
        model = quantize_tables(self._model, self._tables - set(kept))
        writer = BlockWriter(model)
        for node in model.graph.node:
            if node.name not in self._layers:
                writer.nodes.append(node)
            elif node.name not in kept:
                writer.write(node, candidate)
            elif candidate.bits < _SPARED_BITS:
                writer.write(node, WeightCandidate(bits=_SPARED_BITS, size=_SPARED_SIZE, symmetric=True))
            else:
                writer.nodes.append(node)
        return rebuild_model(model, writer.nodes, writer.constants)

    def identify(self, model: Any) -> str | None:
        return hash_graph(model)

    def run(self, model: Any, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
        return run_candidate(self._request, model, feeds)

    def works(self, model: Any) -> Mapping[str, LayerWork]:  # noqa: ARG002 - the float model says it
        index = index_graph(self._model)
        layers = {*self._layers, *self._tables}
        weights = {
            node.name: node.input[0 if node.name in self._tables else 1]
            for node in self._model.graph.node
            if node.name in layers
        }
        return {
            name: LayerWork(products=0.0, weights=float(np.prod(index.constants[read].dims)))
            for name, read in weights.items()
        }

    def explain_kept(self, kept: Collection[str]) -> str | None:
        """Returns what the user has to know of the layers that could not have the few bits."""
        if not kept:
            return None
        layers = sum(name in self._layers for name in kept)
        tables = len(kept) - layers
        instead = "8 bits" if self._bits < _SPARED_BITS else "float"
        told = [f"{layers} matri{'x' if layers == 1 else 'ces'} in {instead}"] if layers else []
        told += [f"{tables} table{'s' if tables > 1 else ''} in float"] if tables else []
        return f"{self._bits} bits lose too much in places: {' and '.join(told)}"


class BlockWriter:
    """Writes matrices in blocks.

    Args:
        model: The float model whose matrices they are.

    Attributes:
        nodes: The nodes of the new graph; callers add the others.
        constants: Its new constants.
    """

    def __init__(self, model: Any) -> None:
        self._onnx = require_import("onnx", "onnx")
        self._index = index_graph(model)
        self._formats: dict[str, tuple[int, int]] = {}
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def write(self, node: Any, candidate: WeightCandidate) -> None:
        """Writes a MatMul with a matrix in blocks, each with scales of its own."""
        self.write_rounded(
            node,
            lambda matrix: round_blocks(
                matrix, bits=candidate.bits, size=candidate.size, symmetric=candidate.symmetric
            ),
            stem=f"{node.input[1]}_b{candidate.bits}",
        )

    def write_rounded(
        self, node: Any, round_matrix: Callable[[Any], Blocks], *, stem: str, in_integers: bool = True
    ) -> None:
        """Writes a MatMul with a matrix in blocks.

        Args:
            node: The MatMul.
            round_matrix: Gives the blocks of its matrix.
            stem: Of the names of the constants; nodes that give the same one share them.
            in_integers: Whether activations are rounded to 8 bits, a scale a block, and multiplied as integers.
        """
        rows, columns = self._index.constants[node.input[1]].dims
        names = [f"{stem}_{part}" for part in ("values", "scales", "zero_points")]
        if names[0] not in self.constants:
            self._store(names, round_matrix(self._index.array(node.input[1])))
        bits, size = self._formats[names[0]]
        self.nodes.append(
            self._onnx.helper.make_node(
                "MatMulNBits",
                [node.input[0], *(name for name in names if name in self.constants)],
                list(node.output),
                node.name,
                domain=MICROSOFT_DOMAIN,
                K=rows,
                N=columns,
                bits=bits,
                block_size=size,
                accuracy_level=_IN_INTEGERS if in_integers else _IN_FLOATS,
            )
        )

    def _store(self, names: list[str], blocks: Blocks) -> None:
        packed = pack_nibbles if blocks.bits == 4 else np.asarray
        arrays = [packed(blocks.values), blocks.scales]
        arrays += [] if blocks.zero_points is None else [packed(blocks.zero_points)]
        self._formats[names[0]] = (blocks.bits, blocks.values.shape[2])
        for name, values in zip(names, arrays, strict=False):
            self.constants[name] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
