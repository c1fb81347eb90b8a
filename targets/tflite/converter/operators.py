"""What TFLite cannot express, by the operator and the node of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import onnx

_NAMED = re.compile(r"\b(?:op|node|op_name|node_name|op_type)=([^\s,;()]+)")


class UnsupportedOperatorError(Exception):
    """The model has an operator that TFLite cannot express.

    Args:
        operator: Its name.
        node: The node's.
        reason: In the words of whoever refuses it.
        ours: Whether those are our own words, for the user to read first.
    """

    def __init__(self, operator: str, node: str, reason: str, *, ours: bool = False) -> None:
        super().__init__(f"operator {operator} of node {node}: {reason}")
        self.operator = operator
        self.node = node
        self.why = reason if ours else None


def name_operator(error: Exception, model: onnx.ModelProto) -> Exception:
    """Returns an error that names the operator and the node that a converter failed at; the error itself if none.

    Vendors call nodes operators and the other way round, so that what they name is looked up in the model.
    """
    by_name = {node.name: node for node in model.graph.node if node.name}
    by_operator = {node.op_type: node for node in reversed(model.graph.node)}
    for name in _find_names(error):
        node = by_name.get(name) or by_operator.get(name)
        if node is not None:
            return UnsupportedOperatorError(node.op_type, node.name, str(error.__cause__ or error))
    return error


def _find_names(error: Exception) -> Iterator[str]:
    """Yields what an error names: the node before the operator, its text before what the vendor's code was at."""
    cause = error.__cause__
    for attribute in ("node_name", "node_op"):
        value = getattr(cause, attribute, None)
        if value:
            yield str(value)
    for text in (str(error), str(cause or "")):
        yield from reversed(_NAMED.findall(text))
    yield from _find_nodes_at_work(error)


def _find_nodes_at_work(error: Exception) -> Iterator[str]:
    """Yields the names of the nodes that the calls which failed were about, the innermost first."""
    frames: list[Any] = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        name = getattr(frame.f_locals.get("node"), "name", None)
        if isinstance(name, str) and name:
            yield name
