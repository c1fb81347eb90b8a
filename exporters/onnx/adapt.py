"""What is changed in our copy of an ONNX model so that more runtimes read it. For child processes only.

Nothing here changes a number, and the user's own file stays as it is: what was changed is said.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from modelwright.core.onnx.facts import INITIALIZERS_APART_IR, list_initializers
from modelwright.core.onnx.sparse import count_dense_bytes, densify_graph
from modelwright.core.onnx.walk import iterate_graphs
from modelwright.exporters.onnx.file import read_graph
from modelwright.exporters.onnx.versions import lower_versions

_DENSE_BYTES = 2**29
"""Sparse weights that would take more than this as dense ones stay sparse: only some runtimes will read them."""
_NAMED = 3
_EXTERNAL = 1
"""`onnx.TensorProto.EXTERNAL`."""


def adapt_model(path: Path, fed: Collection[str]) -> list[str]:
    """Rewrites a copy of a model where something in it is known to stop runtimes that could run it otherwise.

    Args:
        path: The copy; its external data lies beside it.
        fed: The names of the samples' arrays.

    Returns:
        A sentence for each change; the file is untouched where there is none.

    Raises:
        BadInputError: It is no ONNX model, or needs operators that are newer than ONNX Runtime.
    """
    model = read_graph(path)
    notes = [*lower_versions(path, model), *settle_inputs(model.graph, model.ir_version, fed), *densify_model(model)]
    if notes:
        path.write_bytes(model.SerializeToString())
    return notes


def settle_inputs(graph: Any, ir_version: int, fed: Collection[str]) -> list[str]:
    """Makes each input that has a default value either a constant or an input without one.

    From IR version 4 on such a value may be overridden by whoever runs the model, so that no runtime may treat it as
    the weight that it nearly always is. What the samples feed is meant to be an input.

    Returns:
        Sentences for the user.
    """
    if ir_version < INITIALIZERS_APART_IR:
        return []  # there every initializer is listed as an input, and none can be overridden
    values = set(list_initializers(graph))
    both = [value.name for value in graph.input if value.name in values]
    inputs = [name for name in both if name in fed]
    weights = [name for name in both if name not in fed]
    for name in inputs:
        for tensors in (graph.initializer, graph.sparse_initializer):
            for position in reversed(range(len(tensors))):
                if getattr(tensors[position], "values", tensors[position]).name == name:
                    del tensors[position]
    for position in reversed(range(len(graph.input))):
        if graph.input[position].name in weights:
            del graph.input[position]
    notes = []
    if weights:
        notes.append(
            f"{_count(weights, 'weight')} listed as inputs too ({_name(weights)}) that no sample feeds: constants in "
            "our copy, as runtimes could not treat them as such"
        )
    if inputs:
        notes.append(
            f"{_count(inputs, 'input')} with a default value ({_name(inputs)}), which the samples feed instead"
        )
    return notes


def densify_model(model: Any) -> list[str]:
    """Makes sparse constants dense, in all graphs and functions, unless that takes too much memory.

    Returns:
        Sentences for the user.
    """
    graphs = list(iterate_graphs(model))
    total = sum(map(count_dense_bytes, graphs))
    if not total or any(tensor.data_location == _EXTERNAL for graph in graphs for tensor in _sparse_parts(graph)):
        return []
    if total > _DENSE_BYTES:
        return [f"sparse weights stay so, as they would take up to {total / 1e9:.1f} GB: few runtimes read them"]
    names = [name for graph in graphs for name in densify_graph(graph)]
    return [f"{_count(names, 'sparse weight')} dense in our copy ({_name(names)}): few runtimes read sparse ones"]


def _sparse_parts(graph: Any) -> list[Any]:
    return [part for tensor in getattr(graph, "sparse_initializer", ()) for part in (tensor.values, tensor.indices)]


def _count(names: Collection[str], what: str) -> str:
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'}"


def _name(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
