"""A float64 model as one that computes in float32: runtimes and quantizers know no float64 layers.

The TFLite converter may load this in an environment of its own: it needs numpy, onnx and nothing else of the project.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from modelwright.core.onnx.facts import ONNX_DOMAINS, list_initializers
from modelwright.core.onnx.walk import iterate_graphs, iterate_tensors, rename_reads

_FLOAT, _DOUBLE = 1, 11
"""`onnx.TensorProto`."""
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_datatype", "stash_type"})
"""Attributes of standard operators that name the type of what they make."""
_SUFFIX = "_float32"


def has_double_weights(model: Any) -> bool:
    """Whether layers of a model compute in float64: some of its weights are, beyond single numbers and vectors."""
    return any(tensor.data_type == _DOUBLE and len(tensor.dims) > 1 for tensor in iterate_tensors(model))


def narrow_doubles(model: Any) -> None:
    """Turns all float64 of a model into float32, in place, its inputs and outputs too.

    Finite weights beyond float32's range, as masks have, become its largest numbers.

    Args:
        model: With its weights loaded.
    """
    for tensor in iterate_tensors(model):
        _narrow_tensor(tensor)
    for graph in iterate_graphs(model):
        for node in graph.node:
            _narrow_attributes(node)
        for value in _typed_values(graph):
            if value.type.tensor_type.elem_type == _DOUBLE:
                value.type.tensor_type.elem_type = _FLOAT


def narrow_inside(model: Any, wide_outputs: Collection[str]) -> None:
    """Turns all float64 inside a model into float32, in place; inputs and outputs of that type stay, behind a Cast.

    Args:
        model: With its weights loaded.
        wide_outputs: Which of its outputs are float64, as some models do not say.
    """
    constants = set(list_initializers(model.graph))
    wide_inputs = [
        value
        for value in model.graph.input
        if value.type.tensor_type.elem_type == _DOUBLE and value.name not in constants
    ]
    narrow_doubles(model)
    _cast_border(model.graph, wide_inputs, [value for value in model.graph.output if value.name in wide_outputs])


def _typed_values(graph: Any) -> list[Any]:
    own = list(getattr(graph, "value_info", ()))
    # A function's inputs and outputs have names only.
    return [*own, *graph.input, *graph.output] if hasattr(graph, "initializer") else own


def _narrow_tensor(tensor: Any) -> None:
    from onnx import numpy_helper

    if tensor.data_type != _DOUBLE:
        return
    values, largest = numpy_helper.to_array(tensor), np.finfo(np.float32).max
    kept = np.where(np.isfinite(values), np.clip(values, -largest, largest), values)
    tensor.CopyFrom(numpy_helper.from_array(kept.astype(np.float32), tensor.name))


def _narrow_attributes(node: Any) -> None:
    if node.domain in ONNX_DOMAINS:
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i == _DOUBLE:
                attribute.i = _FLOAT


def _cast_border(graph: Any, wide_inputs: Sequence[Any], wide_outputs: Sequence[Any]) -> None:
    """Puts a Cast behind each float64 input and before each float64 output, which keep their names and types."""
    from onnx import helper

    first, last = [], []
    for value in wide_inputs:
        name = value.name
        rename_reads(graph.node, name, name + _SUFFIX)
        first.append(helper.make_node("Cast", [name], [name + _SUFFIX], f"{name}_to_float32", to=_FLOAT))
    given = {value.name for value in wide_inputs}
    for value in wide_outputs:
        name = value.name
        if name not in given:
            _rename_maker(graph, name, name + _SUFFIX)
            rename_reads(graph.node, name, name + _SUFFIX)
            last.append(helper.make_node("Cast", [name + _SUFFIX], [name], f"{name}_to_float64", to=_DOUBLE))
    for value in (*wide_inputs, *wide_outputs):
        value.type.tensor_type.elem_type = _DOUBLE
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)


def _rename_maker(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for position, name in enumerate(node.output):
            if name == old:
                node.output[position] = new
    for tensor in graph.initializer:
        if tensor.name == old:
            tensor.name = new
