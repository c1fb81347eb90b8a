"""Writes Gelu as the one operator that it is: ONNX Runtime does not recognize every way of spelling it.

What torch.onnx exports since its dynamo form, x * (0.5 * (1 + erf(x / sqrt(2)))), stays five operators there, each of
which reads and writes the widest activation of a transformer: together they take twice as long as its Gelu.
"""

from __future__ import annotations

import math
from typing import Any

from modelwright.core.onnx.facts import ONNX_DOMAINS, find_opset
from modelwright.targets.graphs.index import GraphIndex, index_graph
from modelwright.targets.graphs.rewrite import MICROSOFT_DOMAIN, drop_unread, require_domain
from modelwright.targets.readiness import require_import

_GELU_OPSET = 20
"""The first with the operator; before it ONNX Runtime has its own of the same name."""
_TOLERANCE = 1e-4
"""Relative, of constants that are written with four digits."""


def fuse_gelus(model: Any) -> list[str]:
    """Replaces what spells Gelu by erf, in place.

    Args:
        model: A normalized float model.

    Returns:
        Names of the new nodes: each has the name of the last one that it replaces.
    """
    onnx = require_import("onnx", "onnx")
    index = index_graph(model)
    domain = "" if find_opset(model) >= _GELU_OPSET else MICROSOFT_DOMAIN
    found = {}
    for node in model.graph.node:
        if node.op_type == "Erf" and node.domain in ONNX_DOMAINS:
            spelled = _follow(node, index)
            if spelled is not None:
                source, last = spelled
                found[last.output[0]] = onnx.helper.make_node(
                    "Gelu", [source], [last.output[0]], last.name, domain=domain
                )
    if not found:
        return []
    nodes = [found.get(node.output[0], node) if node.output else node for node in model.graph.node]
    kept = drop_unread(nodes, [value.name for value in model.graph.output])
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    if domain:
        require_domain(model, domain, 1)
    return [str(node.name) for node in found.values()]


def _follow(erf: Any, index: GraphIndex) -> tuple[str, Any] | None:
    """Returns what an Erf makes Gelu of, and the last node of it; None where it is no part of one."""
    scaled = index.producers.get(erf.input[0])
    source = None if scaled is None else _take_constant(scaled, index, {"Div": math.sqrt(2), "Mul": math.sqrt(0.5)})
    shifted = index.sole_consumer(erf.output[0])
    if source is None or shifted is None or _take_constant(shifted, index, {"Add": 1.0}) != erf.output[0]:
        return None
    first = index.sole_consumer(shifted.output[0])
    if first is None or first.op_type != "Mul":
        return None
    if _take_constant(first, index, {"Mul": 0.5}) is not None:  # (0.5 * shifted) * source
        last = index.sole_consumer(first.output[0])
        return (source, last) if _multiplies(last, first.output[0], source) else None
    if _multiplies(first, shifted.output[0], source):  # (shifted * source) * 0.5
        last = index.sole_consumer(first.output[0])
        return (source, last) if last is not None and _take_constant(last, index, {"Mul": 0.5}) is not None else None
    halved = index.producers.get(next((name for name in first.input if name != shifted.output[0]), ""))
    if halved is not None and _take_constant(halved, index, {"Mul": 0.5}) == source:  # (source * 0.5) * shifted
        return source, first
    return None


def _take_constant(node: Any, index: GraphIndex, wanted: dict[str, float]) -> str | None:
    """Returns the other operand of a node that combines it with the constant that its type is to have."""
    if node.op_type not in wanted or node.domain not in ONNX_DOMAINS:
        return None
    for position in (1,) if node.op_type == "Div" else (0, 1):
        name = node.input[position]
        if index.is_float_constant(name) and index.array(name).size == 1:
            value = float(index.array(name).reshape(-1)[0])
            if math.isclose(value, wanted[node.op_type], rel_tol=_TOLERANCE):
                return str(node.input[1 - position])
    return None


def _multiplies(node: Any | None, one: str, other: str) -> bool:
    if node is None or node.op_type != "Mul" or node.domain not in ONNX_DOMAINS:
        return False
    return sorted(node.input) == sorted((one, other))
