"""Keeps a residual sum and the normalization behind it apart, which ONNX Runtime would fuse into a slower operator.

Its `SkipLayerNormalization` takes four times as long on a CPU as the sum and the normalization one after the other
(onnxruntime 1.31, 32 x 384 values: 45 against 13 us); where it knows the shapes, it makes one of every pair. `Sum` of
two tensors computes what `Add` does, and is in none of its patterns.
"""

from __future__ import annotations

from typing import Any

from modelwright.core.onnx.facts import ONNX_DOMAINS
from modelwright.targets.graphs.index import GraphIndex, index_graph


def keep_residuals_apart(model: Any) -> list[str]:
    """Turns Adds of two activations that are normalized into Sums, in place.

    Args:
        model: A normalized float model.

    Returns:
        Names of the nodes.
    """
    index = index_graph(model)
    changed = []
    for node in model.graph.node:
        if node.op_type == "Add" and node.domain in ONNX_DOMAINS and _is_normalized_residual(node, index):
            node.op_type = "Sum"
            changed.append(str(node.name))
    return changed


def _is_normalized_residual(node: Any, index: GraphIndex) -> bool:
    if any(name in index.constants for name in node.input):
        return False
    readers = {reader.op_type for reader in index.consumers.get(node.output[0], [])}
    # A normalization of an opset before 17 is written out; ONNX Runtime puts it together before it fuses.
    return "LayerNormalization" in readers or {"ReduceMean", "Sub"} <= readers
