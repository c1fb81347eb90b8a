"""What a graph knows of the sizes of its own tensors: numbers, and names for those that only an inference shows.

onnx's shape inference finds the numbers. It forgets that two unknown sizes are one, which exported transformers hinge
on: they put their shapes together from the batch that they were given. Here such sizes keep their name through the
operators that pass them on, and small integer tensors are computed with names in the place of what is not known.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelwright.core.onnx.facts import ONNX_DOMAINS, read_attribute
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.graphs.size_values import Values, compute_value
from modelwright.targets.readiness import require_import

Size = int | str
"""A number, or the name of one that is not known. The same name is the same number; it is never negative."""
Shape = tuple[Size, ...]

MOST_VALUES = 4096
"""Elements of a tensor that is computed here: positions, not data."""
_MATRIX = 2
_AS_INPUT = frozenset(
    {"Cast", "Clip", "Erf", "Exp", "Gelu", "Identity", "LayerNormalization", "LeakyRelu", "Log", "Neg", "Not"}
    | {"RMSNormalization", "Reciprocal", "Relu", "Sigmoid", "Softmax", "Sqrt", "Tanh"}
)
_BROADCAST = frozenset(
    {"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mul", "Or", "Pow"}
    | {"Sub", "Sum", "Where"}
)
_INTEGERS = (6, 7, 9)
"""`onnx.TensorProto`: INT32, INT64 and BOOL."""


@dataclass
class Sizes:
    """What is known of the tensors of a model's main graph.

    Attributes:
        shapes: Tensor -> its sizes, where its rank is known.
        values: Tensor of integers or truth values -> its elements, where all of them are known or have a name.
        types: Tensor -> its type, `onnx.TensorProto`.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    values: dict[str, Values] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)


def find_sizes(model: Any) -> Sizes:
    """Follows sizes through a normalized model; what it does not understand has none."""
    index = index_graph(model)
    sizes = Sizes()
    _read_inferred(model, sizes)
    for name, tensor in index.constants.items():
        sizes.shapes[name], sizes.types[name] = tuple(tensor.dims), tensor.data_type
        if tensor.data_type in _INTEGERS and math.prod(tensor.dims) <= MOST_VALUES:
            sizes.values[name] = index.array(name).astype(object)
    for node in model.graph.node:
        if node.domain not in ONNX_DOMAINS or len(node.output) == 0:
            continue
        output = str(node.output[0])
        shapes = [sizes.shapes.get(name) for name in node.input]
        value = compute_value(node, [sizes.values.get(name) for name in node.input], shapes)
        if value is not None and value.size <= MOST_VALUES:
            sizes.values[output] = value
            sizes.shapes[output] = value.shape
            continue
        shape = _follow_shape(node, sizes)
        if shape is not None:
            sizes.shapes[output] = _merge(shape, sizes.shapes.get(output))
    return sizes


def _read_inferred(model: Any, sizes: Sizes) -> None:
    """Takes over what onnx infers, on a copy of the graph without its weights."""
    onnx = require_import("onnx", "onnx")
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    skeleton.graph.name = "sizes"
    skeleton.graph.node.extend(model.graph.node)
    for value in model.graph.output:  # what is said of their shape need not be true
        skeleton.graph.output.add(name=value.name).type.tensor_type.elem_type = value.type.tensor_type.elem_type
    for value in model.graph.input:
        copy = skeleton.graph.input.add()
        copy.CopyFrom(value)
        for axis, dim in enumerate(copy.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):  # nor need two sizes of one name be one: `?` is a name too
                dim.dim_param = f"{value.name}:{axis}"
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= MOST_VALUES:
            skeleton.graph.initializer.append(tensor)
        else:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            skeleton.graph.input.append(value)
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph
    except Exception:  # bare C++ exceptions; without it less is known
        inferred = skeleton.graph
    for value in (*inferred.input, *inferred.value_info):
        tensor = value.type.tensor_type
        sizes.types[value.name] = tensor.elem_type
        if tensor.HasField("shape"):
            sizes.shapes[value.name] = tuple(
                int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or f"{value.name}:{axis}"
                for axis, dim in enumerate(tensor.shape.dim)
            )


def _merge(found: Shape, inferred: Shape | None) -> Shape:
    """Prefers a number of either to a name."""
    if inferred is None or len(inferred) != len(found):
        return found
    return tuple(a if isinstance(a, int) or isinstance(b, str) else b for a, b in zip(found, inferred, strict=True))


def _follow_shape(node: Any, sizes: Sizes) -> Shape | None:
    """Returns the shape of a node's first output, by the operators that transformers put shapes together with."""
    shapes = [sizes.shapes.get(name) for name in node.input]
    values = [sizes.values.get(name) for name in node.input]
    known = [shape for shape in shapes if shape is not None]
    if node.op_type in _BROADCAST:
        return broadcast(known, str(node.output[0])) if len(known) == len(shapes) else None
    if node.op_type in _AS_INPUT:
        return shapes[0]
    follow = _SHAPES.get(node.op_type)
    return None if follow is None else follow(node, shapes, values)


def _follow_expand(node: Any, shapes: list[Shape | None], values: list[Values | None]) -> Shape | None:
    if shapes[0] is None or values[1] is None:
        return None
    return broadcast([shapes[0], tuple(values[1].tolist())], str(node.output[0]))


def _follow_constant(_: Any, __: list[Shape | None], values: list[Values | None]) -> Shape | None:
    return None if values[0] is None else tuple(values[0].tolist())


def _follow_range(_: Any, __: list[Shape | None], values: list[Values | None]) -> Shape | None:
    start, stop, step = (None if value is None else value.item() for value in values)
    return (stop,) if start == 0 and step == 1 and isinstance(stop, str) else None


def _follow_transpose(node: Any, shapes: list[Shape | None], _: list[Values | None]) -> Shape | None:
    first = shapes[0]
    return (
        None if first is None else tuple(first[axis] for axis in read_attribute(node, "perm", range(len(first))[::-1]))
    )


def _follow_matmul(node: Any, shapes: list[Shape | None], _: list[Values | None]) -> Shape | None:
    first, second = shapes
    if first is None or second is None or min(len(first), len(second)) < _MATRIX:
        return None
    return (*broadcast([first[:-2], second[:-2]], str(node.output[0])), first[-2], second[-1])


def _follow_gather(node: Any, shapes: list[Shape | None], _: list[Values | None]) -> Shape | None:
    first, indices = shapes
    if first is None or indices is None or not first:
        return None
    axis = read_attribute(node, "axis", 0) % len(first)
    return (*first[:axis], *indices, *first[axis + 1 :])


def _follow_reshape(node: Any, shapes: list[Shape | None], values: list[Values | None]) -> Shape | None:
    if shapes[0] is None or values[1] is None or read_attribute(node, "allowzero", 0):
        return None
    return _reshape(shapes[0], values[1].tolist(), str(node.output[0]))


def _follow_unsqueeze(_: Any, shapes: list[Shape | None], values: list[Values | None]) -> Shape | None:
    if shapes[0] is None or len(values) < 2 or values[1] is None:  # before opset 13 inference does it
        return None
    rank = len(shapes[0]) + values[1].size
    added = {axis % rank for axis in values[1].tolist()}
    rest = iter(shapes[0])
    return tuple(1 if axis in added else next(rest) for axis in range(rank))


_SHAPES: dict[str, Callable[[Any, list[Shape | None], list[Values | None]], Shape | None]] = {
    "ConstantOfShape": _follow_constant,
    "Expand": _follow_expand,
    "Gather": _follow_gather,
    "MatMul": _follow_matmul,
    "Range": _follow_range,
    "Reshape": _follow_reshape,
    "Transpose": _follow_transpose,
    "Unsqueeze": _follow_unsqueeze,
}


def broadcast(shapes: Sequence[Shape], output: str) -> Shape:
    """Returns the sizes of what tensors of these shapes give together; `output` names those that may be either."""
    found: list[Size] = []
    reversed_axes = itertools.zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1)
    for axis, candidates in enumerate(reversed_axes):
        larger = list(dict.fromkeys(size for size in candidates if size != 1))
        numbers = [size for size in larger if isinstance(size, int)]
        if numbers:
            found.append(numbers[0])
        elif len(larger) <= 1:
            found.append(larger[0] if larger else 1)
        else:
            found.append(f"{output}:-{axis + 1}")
    return tuple(found[::-1])


def _reshape(source: Shape, wanted: Sequence[Size], output: str) -> Shape | None:
    if any(size == 0 and axis >= len(source) for axis, size in enumerate(wanted)):
        return None
    shape = [source[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if -1 in shape:
        place = shape.index(-1)
        known = [size for axis, size in enumerate(shape) if axis != place]
        shape[place] = _divide(source, known) or f"{output}:{place}"
    return tuple(shape)


def _divide(sizes: Sequence[Size], others: Sequence[Size]) -> Size | None:
    """Returns the one size that makes both products equal, where it has a number or a name."""
    names, other_names = (Counter(size for size in part if isinstance(size, str)) for part in (sizes, others))
    number, other = (math.prod(size for size in part if isinstance(size, int)) for part in (sizes, others))
    if other_names - names or other == 0 or number % other:
        return None
    left = list((names - other_names).elements())
    if not left:
        return number // other
    return left[0] if len(left) == 1 and number == other else None
