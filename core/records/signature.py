"""A model's signature: the names, dtypes and shapes of its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Dimension = int | str
"""A fixed size, or the name of a dynamic dimension (`batch`)."""
_DTYPES = (
    "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: As in the ONNX graph.
        dtype: numpy's name: `float32`, `int64`, `bool`, ...
        shape: One entry a dimension: its size, or the name of a dynamic one. Unknown rank is refused earlier
            for inputs; an output of unknown rank has the shape None.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    def describe(self) -> str:
        """Returns for instance `x float32 [batch, 1, 32, 32]`."""
        shape = "unknown shape" if self.shape is None else "[" + ", ".join(str(d) for d in self.shape) + "]"
        return f"{self.name} {self.dtype} {shape}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": None if self.shape is None else list(self.shape),
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> TensorSpec:
        """Rebuilds what `to_dict` wrote.

        Raises:
            KeyError: A key is missing.
            TypeError: A value is not of its type; the data may come from a foreign file.
        """
        name, dtype, shape = data["name"], data["dtype"], data["shape"]
        if not isinstance(name, str) or dtype not in _DTYPES:
            raise TypeError(f"{name!r} of dtype {dtype!r} is no tensor")
        if shape is not None and not all(isinstance(size, int | str) for size in shape):
            raise TypeError(f"{shape!r} is no shape")
        return TensorSpec(name=name, dtype=dtype, shape=None if shape is None else tuple(shape))


@dataclass(frozen=True, kw_only=True)
class Signature:
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

    def to_dict(self) -> dict[str, Any]:
        return {"inputs": [s.to_dict() for s in self.inputs], "outputs": [s.to_dict() for s in self.outputs]}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Signature:
        return Signature(
            inputs=tuple(TensorSpec.from_dict(d) for d in data["inputs"]),
            outputs=tuple(TensorSpec.from_dict(d) for d in data["outputs"]),
        )
