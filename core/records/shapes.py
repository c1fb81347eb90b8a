"""Ranges of input shapes: what an engine with dynamic dimensions is built for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from modelwright.core.errors import UsageError
from modelwright.core.records.codec import Count, Record
from modelwright.core.records.signature import Signature, TensorSpec

DEFAULT_LARGEST_BATCH = 32
LARGEST_SIZE = 2**31 - 1
"""Of one dimension; runtimes count in 32 bits."""
_SHAPE = re.compile(r"\d+(x\d+)*")


class ShapeRange(Record):
    """The shapes that one input may have, batch dimension included; equal where a dimension is fixed.

    Attributes:
        minimum: The smallest.
        optimum: The one that an engine is tuned for.
        maximum: The largest; memory is reserved for it.
    """

    minimum: tuple[Count, ...]
    optimum: tuple[Count, ...]
    maximum: tuple[Count, ...]

    def admits(self, shape: Sequence[int]) -> bool:
        """Whether a shape lies in the range."""
        return len(shape) == len(self.minimum) and all(
            low <= size <= high for low, size, high in zip(self.minimum, shape, self.maximum, strict=True)
        )

    def describe(self) -> str:
        """Returns for instance `1x3x224x224:8x3x224x224:32x3x224x224`."""
        return ":".join("x".join(map(str, shape)) for shape in (self.minimum, self.optimum, self.maximum))


def parse_shapes(texts: Sequence[str]) -> dict[str, ShapeRange]:
    """Reads `x=1x3x224x224:8x3x224x224:32x3x224x224` (min, opt, max) or `x=8x3x224x224` (all three); commas separate.

    Raises:
        UsageError: Not of that form, or not in ascending order.
    """
    ranges: dict[str, ShapeRange] = {}
    for text in (part.strip() for given in texts for part in given.split(",")):
        name, separator, value = text.rpartition("=")
        shapes = value.split(":")
        if not separator or not name or len(shapes) not in (1, 3) or not all(map(_SHAPE.fullmatch, shapes)):
            raise UsageError(
                f"{text!r} is no range of shapes",
                hint="write INPUT=MIN:OPT:MAX, such as --shapes 'x=1x3x224x224:8x3x224x224:32x3x224x224'",
            )
        sizes = [tuple(map(int, shape.split("x"))) for shape in shapes] * (3 if len(shapes) == 1 else 1)
        ordered = len({len(shape) for shape in sizes}) == 1 and all(
            0 < low <= middle <= high for low, middle, high in zip(*sizes, strict=True)
        )
        if not ordered:
            raise UsageError(f"{text!r}: every dimension must be positive and ascend from min over opt to max")
        if max(sizes[2]) > LARGEST_SIZE:
            raise UsageError(f"{text!r}: a dimension can be {LARGEST_SIZE:,} at most")
        if name in ranges:
            raise UsageError(f"--shapes names the input {name} twice")
        ranges[name] = ShapeRange(minimum=sizes[0], optimum=sizes[1], maximum=sizes[2])
    return ranges


def require_shapes_fit(given: Mapping[str, ShapeRange], signature: Signature) -> None:
    """Checks ranges that the user gave against a model's inputs.

    Raises:
        UsageError: An input that the model does not have, another rank, another size of a fixed dimension, or two
            ranges for dimensions of one name.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    for name, shapes in given.items():
        if name not in specs:
            raise UsageError(
                f"--shapes: the model has no input {name!r}", hint=f"its inputs: {', '.join(specs) or 'none'}"
            )
        spec = specs[name]
        if len(spec.shape or ()) != len(shapes.minimum):
            raise UsageError(f"--shapes: {name} has {len(shapes.minimum)} dimensions; the model: {spec.describe()}")
        for position, size in enumerate(spec.shape or ()):
            if isinstance(size, int) and {shapes.minimum[position], shapes.maximum[position]} != {size}:
                raise UsageError(f"--shapes: dimension {position} of {name} is fixed at {size}: {spec.describe()}")
    _collect_given(given, signature)


def require_shapes_admit(
    shapes: Mapping[str, ShapeRange], signature: Signature, sampled: Mapping[str, Sequence[Sequence[int]]], batch: int
) -> None:
    """Checks that ranges hold what artifacts are proved and measured on.

    Args:
        shapes: As `resolve_shapes` returns them.
        signature: Of the model.
        sampled: Input name -> shapes of single samples, batch dimension included.
        batch: Samples an inference that is measured.

    Raises:
        UsageError: A sample, or a batch of them, lies outside.
    """
    for name, seen in sampled.items():
        for shape in seen:
            batched = (batch * shape[0], *shape[1:]) if signature.batch_is_dynamic else tuple(shape)
            for size, what in ((tuple(shape), "a sample of"), (batched, f"a batch of {batch} of")):
                if not shapes[name].admits(size):
                    raise UsageError(
                        f"--shapes: {what} {name} has the shape {'x'.join(map(str, size))}, outside "
                        f"{shapes[name].describe()}; artifacts are proved one sample at a time",
                        hint="widen the range: its minimum must admit a single sample",
                    )


def resolve_shapes(
    given: Mapping[str, ShapeRange],
    signature: Signature,
    sampled: Mapping[str, Sequence[Sequence[int]]],
    batch: int = 1,
) -> dict[str, ShapeRange]:
    """Returns a range for every input: what the user gave, else from the signature and the samples.

    A dynamic first dimension that all inputs share is the batch: 1 to 32, tuned for what is measured. Any other dynamic
    dimension goes from the smallest to the largest size among the samples, tuned for the largest. Dimensions of one
    name have one range.

    Args:
        given: As `parse_shapes` returns it, checked by `require_shapes_fit`.
        signature: Of the model.
        sampled: Input name -> shapes seen among the samples, batch dimension included.
        batch: Samples an inference.
    """
    named = _collect_given(given, signature)
    return {
        spec.name: given.get(spec.name) or _default_range(spec, signature, named, sampled.get(spec.name, ()), batch)
        for spec in signature.inputs
    }


def _collect_given(given: Mapping[str, ShapeRange], signature: Signature) -> dict[str, tuple[int, int, int]]:
    """Returns what the user's ranges say of the named dimensions."""
    named: dict[str, tuple[int, int, int]] = {}
    for spec in signature.inputs:
        if spec.name not in given:
            continue
        shapes = given[spec.name]
        for position, size in enumerate(spec.shape or ()):
            if not isinstance(size, str):
                continue
            sizes = (shapes.minimum[position], shapes.optimum[position], shapes.maximum[position])
            if named.setdefault(size, sizes) != sizes:
                raise UsageError(f"--shapes: two different ranges for the dimension {size!r}, which inputs share")
    return named


def _default_range(
    spec: TensorSpec,
    signature: Signature,
    named: Mapping[str, tuple[int, int, int]],
    sampled: Sequence[Sequence[int]],
    batch: int,
) -> ShapeRange:
    sizes: list[tuple[int, int, int]] = []
    for position, size in enumerate(spec.shape or ()):
        if isinstance(size, int):
            sizes.append((size, size, size))
        elif size in named:
            sizes.append(named[size])
        elif position == 0 and signature.batch_is_dynamic:
            sizes.append((1, batch, max(batch, DEFAULT_LARGEST_BATCH)))
        else:
            seen = [shape[position] for shape in sampled] or [1]
            sizes.append((min(seen), max(seen), max(seen)))
    columns = list(zip(*sizes, strict=True)) or [(), (), ()]
    return ShapeRange(minimum=tuple(columns[0]), optimum=tuple(columns[1]), maximum=tuple(columns[2]))
