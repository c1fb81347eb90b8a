"""Writes `auto_pad` as the numbers that it stands for, where onnx2tf does not take it."""

from __future__ import annotations

import onnx

from modelwright.core.onnx.facts import read_attribute

from .graph import Graph

_SPATIAL_FROM = 2
_WINDOWED = ("Conv", "MaxPool", "AveragePool", "LpPool")


def write_pads(graph: Graph) -> None:
    """Gives every SAME_LOWER its pads, and names them; SAME_UPPER is what TFLite calls SAME."""
    for node in graph.nodes:
        if read_attribute(node, "auto_pad", b"NOTSET") != b"SAME_LOWER":
            continue
        totals = _find_totals(node, graph)
        if totals is not None:
            # Half of it, rounded up, goes before.
            before = [total - total // 2 for total in totals]
            _set_pads(node, [*before, *(total // 2 for total in totals)])


def _find_totals(node: onnx.NodeProto, graph: Graph) -> list[int] | None:
    """Returns how much is added along each spatial axis; None where a size is not known.

    After ONNX's operators: a window ends where the input does, so that ceil(size / stride) of them fit; ConvTranspose
    takes as much from its output as makes it size * stride.
    """
    source = graph.shapes.get(node.input[0])
    kernel = read_attribute(node, "kernel_shape", None)
    if kernel is None and node.op_type in ("Conv", "ConvTranspose") and node.input[1] in graph.shapes:
        kernel = graph.shapes[node.input[1]][_SPATIAL_FROM:]
    if source is None or kernel is None or node.op_type not in (*_WINDOWED, "ConvTranspose"):
        return None
    rank = len(kernel)
    strides, dilations = (list(read_attribute(node, name, [1] * rank)) for name in ("strides", "dilations"))
    reaches = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    totals = []
    for axis, (size, stride, reach) in enumerate(zip(source[_SPATIAL_FROM:], strides, reaches, strict=True)):
        if node.op_type == "ConvTranspose":
            extra = list(read_attribute(node, "output_padding", [0] * rank))[axis]
            totals.append(max(stride * (size - 1) + extra + reach - size * stride, 0))
        else:
            totals.append(max((-(-size // stride) - 1) * stride + reach - size, 0))
    return totals


def _set_pads(node: onnx.NodeProto, pads: list[int]) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in ("auto_pad", "pads")]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("pads", pads)])
