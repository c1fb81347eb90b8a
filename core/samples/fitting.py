"""What makes an array fit a model's input: an expression of numpy to put into the script that saves the samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from modelwright.core.records.signature import TensorSpec

_BYTE_MAXIMUM = 255


def suggest_shape(spec: TensorSpec, shape: Sequence[int]) -> str | None:
    """Returns what to do about samples whose axes are not the input's; None where nothing is known.

    Args:
        spec: The input.
        shape: Of the array: samples first.
    """
    name, wanted = _name(spec), spec.shape or ()
    found = find_transpose(wanted, shape)
    if found is not None:
        place, axes = found
        return f"its channels come {place}: save {name}{_spell(axes)}"
    for axis, size in enumerate(wanted):
        if axis and size == 1 and fits(wanted, (*shape[:axis], 1, *shape[axis:])):
            return f"an axis of size 1 is missing: save {name}[{':, ' * axis}None]"
    return None


def suggest_type(spec: TensorSpec, shape: Sequence[int], dtype: npt.DTypeLike) -> str:
    """Returns what to do about samples of another type, and about their axes where those are wrong too."""
    name, found = _name(spec), np.dtype(dtype)
    turned = find_transpose(spec.shape or (), shape)
    converted = f"{name}{_spell(turned[1]) if turned else ''}.astype('{spec.dtype}')"
    if found == np.uint8 and np.dtype(spec.dtype).kind == "f":
        return (
            f"images are scaled to what the model was trained on: save {converted} / {_BYTE_MAXIMUM} for values from 0 "
            "to 1, less the mean and by the spread where training took those"
        )
    return f"convert it before saving: {converted}"


def find_transpose(wanted: Sequence[int | str], shape: Sequence[int]) -> tuple[str, tuple[int, ...]] | None:
    """Finds that an array has its channels elsewhere than an input.

    Args:
        wanted: The input's shape, its batch first.
        shape: Of the array, samples first; with one axis more, each sample is a whole input.

    Returns:
        Where they are, `last` or `first`, and the order of axes that fits; None where the array fits as it is, and
        where neither order does.
    """
    count = len(shape)
    first = 1 + count - len(wanted)  # where channels are when they come first
    if first not in (1, 2) or count - first < 2 or fits(wanted, shape):
        return None
    places = tuple(range(count))
    orders = {
        "last": (*places[:first], places[-1], *places[first:-1]),
        "first": (*places[:first], *places[first + 1 :], places[first]),
    }
    return next((found for found in orders.items() if fits(wanted, [shape[axis] for axis in found[1]])), None)


def fits(wanted: Sequence[int | str], shape: Sequence[int]) -> bool:
    """Whether an array of samples has an input's sizes wherever those are fixed, the batch aside."""
    if len(shape) == len(wanted) + 1:
        pairs = list(zip(wanted, shape[1:], strict=True))
    elif len(shape) == len(wanted):
        pairs = list(zip(wanted[1:], shape[1:], strict=True))
    else:
        return False
    return all(want == have for want, have in pairs if isinstance(want, int))


def _spell(axes: Sequence[int]) -> str:
    return f".transpose({', '.join(map(str, axes))})"


def _name(spec: TensorSpec) -> str:
    return spec.name if spec.name.isidentifier() else "array"
