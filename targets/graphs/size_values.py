"""Computes small tensors of integers and truth values in which some elements are sizes that only have a name."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.onnx.facts import read_attribute

Values = npt.NDArray[Any]
"""Of objects: integers, truth values, and names (`str`) of numbers that are not known but never negative."""
_BOOL, _INT32, _INT64 = 9, 6, 7
"""`onnx.TensorProto`."""
_LONGEST_RANGE = 4096


class _UnknownError(Exception):
    """An element depends on what is not known."""


def compute_value(
    node: Any, values: Sequence[Values | None], shapes: Sequence[tuple[int | str, ...] | None]
) -> Values | None:
    """Returns the elements of a node's output; None where one is not known, or the operator is none of those here.

    Args:
        node: Of ONNX's own operators.
        values: Of each input; None where they are not known.
        shapes: Of each input; None where the rank is not known.
    """
    if node.op_type == "Shape" and shapes and shapes[0] is not None:
        shape = shapes[0][read_attribute(node, "start", 0) : read_attribute(node, "end", None)]
        return _array(shape, (len(shape),))
    compute = _OPERATORS.get(node.op_type)
    if compute is None or any(value is None for value, name in zip(values, node.input, strict=True) if name):
        return None
    try:
        return compute(node, [value for value in values if value is not None])
    except (_UnknownError, IndexError, ValueError):  # numpy's, of operands that do not fit: the runtime says so better
        return None


def _array(elements: Sequence[Any], shape: tuple[int, ...]) -> Values:
    made = np.empty(len(elements), object)
    made[:] = elements
    return made.reshape(shape)


def _numbers(values: Values) -> list[int]:
    if any(isinstance(element, str) for element in values.flat):
        raise _UnknownError
    return [int(element) for element in values.flat]


def _each(compute: Callable[[Any, Any], Any]) -> Callable[[Any, list[Values]], Values]:
    """Returns an operator of two tensors, element by element."""

    def run(_: Any, values: list[Values]) -> Values:
        first, second = np.broadcast_arrays(*values)
        pairs = zip(first.flat, second.flat, strict=True)
        return _array([compute(a, b) for a, b in pairs], first.shape)

    return run


def _multiply(a: Any, b: Any) -> Any:
    if a == 1 or b == 1:
        return b if a == 1 else a
    return _arithmetic(operator.mul)(a, b)


def _arithmetic(compute: Callable[[int, int], int]) -> Callable[[Any, Any], Any]:
    def run(a: Any, b: Any) -> int:
        if isinstance(a, str) or isinstance(b, str):
            raise _UnknownError
        return compute(a, b)

    return run


def _divide(a: int, b: int) -> int:
    if a < 0 or b <= 0:
        raise _UnknownError  # ONNX rounds towards zero, Python down
    return a // b


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, str) == isinstance(b, str):
        if isinstance(a, str) and a != b:
            raise _UnknownError
        return bool(a == b)
    if (b if isinstance(a, str) else a) < 0:
        return False  # no size is
    raise _UnknownError


def _cast(node: Any, values: list[Values]) -> Values:
    wanted = read_attribute(node, "to", 0)
    if wanted in (_INT32, _INT64):
        return _array([int(v) if isinstance(v, bool) else v for v in values[0].flat], values[0].shape)
    if wanted == _BOOL:
        return _array([bool(number) for number in _numbers(values[0])], values[0].shape)
    raise _UnknownError


def _fill(node: Any, values: list[Values]) -> Values:
    from onnx import numpy_helper

    tensor = read_attribute(node, "value", None)
    filler = np.zeros(1, np.float32) if tensor is None else numpy_helper.to_array(tensor)
    if filler.dtype.kind not in "ib":
        raise _UnknownError
    shape = tuple(_numbers(values[0]))
    return _array([filler.reshape(-1)[0].item()] * int(np.prod(shape)), shape)


def _choose(_: Any, values: list[Values]) -> Values:
    condition, yes, no = np.broadcast_arrays(*values)
    _numbers(condition)
    picks = zip(condition.flat, yes.flat, no.flat, strict=True)
    return _array([a if chosen else b for chosen, a, b in picks], condition.shape)


def _range(_: Any, values: list[Values]) -> Values:
    start, stop, step = (_numbers(value)[0] for value in values)
    numbers = range(start, stop, step)
    if len(numbers) > _LONGEST_RANGE:
        raise _UnknownError
    return _array(list(numbers), (len(numbers),))


def _gather(node: Any, values: list[Values]) -> Values:
    taken = np.take(values[0], np.array(_numbers(values[1]), np.int64), axis=read_attribute(node, "axis", 0))
    axis = read_attribute(node, "axis", 0) % values[0].ndim
    shape = (*values[0].shape[:axis], *values[1].shape, *values[0].shape[axis + 1 :])
    return _array(list(taken.flat), shape)


def _slice(_: Any, values: list[Values]) -> Values:
    source, starts, ends, *rest = values
    axes = _numbers(rest[0]) if rest else list(range(starts.size))
    steps = _numbers(rest[1]) if len(rest) > 1 else [1] * starts.size
    if any(step <= 0 for step in steps):
        raise _UnknownError
    cut = [slice(None)] * source.ndim
    for axis, start, end, step in zip(axes, _numbers(starts), _numbers(ends), steps, strict=True):
        cut[axis] = slice(start, end, step)
    return source[tuple(cut)]


def _reshape(node: Any, values: list[Values]) -> Values:
    wanted = _numbers(values[1])
    if read_attribute(node, "allowzero", 0) and 0 in wanted:
        raise _UnknownError
    return values[0].reshape([values[0].shape[axis] if size == 0 else size for axis, size in enumerate(wanted)])


def _unsqueeze(node: Any, values: list[Values]) -> Values:
    return np.expand_dims(values[0], tuple(_axes(node, values) or ()))


def _squeeze(node: Any, values: list[Values]) -> Values:
    axes = _axes(node, values)
    return np.asarray(np.squeeze(values[0], None if axes is None else tuple(axes)), object)


def _axes(node: Any, values: list[Values]) -> list[int] | None:
    if len(values) > 1:
        return _numbers(values[1])
    axes = read_attribute(node, "axes", None)
    return None if axes is None else list(axes)


def _concat(node: Any, values: list[Values]) -> Values:
    return np.concatenate(values, axis=read_attribute(node, "axis", 0))


_OPERATORS: dict[str, Callable[[Any, list[Values]], Values]] = {
    "Add": _each(lambda a, b: b if a == 0 else a if b == 0 else _arithmetic(operator.add)(a, b)),
    "And": _each(_arithmetic(operator.and_)),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _fill,
    "Div": _each(lambda a, b: a if b == 1 else _arithmetic(_divide)(a, b)),
    "Equal": _each(_equal),
    "Gather": _gather,
    "Greater": _each(_arithmetic(operator.gt)),
    "GreaterOrEqual": _each(_arithmetic(operator.ge)),
    "Identity": lambda _, values: values[0],
    "Less": _each(_arithmetic(operator.lt)),
    "LessOrEqual": _each(_arithmetic(operator.le)),
    "Mul": _each(_multiply),
    "Not": lambda _, values: _array([not number for number in _numbers(values[0])], values[0].shape),
    "Or": _each(_arithmetic(operator.or_)),
    "Range": _range,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _each(lambda a, b: a if b == 0 else _arithmetic(operator.sub)(a, b)),
    "Unsqueeze": _unsqueeze,
    "Where": _choose,
}
