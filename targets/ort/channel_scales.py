"""Activations with a scale a channel, as NNCF gives them to depthwise convolutions: kept out of integer kernels."""

from __future__ import annotations

import math
from typing import Any

from modelwright.core.onnx.quantized import find_constants
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.readiness import require_import


def keep_channel_scales_apart(model: Any) -> int:
    """Parts such pairs of Q/DQ from the layers that read them, which changes no number.

    ONNX Runtime (1.31) fuses them with a convolution to a QLinearConv, which fails on its first inference: it takes one
    scale for all of an activation.

    Args:
        model: Changed in place.

    Returns:
        The number of activations.
    """
    onnx = require_import("onnx", "onnx")
    index, constants = index_graph(model), set(find_constants(model.graph))
    nodes: list[Any] = []
    apart = 0
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type != "DequantizeLinear" or node.input[0] in constants:
            continue
        scale = index.constants.get(node.input[1])
        if scale is None or math.prod(scale.dims) == 1:
            continue
        output = node.output[0]
        node.output[0] = f"{output}_of_channels"
        # The maximum of one value is that value; what is plainly of no effect is optimized away.
        nodes.append(onnx.helper.make_node("Max", [node.output[0]], [output], f"{output}_apart"))
        apart += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return apart
