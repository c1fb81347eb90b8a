"""What an ONNX model and its nodes say of themselves, for onnx's protobuf messages, which are typed `Any`.

The TFLite converter loads this in an environment of its own: it needs onnx and nothing else of the project.
"""

from __future__ import annotations

import re
from typing import Any

ONNX_DOMAINS = ("", "ai.onnx")
"""The two names of ONNX's own operators."""
INITIALIZERS_APART_IR = 4
"""Before this IR version every initializer is also listed as an input; from it on, one that is may be overridden."""

_QUANTIZED = re.compile(r"[qQ]uantize|Integer|^Q[A-Z]|NBits|Bnb4|FpQ4")


def is_quantized_operator(name: str) -> bool:
    """Whether an operator computes with integers, or with weights stored as such: ONNX's, or ONNX Runtime's own."""
    return _QUANTIZED.search(name) is not None


def find_opset(model: Any) -> int:
    """Returns the version of the standard operator set; files from before opsets have 1."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in ONNX_DOMAINS), default=1)


def list_initializers(graph: Any) -> list[str]:
    """Returns the names of a graph's initializers, dense and sparse; a function has none."""
    sparse = [tensor.values.name for tensor in getattr(graph, "sparse_initializer", ())]
    return [*(tensor.name for tensor in getattr(graph, "initializer", ())), *sparse]


def find_inputs(graph: Any) -> list[Any]:
    """Returns the inputs that a caller must feed: those without an initializer."""
    constants = set(list_initializers(graph))
    return [value for value in graph.input if value.name not in constants]


def read_attribute(node: Any, name: str, default: Any) -> Any:
    """Returns a node's attribute as a Python value."""
    from onnx import helper

    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
