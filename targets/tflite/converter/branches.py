"""Takes If out of a graph: TFLite's converter has no control flow.

Of an If whose condition is known, the branch that runs takes its place. Otherwise both run, and the condition chooses
between their values: a branch of ONNX has no effect but its outputs, so computing one for nothing costs time alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from modelwright.core.onnx.facts import read_attribute
from modelwright.core.onnx.sparse import densify_graph
from modelwright.core.onnx.walk import own_names, rename_reads

from .graph import Graph


def take_known_branches(graph: Graph) -> bool:
    """Puts the branch that runs in the place of every If with a constant condition; says whether there was one."""
    known = [node for node in graph.nodes if node.op_type == "If" and node.input[0] in graph.constants]
    for node in known:
        taken = "then_branch" if bool(graph.constants[node.input[0]].all()) else "else_branch"
        nodes, values = _copy_branch(node, taken, graph)
        for value, output in zip(values, node.output, strict=True):
            nodes.append(onnx.helper.make_node("Identity", [value], [output], name=graph.new_name(f"{output}_taken")))
        _put_in_place(node, nodes, graph)
    return bool(known)


def compute_both_branches(graph: Graph) -> dict[str, list[tuple[str, str]]]:
    """Puts both branches and a choice in the place of every If.

    Returns:
        Name of a node that was there -> for each of its outputs what one and the other branch give.
    """
    found = {}
    for node in [node for node in graph.nodes if node.op_type == "If"]:
        then_nodes, then_values = _copy_branch(node, "then_branch", graph)
        else_nodes, else_values = _copy_branch(node, "else_branch", graph)
        pairs = list(zip(then_values, else_values, strict=True))
        choices = [
            onnx.helper.make_node("Where", [node.input[0], *pair], [output], name=graph.new_name(f"{output}_chosen"))
            for pair, output in zip(pairs, node.output, strict=True)
        ]
        _put_in_place(node, [*then_nodes, *else_nodes, *choices], graph)
        found[node.name or f"If_{node.output[0]}"] = pairs
    return found


def _copy_branch(node: onnx.NodeProto, which: str, graph: Graph) -> tuple[list[onnx.NodeProto], list[str]]:
    """Returns a branch's nodes under names that the graph does not use, and the names of its outputs."""
    branch = onnx.GraphProto()
    branch.CopyFrom(read_attribute(node, which, None))
    densify_graph(branch)
    ends = onnx.helper.make_node("Identity", [value.name for value in branch.output], [])
    for old in sorted(own_names(branch)):
        new = graph.new_name(f"{node.name or node.output[0]}_{old}")
        rename_reads([*branch.node, ends], old, new)
        for inner in branch.node:
            for position, name in enumerate(inner.output):
                if name == old:
                    inner.output[position] = new
        for tensor in branch.initializer:
            if tensor.name == old:
                graph.set_constant(new, onnx.numpy_helper.to_array(tensor))
    for inner in branch.node:
        inner.name = graph.new_name(inner.name) if inner.name else ""
    return list(branch.node), list(ends.input)


def _put_in_place(node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto], graph: Graph) -> None:
    position = next(index for index, other in enumerate(graph.nodes) if other is node)
    graph.nodes[position : position + 1] = nodes
