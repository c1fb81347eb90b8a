"""Makes float32 of float64, in which TFLite has no arithmetic."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from modelwright.core.onnx.walk import iterate_graphs, iterate_tensors

_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


def narrow_doubles(model: onnx.ModelProto) -> bool:
    """Lets a model compute in float32 where it computes in float64; says whether it did.

    Inputs and outputs too: who runs the file converts them.
    """
    changed = False
    for tensor in iterate_tensors(model):
        if tensor.data_type == TensorProto.DOUBLE:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(_narrow(numpy_helper.to_array(tensor)), name))
            changed = True
    for graph in iterate_graphs(model):
        values = (*getattr(graph, "value_info", ()), *graph.output, *graph.input)
        for value in values if isinstance(graph, onnx.GraphProto) else ():
            if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
                changed = True
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _TYPE_ATTRIBUTES and attribute.i == TensorProto.DOUBLE:
                    attribute.i = TensorProto.FLOAT
                    changed = True
    return changed


def _narrow(array: np.ndarray) -> np.ndarray:
    """Returns the nearest float32: what is beyond its range becomes its largest number, as -1e300 stands for a mask."""
    limit = np.finfo(np.float32).max
    finite = np.isfinite(array)
    return np.where(finite, np.clip(np.where(finite, array, 0), -limit, limit), array).astype(np.float32)
