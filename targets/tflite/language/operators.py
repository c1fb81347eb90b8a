"""The operators that a decoder is written with, with their constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelwright.targets.tflite.language.model_file import GraphWriter, Value


class Operators:
    """Adds operators to a graph; each is called like the value that it gives.

    Args:
        graph: That they are added to.
    """

    def __init__(self, graph: GraphWriter) -> None:
        self._graph = graph

    def number(self, value: float) -> Value:
        """Adds a constant without dimensions."""
        return self._graph.add_numbers(value, np.float32)

    def combine(self, operator: str, one: Value, other: Value, shape: Sequence[int], name: str) -> Value:
        """Adds, subtracts, multiplies or divides (`Add`, `Sub`, `Mul`, `Div`), the smaller value repeated."""
        return self._graph.add(operator.upper(), [one, other], shape, name, f"{operator}Options")

    def reduce(self, operator: str, value: Value, name: str) -> Value:
        """Takes the sum (`SUM`) or the mean (`MEAN`) over the last axis, which stays."""
        axis, shape = self._integers(len(value.shape) - 1), [*value.shape[:-1], 1]
        return self._graph.add(operator, [value, axis], shape, name, "ReducerOptions", keepDims=True)

    def reshape(self, value: Value, shape: Sequence[int], name: str) -> Value:
        """Has a value read in another shape, one size of which may be -1."""
        sizes = self._integers(*shape)
        return self._graph.add("RESHAPE", [value, sizes], shape, name, "ReshapeOptions", newShape=list(shape))

    def transpose(self, value: Value, order: Sequence[int], name: str) -> Value:
        """Puts axes into another order."""
        shape = [value.shape[axis] for axis in order]
        return self._graph.add("TRANSPOSE", [value, self._integers(*order)], shape, name, "TransposeOptions")

    def split(self, value: Value, parts: int, name: str) -> list[Value]:
        """Cuts the last axis into parts of one length: the only way of cutting that XNNPACK takes at any length."""
        axis = self._graph.add_numbers(len(value.shape) - 1, np.int32)
        shape = [*value.shape[:-1], value.shape[-1] // parts]
        return self._graph.add_many("SPLIT", [axis, value], [shape] * parts, name, "SplitOptions", numSplits=parts)

    def join(self, values: Sequence[Value], shape: Sequence[int], name: str) -> Value:
        """Puts values beside each other along the last axis."""
        return self._graph.add("CONCATENATION", values, shape, name, "ConcatenationOptions", axis=len(shape) - 1)

    def gather(self, table: Value, rows: Value, name: str) -> Value:
        """Takes rows of [rows, columns]."""
        return self._graph.add("GATHER", [table, rows], [-1, table.shape[1]], name, "GatherOptions")

    def multiply(self, one: Value, other: Value, shape: Sequence[int], name: str, *, turned: bool = False) -> Value:
        """Multiplies the matrices of the last two axes, the second one transposed where it is `turned`."""
        return self._graph.add("BATCH_MATMUL", [one, other], shape, name, "BatchMatMulOptions", adjY=turned)

    def soften(self, scores: Value, name: str) -> Value:
        """Takes the softmax over the last axis."""
        return self._graph.add("SOFTMAX", [scores], scores.shape, name, "SoftmaxOptions", beta=1.0)

    def _integers(self, *values: int) -> Value:
        return self._graph.add_numbers(values, np.int32)
