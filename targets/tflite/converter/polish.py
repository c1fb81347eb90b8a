"""Repairs of the file that onnx2tf writes: equal slices become one SPLIT, equal weights are stored once.

onnx2tf writes every Split as one SLICE a part, with -1 for the sizes that it leaves alone; the XNNPACK delegate
does not take those, so each of them would cut the graph in two. It takes SPLIT into up to four parts. And
a weight that several operators read (every step of a recurrent layer) gets a copy for each of them.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

Sizes = npt.NDArray[np.int32]
_LAST_OLD_CODE = 127
"""Operators beyond it do not fit into the field that old files have."""


def polish_file(data: bytes) -> bytes:
    """Returns the repaired file; the same bytes when there is nothing to repair."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    changed = False
    for graph in model.subgraphs:
        changed |= _share_weights(model, graph)
        changed |= _fuse_splits(model, graph)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)) if changed else data


def _share_weights(model: Any, graph: Any) -> bool:
    """Lets operators share equal matrices. Vectors stay: a bias is quantized with its reader's input."""
    first: dict[tuple[object, ...], int] = {}
    replaced: dict[int, int] = {}
    for index, tensor in enumerate(graph.tensors):
        data = model.buffers[tensor.buffer].data
        if data is None or len(data) == 0 or tensor.shape is None or len(tensor.shape) < 2 or tensor.isVariable:
            continue
        key = (tensor.type, tuple(tensor.shape), len(data), hashlib.sha256(bytes(data)).digest())
        kept = first.setdefault(key, index)
        if kept != index:
            replaced[index] = kept
    if replaced:
        drop_tensors(model, graph, replaced)
    return bool(replaced)


def drop_tensors(model: Any, graph: Any, replaced: dict[int, int]) -> None:
    """Removes tensors; everything that named one by its number names its replacement by the new number."""
    kept = [index for index in range(len(graph.tensors)) if index not in replaced]
    numbers = {index: number for number, index in enumerate(kept)}
    numbers.update({index: numbers[replacement] for index, replacement in replaced.items()})
    numbers[-1] = -1  # an optional input that is absent
    graph.tensors = [graph.tensors[index] for index in kept]
    graph.inputs = [numbers[index] for index in graph.inputs]
    graph.outputs = [numbers[index] for index in graph.outputs]
    for op in graph.operators:
        op.inputs = [numbers[index] for index in op.inputs]
        op.outputs = [numbers[index] for index in op.outputs]
        if op.intermediates is not None:
            op.intermediates = [numbers[index] for index in op.intermediates]
    position = next(i for i, other in enumerate(model.subgraphs) if other is graph)
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == position:
            for entry in (*(signature.inputs or []), *(signature.outputs or [])):
                entry.tensorIndex = numbers[entry.tensorIndex]
    used = {tensor.buffer for other in model.subgraphs for tensor in other.tensors}
    used.update(entry.buffer for entry in model.metadata or [])
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None


def _fuse_splits(model: Any, graph: Any) -> bool:
    from ai_edge_litert.tools import flatbuffer_utils

    changed = False
    groups: dict[int, list[Any]] = {}
    for op in graph.operators:
        if flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) == "SLICE":
            groups.setdefault(op.inputs[0], []).append(op)
    for source, slices in groups.items():
        ordered, axis = _find_even_cut(model, graph, source, slices)
        if ordered:
            _replace(model, graph, source, ordered, axis)
            changed = True
    return changed


def _find_even_cut(model: Any, graph: Any, source: int, slices: list[Any]) -> tuple[list[Any], int]:
    """Returns the slices in order and their axis, if they are equal, leave no gap and cover the tensor."""
    shape = [int(d) for d in graph.tensors[source].shape]
    ends = [(_read_constant(model, graph, op.inputs[1]), _read_constant(model, graph, op.inputs[2])) for op in slices]
    if len(slices) < 2 or any(begin is None or size is None for begin, size in ends):
        return [], 0
    begins, sizes = (np.stack([pair[part] for pair in ends]) for part in (0, 1))  # type: ignore[misc]
    axes = np.flatnonzero(begins.any(axis=0))
    if len(axes) != 1 or (sizes != sizes[0]).any():
        return [], 0
    axis = int(axes[0])
    whole = [i for i in range(len(shape)) if i != axis and sizes[0][i] not in (-1, shape[i])]
    step = shape[axis] // len(slices)
    order = np.argsort(begins[:, axis])
    is_even = step * len(slices) == shape[axis] and int(sizes[0][axis]) == step
    if whole or not is_even or (begins[order, axis] != np.arange(len(slices)) * step).any():
        return [], 0
    return [slices[i] for i in order], axis


def _read_constant(model: Any, graph: Any, tensor: int) -> Sizes | None:
    data = model.buffers[graph.tensors[tensor].buffer].data
    return None if data is None or len(data) == 0 else np.frombuffer(bytes(data), dtype=np.int32)


def _replace(model: Any, graph: Any, source: int, slices: list[Any], axis: int) -> None:
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.array([axis], dtype=np.int32).tobytes(), dtype=np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = f"split_axis_{len(graph.tensors)}".encode(), [], schema.TensorType.INT32
    tensor.buffer = len(model.buffers) - 1
    graph.tensors.append(tensor)
    split = schema.OperatorT()
    # The first version that takes int8, which a later quantization may make of it.
    split.opcodeIndex = find_opcode(model, schema.BuiltinOperator.SPLIT, 2)
    split.inputs = [len(graph.tensors) - 1, source]
    split.outputs = [op.outputs[0] for op in slices]
    split.builtinOptionsType = schema.BuiltinOptions.SplitOptions
    split.builtinOptions = schema.SplitOptionsT()
    split.builtinOptions.numSplits = len(slices)
    replaced = {id(op) for op in slices}
    first = next(i for i, op in enumerate(graph.operators) if id(op) in replaced)
    before = graph.operators[:first]
    after = [op for op in graph.operators[first:] if id(op) not in replaced]
    graph.operators = [*before, split, *after]


def find_opcode(model: Any, builtin: int, version: int) -> int:
    """Returns the number of an operator's kind in a file, after adding the kind where there is none."""
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin and code.version >= version:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = builtin
    code.deprecatedBuiltinCode = min(builtin, _LAST_OLD_CODE)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def new_tensor(graph: Any, like: Any, what: str, kind: int) -> int:
    """Adds a tensor that no buffer belongs to, of another one's shape, and returns its number."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name = f"{like.name.decode()}_{what}_{len(graph.tensors)}".encode()
    tensor.shape, tensor.shapeSignature = like.shape, like.shapeSignature
    tensor.type, tensor.buffer = kind, 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
