"""The constants of a language model in OpenVINO, under the names of the layers that read them.

Conversion and compression give constants names of their own; the operators keep those of the source.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from modelwright.targets.language.contract import StoredTensor

_UNNAMED = re.compile(r"^[A-Z]\w*_\d+(/|$)")
"""What OpenVINO calls an operator that the source does not name; NNCF adds to it what it puts in its place."""
_MOST_STEPS = 8
"""From the integers of a weight to its product: a conversion, a zero point, a scale, a shape, another conversion."""
_COUNTS = frozenset({"i32", "i64", "boolean"})
"""Of shapes and axes; weights have none of these types."""


def list_constants(model: Any) -> Iterator[StoredTensor]:
    """Yields the constants of a model that was read, but for single numbers, shapes and axes."""
    for node in model.get_ops():
        if node.get_type_name() != "Constant" or node.get_element_type().get_type_name() in _COUNTS:
            continue
        if math.prod(node.get_output_shape(0)) > 1:
            yield StoredTensor(name=_find_name(node), size_bytes=node.get_byte_size())


def _find_name(node: Any) -> str:
    """Returns the name of a constant, or of the first operator with one that its values go to."""
    for _ in range(_MOST_STEPS):
        name = str(node.get_friendly_name())
        if not _UNNAMED.match(name):
            return name
        readers = list(node.output(0).get_target_inputs())
        if not readers:
            return name
        node = readers[0].get_node()
    return str(node.get_friendly_name())
