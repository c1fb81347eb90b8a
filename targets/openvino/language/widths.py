"""How many bits the matrices of a model really have, and what the user is told of those that have more than asked for.

Neither NNCF nor the plugin takes 4 bits in groups that do not fill a row: such a matrix keeps 8, without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.targets.language.portable import PortableModel

_MOST_STEPS = 8
"""From a product to the numbers of its matrix: conversions, a shape, a scale, a zero point."""
_NAMED = 3
"""Matrices that a note names; it counts the others."""


def read_widths(model: Any, portable: PortableModel) -> dict[str, int]:
    """Returns name of a linear layer -> bits of a number of its matrix, as the model holds it.

    Args:
        model: Of OpenVINO, in floats or compressed.
        portable: Whose layers they are; a layer whose product is not found is left out.
    """
    makers = {
        name: node
        for node in model.get_ordered_ops()
        if node.get_type_name() in ("MatMul", "VariadicSplit")
        for port in node.outputs()
        for name in port.get_names()
    }
    found = {}
    for name, layer in portable.linear_layers.items():
        node = makers.get(layer.gives)
        if node is not None and node.get_type_name() == "VariadicSplit":  # of several layers in one product
            node = node.input_value(0).get_node()
        width = None if node is None else _find_width(node.input_value(1).get_node())
        if width is not None:
            found[name] = width
    return found


def _find_width(node: Any) -> int | None:
    """Follows the numbers, not their scales, which are the second input of what they are multiplied by."""
    for _ in range(_MOST_STEPS):
        if node.get_type_name() == "Constant":
            return int(node.get_element_type().bitwidth)
        if not node.get_input_size():
            return None
        node = node.input_value(0).get_node()
    return None


def note_wider(widths: Mapping[str, int], portable: PortableModel, bits: int, group: int, vocabulary: int) -> list[str]:
    """Returns sentences about matrices that cannot have as few bits as the target's name says.

    Those of the head and the table are not among them: these targets give both 8 bits. Nor are those that got more for
    the sake of perplexity, which the recipe tells.

    Args:
        widths: Of `read_widths`.
        portable: Whose layers they are.
        bits: That were asked for.
        group: Columns that share a scale, at least: what rows must divide into.
        vocabulary: Columns of a head.
    """
    layers = portable.linear_layers
    odd: dict[int, list[str]] = {}
    for name, width in widths.items():
        layer = layers[name]
        if width > bits and layer.rows % group and layer.columns != vocabulary:
            odd.setdefault(width, []).append(f"{name} ({layer.rows})")
    inside = sum(layers[name].columns != vocabulary for name in widths)
    return [
        f"{len(names)} of {inside} matrices besides the head have {width} bits, not {bits}: what they sum up is no "
        f"multiple of {group} channels: {_list_first(names)}"
        for width, names in sorted(odd.items())
    ]


def _list_first(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
