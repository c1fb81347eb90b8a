"""The portable graph that language models are exported to, opened without reading its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.language import GRAPH_FILE
from modelwright.targets.graphs.files import load_model
from modelwright.targets.graphs.index import GraphIndex, index_graph
from modelwright.targets.readiness import require_import

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class LinearLayer:
    """A product with a constant matrix.

    Attributes:
        name: Of the node; that of the weight without `.weight`.
        weight: Name of the initializer, stored as [rows, columns].
        reads: The value that it multiplies. Layers that read the same one can share what is known of it.
        gives: The value that it makes.
        rows: Channels in, which are summed over.
        columns: Channels out.
        is_turned: Whether it reads the matrix transposed: a head that shares the embedding table, whose initializer is
            [columns, rows].
    """

    name: str
    weight: str
    reads: str
    gives: str
    rows: int
    columns: int
    is_turned: bool = False


class PortableModel:
    """The graph of an exported model, whose weights are read one at a time from the mapped file.

    Args:
        folder: Of the exported model.

    Attributes:
        folder: Where it lies.
        proto: The graph; its large initializers hold no values.
        index: Who makes and who reads each value.
        tables: Names of the matrices that tokens are looked up in.
        linear_layers: Name -> product with a constant matrix, in the order of the graph.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proto = load_model(folder / GRAPH_FILE, weights=False)
        self.index: GraphIndex = index_graph(self.proto)
        self.tables = frozenset(
            node.input[0]
            for node in self.proto.graph.node
            if node.op_type == "Gather" and node.input[1] == "input_ids" and self.index.is_float_constant(node.input[0])
        )
        self.linear_layers = {layer.name: layer for layer in self._find_linear_layers()}

    def read(self, name: str) -> Floats:
        """Returns an initializer's values; those of a large one are mapped, and read as they are used."""
        tensor = self.index.constants[name]
        facts = {entry.key: entry.value for entry in tensor.external_data}
        if not facts:
            return np.asarray(self.index.array(name), np.float32)
        return np.memmap(
            self.folder / facts["location"], np.float32, "r", int(facts.get("offset", 0)), tuple(tensor.dims)
        )

    def read_matrix(self, layer: LinearLayer) -> Floats:
        """Returns the matrix of a linear layer: float32 [rows, columns]."""
        values = self.read(layer.weight)
        return values.T if layer.is_turned else values

    def find_window(self, mask: str) -> int | None:
        """Returns how many tokens an attention's mask lets a token see, itself included; None for all."""
        waiting, windows = [mask], set()
        while waiting:
            node = self.index.producers.get(waiting.pop())
            if node is None:
                continue
            if node.op_type == "Less" and node.input[1] in self.index.constants:
                windows.add(int(self.index.array(node.input[1])))
            waiting += node.input
        if len(windows) > 1:
            raise BuildFailedError(f"{mask} limits attention to several windows ({sorted(windows)}), expected one")
        return next(iter(windows), None)

    def list_windows(self) -> list[int | None]:
        """Returns the windows of all attentions, each once; None first, where some see all."""
        masks = dict.fromkeys(node.input[3] for node in self.proto.graph.node if node.op_type == "Attention")
        return sorted({self.find_window(mask) for mask in masks}, key=lambda window: window or 0)

    def _find_linear_layers(self) -> Iterator[LinearLayer]:
        for node in self.proto.graph.node:
            if node.op_type != "MatMul":
                continue
            maker = self.index.producers.get(node.input[1])
            is_turned = maker is not None and maker.op_type == "Transpose"
            weight = maker.input[0] if maker is not None and is_turned else node.input[1]
            if not self.index.is_float_constant(weight) or len(self.index.constants[weight].dims) != 2:
                continue
            dims = list(self.index.constants[weight].dims)
            rows, columns = reversed(dims) if is_turned else dims
            yield LinearLayer(
                name=node.name,
                weight=weight,
                reads=node.input[0],
                gives=node.output[0],
                rows=rows,
                columns=columns,
                is_turned=is_turned,
            )


def describe_tensor(name: str, values: Any) -> Any:
    """Returns an initializer that lies in the graph itself."""
    return require_import("onnx.numpy_helper", "onnx").from_array(np.ascontiguousarray(values), name)
