"""What kind of network a graph is."""

from __future__ import annotations

from typing import Any, Literal

from modelwright.targets.graphs.index import find_weight_matmuls, index_graph

GraphKind = Literal["cnn", "transformer", "rnn", "dense", "other"]


def classify_graph(model: Any) -> GraphKind:
    """Says what a network is, by what most of its weights' work is done in."""
    counts: dict[str, int] = {}
    for node in model.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    index = index_graph(model)
    dense = sum(1 for _ in find_weight_matmuls(model, index))
    if any(counts.get(name) for name in ("LSTM", "GRU", "RNN")):
        return "rnn"
    attends = counts.get("Softmax", 0) or counts.get("Attention", 0)
    normalizes = any(counts.get(name, 0) for name in ("LayerNormalization", "RMSNormalization", "ReduceMean", "Pow"))
    if dense > counts.get("Conv", 0) and attends and normalizes:
        return "transformer"
    if counts.get("Conv", 0):
        return "cnn"
    return "dense" if dense else "other"
