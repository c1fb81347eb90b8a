"""A model's signature: the names, dtypes and shapes of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from modelwright.core.records.codec import Count, Record

Dimension = Count | str
"""A fixed size, or the name of a dynamic dimension (`batch`)."""
Dtype = Annotated[
    str,
    Meta(max_length=7, pattern=r"^(bool|float(16|32|64)|u?int(8|16|32|64))$", description="a dtype of numpy"),
]


class TensorSpec(Record):
    """One input or output.

    Attributes:
        name: As in the ONNX graph.
        dtype: numpy's name: `float32`, `int64`, `bool`, ...
        shape: One entry a dimension: its size, or the name of a dynamic one. Unknown rank is refused earlier
            for inputs; an output of unknown rank has the shape None.
    """

    name: str
    dtype: Dtype
    shape: tuple[Dimension, ...] | None

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    def describe(self) -> str:
        """Returns for instance `x float32 [batch, 1, 32, 32]`."""
        shape = "unknown shape" if self.shape is None else "[" + ", ".join(str(d) for d in self.shape) + "]"
        return f"{self.name} {self.dtype} {shape}"


class Signature(Record):
    """Inputs and outputs, in the graph's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def dynamic_dimensions(self) -> tuple[str, ...]:
        """The names of the inputs' dynamic dimensions, each once, in order of appearance."""
        names: dict[str, None] = {}
        for spec in self.inputs:
            for dimension in spec.shape or ():
                if isinstance(dimension, str):
                    names[dimension] = None
        return tuple(names)

    @property
    def batch_is_dynamic(self) -> bool:
        """Whether every input's first dimension is dynamic, and the same one."""
        firsts = {spec.shape[0] if spec.shape else None for spec in self.inputs}
        return len(firsts) == 1 and isinstance(next(iter(firsts)), str)

    def with_fixed(self, sizes: Mapping[str, int]) -> Signature:
        """Returns the signature of the same model with some dynamic dimensions fixed.

        Args:
            sizes: Dimension's name -> its size.
        """

        def fix(spec: TensorSpec) -> TensorSpec:
            if spec.shape is None:
                return spec
            shape = tuple(sizes.get(size, size) if isinstance(size, str) else size for size in spec.shape)
            return replace(spec, shape=shape)

        return Signature(inputs=tuple(map(fix, self.inputs)), outputs=tuple(map(fix, self.outputs)))

    def describe_fixed(self, artifact: Signature) -> str:
        """Returns which dynamic dimensions an artifact of this model has fixed: `batch fixed at 1`; empty for none.

        Args:
            artifact: Its signature.
        """
        shapes = {spec.name: spec.shape or () for spec in artifact.inputs}
        sizes: dict[str, list[int]] = {}
        for spec in self.inputs:
            for size, made in zip(spec.shape or (), shapes.get(spec.name, ()), strict=False):
                if isinstance(size, str) and isinstance(made, int) and made not in sizes.setdefault(size, []):
                    sizes[size].append(made)
        return ", ".join(f"{name} fixed at {' and '.join(map(str, made))}" for name, made in sizes.items())
