"""Input channels in fours: ONNX Runtime's fastest integer convolution on x86 takes no other number of them.

Images have 3, and the first layer would gather its patches one after the other instead: in a small CNN that costs as
much as its two largest layers. One more channel of zeros costs next to nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from modelwright.core.onnx.facts import ONNX_DOMAINS, find_opset, read_attribute
from modelwright.targets.graphs.index import GraphIndex, index_graph
from modelwright.targets.graphs.rewrite import PER_AXIS_OPSET, prune_graph
from modelwright.targets.readiness import require_import

CHANNELS = 4
"""`KernelInputChannelAlignment` in ONNX Runtime's `mlas/lib/convsym.cpp`, for AVX2 and all after it."""
_LEAST_OUTPUTS = 16
"""`FilterOutputChannelPackCount` there: with fewer output channels that kernel is not taken anyway."""


def align_input_channels(model: Any) -> list[str]:
    """Pads what comes from the graph's inputs with channels of zeros, and the filters that read it likewise, in place.

    The numbers stay the same to the last bit but for the order of sums. Below opset 13 nothing is done.

    Args:
        model: A normalized float model.

    Returns:
        Names of the convolutions.
    """
    onnx = require_import("onnx", "onnx")
    if find_opset(model) < PER_AXIS_OPSET:
        return []
    index = index_graph(model)
    fed = {value.name for value in model.graph.input}
    padded: dict[str, str] = {}
    aligned: list[str] = []
    nodes: list[Any] = []
    for node in model.graph.node:
        if _gains(node, index) and _find_origin(node.input[0], index) in fed:
            source, weight = node.input[0], index.array(node.input[1])
            missing = -weight.shape[1] % CHANNELS
            if source not in padded:
                padded[source] = f"{source}_channels"
                ends = np.zeros(2 * weight.ndim, np.int64)
                ends[weight.ndim + 1] = missing
                model.graph.initializer.append(onnx.numpy_helper.from_array(ends, f"{source}_channels_pads"))
                made = [source, f"{source}_channels_pads"]
                nodes.append(onnx.helper.make_node("Pad", made, [padded[source]], f"{source}_channels_pad"))
            widths = [(0, missing if axis == 1 else 0) for axis in range(weight.ndim)]
            name = f"{node.input[1]}_{node.name}_channels"
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.pad(weight, widths), name))
            node.input[0], node.input[1] = padded[source], name
            aligned.append(node.name)
        nodes.append(node)
    if aligned:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)
        prune_graph(model)
    return aligned


def _gains(node: Any, index: GraphIndex) -> bool:
    if node.op_type != "Conv" or node.domain not in ONNX_DOMAINS or not index.is_float_constant(node.input[1]):
        return False
    outputs, inputs, *_ = index.constants[node.input[1]].dims
    fits = outputs >= _LEAST_OUTPUTS and outputs % CHANNELS == 0 and math.prod(index.constants[node.input[1]].dims) > 0
    return bool(fits and inputs % CHANNELS != 0 and read_attribute(node, "group", 1) == 1)


def _find_origin(name: str, index: GraphIndex) -> str:
    """Returns the tensor that a convolution's input is, or is the transpose of: as images with channels last are."""
    maker = index.producers.get(name)
    return str(maker.input[0]) if maker is not None and maker.op_type == "Transpose" else name
