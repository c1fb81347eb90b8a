"""The one walk through an ONNX model: the graphs in its nodes and functions, their tensors, and who reads which name.

Names are those of ONNX: a graph inside a node sees the tensors around it, and a tensor of its own hides one of the same
name outside. Works on onnx's protobuf messages, typed `Any`. The TFLite converter loads this in an environment of its
own: it needs onnx and nothing else of the project but `facts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from modelwright.core.onnx.facts import list_initializers


def find_subgraphs(node: Any) -> Iterator[Any]:
    """Yields the graphs in a node's attributes, as of If, Loop and Scan."""
    yield from _graphs_in(node.attribute)


def iterate_graphs(model: Any) -> Iterator[Any]:
    """Yields every graph and function of a model: what runs, the defaults of functions' attributes, and training."""
    training = [graph for info in model.training_info for graph in (info.initialization, info.algorithm)]
    pending = [model.graph, *model.functions, *training]
    while pending:
        graph = pending.pop()
        yield graph
        pending.extend(_graphs_in(_iterate_attributes(graph)))


def iterate_tensors(model: Any) -> Iterator[Any]:
    """Yields every constant tensor of a model: initializers and attributes, of sparse ones values and indices."""
    for graph in iterate_graphs(model):
        yield from getattr(graph, "initializer", ())
        sparse = list(getattr(graph, "sparse_initializer", ()))
        for attribute in _iterate_attributes(graph):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                sparse.append(attribute.sparse_tensor)
            sparse.extend(attribute.sparse_tensors)
        for tensor in sparse:
            yield tensor.values
            yield tensor.indices


def captured_names(node: Any) -> list[str]:
    """Returns the tensors around a node that its subgraphs read, each once."""
    found: dict[str, None] = {}
    for graph in find_subgraphs(node):
        own = own_names(graph)
        reads = (name for inner in graph.node for name in read_names(inner))
        ends = (value.name for value in graph.output)
        found.update(dict.fromkeys(name for name in (*reads, *ends) if name not in own))
    return list(found)


def read_names(node: Any) -> list[str]:
    """Returns the tensors that a node reads, by itself or in its subgraphs, each once."""
    return list(dict.fromkeys([*filter(None, node.input), *captured_names(node)]))


def own_names(graph: Any) -> set[str]:
    """Returns the tensors that a graph makes or is given itself, not those that it sees around it."""
    made = {name for node in graph.node for name in node.output if name}
    given = {value if isinstance(value, str) else value.name for value in graph.input}  # a function has names only
    return made | given | set(list_initializers(graph))


def rename_reads(nodes: Iterable[Any], old: str, new: str) -> None:
    """Lets nodes and their subgraphs read `new` where they read `old` of the graph that the nodes are in."""
    for node in nodes:
        for position, name in enumerate(node.input):
            if name == old:
                node.input[position] = new
        for graph in find_subgraphs(node):
            if old in own_names(graph):
                continue
            rename_reads(graph.node, old, new)
            for value in graph.output:
                value.name = new if value.name == old else value.name


def _graphs_in(attributes: Iterable[Any]) -> Iterator[Any]:
    for attribute in attributes:
        if attribute.HasField("g"):  # reading `g` of an attribute without one would give an empty graph
            yield attribute.g
        yield from attribute.graphs


def _iterate_attributes(graph: Any) -> Iterator[Any]:
    """Yields the attributes of a graph's nodes, and of a function the default values of its own."""
    for node in graph.node:
        yield from node.attribute
    yield from getattr(graph, "attribute_proto", ())
