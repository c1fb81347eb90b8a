"""Which layer of a model an operator of ONNX Runtime's profile computes, where it fused several to one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from modelwright.targets.graphs.index import index_graph
from modelwright.targets.profiling import TimedOperator

_FUSED = frozenset(
    {
        *("Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "HardSwish", "Elu", "Gelu"),
        *("QuantizeLinear", "DequantizeLinear"),
    }
)
"""What may have become one with the layer before it."""


def name_layers(operators: Sequence[TimedOperator], model: Any) -> list[TimedOperator]:
    """Returns operators with the layers that they compute in the place of the nodes that they are named after.

    Layouts of ONNX Runtime's own name a convolution by the tensor that leaves it, which is its activation's where that
    was fused: by it, or by the node that exporters name it after, the convolution is found.
    """
    index = index_graph(model)
    nodes = {str(node.name): node for node in model.graph.node if node.name}

    def find(name: str, operator: str) -> str:
        node = nodes.get(name) or index.producers.get(name)
        while node is not None and node.op_type in _FUSED and node.op_type != operator:
            maker = index.producers.get(node.input[0])
            if maker is None:
                break
            node = maker
        return name if node is None else str(node.name) or name

    return [
        dataclasses.replace(operator, nodes=tuple(find(name, operator.type) for name in operator.nodes))
        for operator in operators
    ]
