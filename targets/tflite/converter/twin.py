"""Makes one TFLite file that can be resized out of two conversions at different fixed batch sizes.

Converting a graph with a symbolic batch leaves chains of shape arithmetic in the file. Converting it at batch 2 and at
batch 3 leaves none, and where the two files differ is exactly where the batch size went: tensor shapes (set to batch
1), targets of RESHAPE (set to -1). Anything else that differs means that this model's file cannot be resized.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from modelwright.core.onnx.facts import read_attribute

from .graph import Array, Graph

FIRST, SECOND = 2, 3
"""Neither is 1, for which converters drop transposes and the like that other sizes need."""

_BROADCASTING = {
    "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "Where", "And", "Or", "Xor", "Mod", "PRelu",
    "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
}  # fmt: skip


class BatchPinnedError(Exception):
    """The batch size is baked into something that cannot follow a resize; the text says into what."""


def align_constants(first: Graph, second: Graph) -> None:
    """Rewrites constants that were folded to one row a sample, in both graphs alike.

    Raises:
        BatchPinnedError: A reader of such a constant cannot take it with one row.
    """
    if [node.op_type for node in first.nodes] != [node.op_type for node in second.nodes]:
        raise BatchPinnedError("the graph itself depends on the batch size")
    grown = [
        name
        for name, array in first.constants.items()
        if name in second.constants and array.shape != second.constants[name].shape
    ]
    for name in grown:
        axis = _find_batch_axis(name, first.constants[name], second.constants[name])
        for graph in (first, second):
            _shrink_constant(graph, name, axis)
        for graph in (first, second):
            graph.drop_unused()


def _find_batch_axis(name: str, first: Array, second: Array) -> int:
    axes = [axis for axis, (a, b) in enumerate(zip(first.shape, second.shape, strict=False)) if a != b]
    same_rank = first.ndim == second.ndim and len(axes) == 1
    if same_rank and (first.shape[axes[0]], second.shape[axes[0]]) == (FIRST, SECOND):
        rows = second.take([0], axis=axes[0])
        if np.array_equal(np.broadcast_to(rows, second.shape), second, equal_nan=second.dtype.kind == "f"):
            return axes[0]
    raise BatchPinnedError(f"constant {name} differs from sample to sample of a batch")


def _shrink_constant(graph: Graph, name: str, axis: int) -> None:
    row = graph.constants[name].take([0], axis=axis)
    readers = graph.consumers().get(name, [])
    for reader in readers:
        if reader.op_type == "Concat":
            _concat_by_padding(graph, reader)
        elif reader.op_type not in _BROADCASTING:
            raise BatchPinnedError(f"{reader.op_type} {reader.name} reads a constant with one row a sample")
    if any(name in node.input for node in graph.nodes):
        graph.set_constant(name, row)


def _concat_by_padding(graph: Graph, node: onnx.NodeProto) -> None:
    """Writes `concat(constant, x)` as `pad(x) + constant`: the constant then broadcasts over the batch."""
    moving = [name for name in node.input if name not in graph.constants]
    shape = graph.shapes.get(node.output[0])
    if len(moving) != 1 or shape is None or graph.opset < 11 or graph.dtypes.get(moving[0]) != onnx.TensorProto.FLOAT:
        raise BatchPinnedError(f"Concat {node.name} joins rows of a constant to the samples")
    axis = read_attribute(node, "axis", 0) % len(shape)
    offset, before, added_shape = 0, 0, (1, *shape[1:])
    if axis == 0:
        raise BatchPinnedError(f"Concat {node.name} joins along the batch")
    added = np.zeros(added_shape, dtype=np.float32)
    for name in node.input:
        width = graph.shapes[name][axis]
        if name == moving[0]:
            before = offset
        else:
            where = [slice(None)] * len(shape)
            where[axis] = slice(offset, offset + width)
            added[tuple(where)] = graph.constants[name][:1]
        offset += width
    after = offset - before - graph.shapes[moving[0]][axis]
    rank = len(shape)
    pads = np.zeros(2 * rank, dtype=np.int64)
    pads[axis], pads[rank + axis] = before, after
    padded = graph.new_name(f"{node.name}_padded")
    pad_node = graph.make_node(
        "Pad", [moving[0], graph.add_constant(f"{node.name}_pads", pads)], padded, stem=f"{node.name}_pad", shape=shape
    )
    inputs = [padded, graph.add_constant(f"{node.name}_rows", added)]
    sum_node = graph.make_node("Add", inputs, node.output[0], stem=f"{node.name}_add", shape=shape)
    position = next(i for i, other in enumerate(graph.nodes) if other is node)
    graph.nodes[position : position + 1] = [pad_node, sum_node]


def merge_files(first: bytes, second: bytes) -> bytes:
    """Returns the file whose inputs can be resized to any batch, its shapes set to batch 1.

    Args:
        first: Converted at a batch of `FIRST`.
        second: The same model at `SECOND`.

    Raises:
        BatchPinnedError: The files differ in something other than sizes that scale with the batch.
    """
    return _merge(first, second, _merge_shape)


def merge_sizes(first: bytes, second: bytes) -> bytes:
    """Returns the file whose inputs can be resized in all that two files differ in, with the first one's shapes.

    Args:
        first: From `merge_files`.
        second: The same model with inputs of other sizes.

    Raises:
        BatchPinnedError: The files differ in more than the shapes of what they compute.
    """
    return _merge(first, second, _free_shape)


def require_same_constants(first: Graph, second: Graph) -> None:
    """Makes sure that nothing in a graph depends on the sizes of its inputs.

    Raises:
        BatchPinnedError: Something does.
    """
    if [node.op_type for node in first.nodes] != [node.op_type for node in second.nodes]:
        raise BatchPinnedError("the graph itself depends on the size")
    for name, array in first.constants.items():
        other = second.constants.get(name)
        if (
            other is None
            or array.shape != other.shape
            or not np.array_equal(array, other, equal_nan=array.dtype.kind == "f")
        ):
            raise BatchPinnedError(f"constant {name} depends on the size")


def _merge(first: bytes, second: bytes, merge_shape: Callable[..., None]) -> bytes:
    from ai_edge_litert.tools import flatbuffer_utils

    merged = flatbuffer_utils.read_model_from_bytearray(bytearray(first))
    other = flatbuffer_utils.read_model_from_bytearray(bytearray(second))
    if len(merged.subgraphs) != 1 or len(other.subgraphs) != 1:
        raise BatchPinnedError("the file has several subgraphs")
    graph, twin = merged.subgraphs[0], other.subgraphs[0]
    names = [flatbuffer_utils.opcode_to_name(merged, op.opcodeIndex) for op in graph.operators]
    if names != [flatbuffer_utils.opcode_to_name(other, op.opcodeIndex) for op in twin.operators] or any(
        list(a.inputs) != list(b.inputs) or list(a.outputs) != list(b.outputs)
        for a, b in zip(graph.operators, twin.operators, strict=True)
    ):
        raise BatchPinnedError("the operators depend on the batch size")
    shape_tensors = _merge_operators(graph, twin, names)
    for index, (tensor, pair) in enumerate(zip(graph.tensors, twin.tensors, strict=True)):
        data, pair_data = merged.buffers[tensor.buffer].data, other.buffers[pair.buffer].data
        if data is not None and not np.array_equal(data, pair_data):
            if index not in shape_tensors:
                raise BatchPinnedError(f"constant {_text(tensor.name)} depends on the batch size")
            merged.buffers[tensor.buffer].data = _merge_target(data, pair_data, _text(tensor.name))
        merge_shape(tensor, pair, constant=data is not None)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(merged))


def _merge_operators(graph: Any, twin: Any, names: list[str]) -> set[int]:
    """Merges the options of RESHAPE and returns the tensors that are targets of RESHAPE and of nothing else."""
    targets: set[int] = set()
    others: set[int] = set()
    for name, op, pair in zip(names, graph.operators, twin.operators, strict=True):
        is_reshape = name == "RESHAPE" and len(op.inputs) > 1
        targets.update(op.inputs[1:2] if is_reshape else [])
        others.update(op.inputs[:1] if is_reshape else op.inputs)
        options, pair_options = _as_dict(op.builtinOptions), _as_dict(pair.builtinOptions)
        if options == pair_options:
            continue
        if name != "RESHAPE":
            raise BatchPinnedError(f"an option of {name} depends on the batch size")
        target = np.asarray(op.builtinOptions.newShape, dtype=np.int32)
        pair_target = np.asarray(pair.builtinOptions.newShape, dtype=np.int32)
        op.builtinOptions.newShape = _merge_sizes(target, pair_target, "RESHAPE").tolist()
    return targets - others


def _as_dict(options: Any) -> dict[str, Any]:
    values = {} if options is None else vars(options)
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in values.items()}


def _merge_target(data: Any, pair_data: Any, name: str) -> Any:
    first = np.frombuffer(bytes(data), dtype=np.int32)
    second = np.frombuffer(bytes(pair_data), dtype=np.int32)
    return np.frombuffer(_merge_sizes(first, second, name).tobytes(), dtype=np.uint8)


def _merge_sizes(first: Array, second: Array, name: str) -> Array:
    """Returns a RESHAPE's target with -1 for the one size that depends on the batch."""
    if first.shape != second.shape:
        raise BatchPinnedError(f"the rank of {name} depends on the batch size")
    differing = np.flatnonzero(first != second)
    if len(differing) > 1 or (len(differing) and (first < 0).any()):
        raise BatchPinnedError(f"{name} has more than one size that depends on the batch")
    merged = first.copy()
    merged[differing] = -1
    return merged


def _merge_shape(tensor: Any, pair: Any, *, constant: bool) -> None:
    first = [] if tensor.shape is None else [int(d) for d in tensor.shape]
    second = [] if pair.shape is None else [int(d) for d in pair.shape]
    if first == second:
        return
    if constant or len(first) != len(second):
        raise BatchPinnedError(f"the size of {_text(tensor.name)} depends on the batch")
    single = [2 * a - b if a != b else a for a, b in zip(first, second, strict=True)]
    if any(
        a != b and (s < 1 or a != FIRST * s or b != SECOND * s) for a, b, s in zip(first, second, single, strict=True)
    ):
        raise BatchPinnedError(f"the shape of {_text(tensor.name)} does not scale with the batch")
    tensor.shape = single
    tensor.shapeSignature = [-1 if a != b else a for a, b in zip(first, second, strict=True)]


def _free_shape(tensor: Any, pair: Any, *, constant: bool) -> None:
    first = [] if tensor.shape is None else [int(d) for d in tensor.shape]
    second = [] if pair.shape is None else [int(d) for d in pair.shape]
    if first == second:
        return
    if constant or len(first) != len(second):
        raise BatchPinnedError(f"the size of {_text(tensor.name)} depends on the inputs'")
    known = first if tensor.shapeSignature is None else [int(d) for d in tensor.shapeSignature]
    tensor.shapeSignature = [-1 if a != b else k for a, b, k in zip(first, second, known, strict=True)]


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
