"""Writes the `auto_pad` of a ConvTranspose as the numbers that it stands for: OpenVINO 2026.4 pads nothing there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelwright.core.onnx.facts import read_attribute
from modelwright.core.onnx.walk import iterate_graphs

_SAME = (b"SAME_UPPER", b"SAME_LOWER")


def has_open_pads(model: Any) -> bool:
    """Whether a ConvTranspose leaves its pads to the runtime."""
    return any(_find_open(graph) for graph in iterate_graphs(model))


def write_pads(model: Any) -> None:
    """Gives every such ConvTranspose its pads. They do not depend on the size of its input, which may be dynamic."""
    for graph in iterate_graphs(model):
        sizes = {tensor.name: list(tensor.dims)[2:] for tensor in graph.initializer}
        for node in _find_open(graph):
            kernel = read_attribute(node, "kernel_shape", None) or sizes.get(node.input[1])
            if kernel is not None:
                _set_pads(node, list(_find_totals(node, list(kernel))))


def _find_open(graph: Any) -> list[Any]:
    # With an output_shape the pads follow from that, which OpenVINO reckons as ONNX does.
    return [
        node
        for node in graph.node
        if node.op_type == "ConvTranspose"
        and read_attribute(node, "auto_pad", b"NOTSET") in _SAME
        and read_attribute(node, "output_shape", None) is None
    ]


def _find_totals(node: Any, kernel: list[int]) -> Iterator[int]:
    """Yields what is cut off along each axis so that the output is the input's size times the stride, as in ONNX."""
    ones, zeros = [1] * len(kernel), [0] * len(kernel)
    strides, dilations = (read_attribute(node, name, ones) for name in ("strides", "dilations"))
    extras = read_attribute(node, "output_padding", zeros)
    for size, stride, dilation, extra in zip(kernel, strides, dilations, extras, strict=True):
        yield max((size - 1) * dilation + 1 + extra - stride, 0)


def _set_pads(node: Any, totals: list[int]) -> None:
    from onnx import helper

    upper = read_attribute(node, "auto_pad", b"") == b"SAME_UPPER"
    # The odd one is cut off at the end for SAME_UPPER, at the beginning for SAME_LOWER.
    before = [total // 2 if upper else total - total // 2 for total in totals]
    after = [total - first for total, first in zip(totals, before, strict=True)]
    kept = [attribute for attribute in node.attribute if attribute.name not in ("auto_pad", "pads")]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("pads", [*before, *after])])
