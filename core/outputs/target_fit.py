"""How close answers come to what they should be: error and R squared of each output that the samples hold targets for.

An array `target_NAME` of the samples that has the shape of the output NAME is what that output should be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.records.codec import Amount, Count, Line, Number, Record
from modelwright.core.samples.sample_set import TARGET, SampleSet

Array = npt.NDArray[Any]

MOST_ELEMENTS = 16
"""Values a sample of which each has figures of its own; of an output with more there are those of all together."""


class TargetFit(Record):
    """How an output, or one of its values, comes up to its targets.

    Attributes:
        output: Its name.
        element: Which of its values, counted from 0; null for all of them together.
        rmse: Root of the mean squared error, in the output's own unit.
        r2: Share of the targets' variance that is explained: 1 for no error, 0 for what their mean would do, below it
            for worse; null where the targets do not vary.
        rmse_fp32: Of the FP32 model that it is compared with.
        r2_fp32: Likewise.
    """

    output: Line
    element: Count | None
    rmse: Amount
    r2: Number | None
    rmse_fp32: Amount
    r2_fp32: Number | None

    @property
    def name(self) -> str:
        """Returns for instance `next_state[2]`."""
        return self.output if self.element is None else f"{self.output}[{self.element}]"


class FitMeter:
    """Sums over the samples: squares of the errors of an artifact and of FP32, and how the targets vary.

    Args:
        samples: With `target_...` arrays, where there are any.
        outputs: One answer to one sample, batch dimension included, by whose shapes outputs find their targets.
    """

    def __init__(self, samples: SampleSet, outputs: Mapping[str, Array]) -> None:
        self._samples = samples
        known = [name for name in outputs if TARGET + name in samples.target_names]
        self._sums = {
            name: _Sums(outputs[name].size) for name in known if _fits(samples.target(TARGET + name, 0), outputs[name])
        }

    def add(self, position: int, found: Mapping[str, Array], fp32: Mapping[str, Array]) -> None:
        """Takes the answers to a sample."""
        for name, sums in self._sums.items():
            sums.add(self._samples.target(TARGET + name, position), found.get(name), fp32.get(name))

    def result(self) -> tuple[TargetFit, ...]:
        """Returns the figures of every output and value; none of what is not finite."""
        return tuple(fit for name, sums in self._sums.items() for fit in sums.describe(name))


class _Sums:
    """Of one output: squared errors, and the targets' variation in one pass (Welford 1962)."""

    def __init__(self, size: int) -> None:
        self._count = 0
        self._errors = np.zeros((2, size))
        self._mean, self._spread = np.zeros(size), np.zeros(size)

    def add(self, target: Array, *answers: Array | None) -> None:
        wanted = np.asarray(target, np.float64).ravel()
        self._count += 1
        offset = wanted - self._mean
        with np.errstate(over="ignore", invalid="ignore"):
            self._mean += offset / self._count
            self._spread += offset * (wanted - self._mean)
            for row, answer in enumerate(answers):
                if answer is None or answer.size != wanted.size:
                    self._errors[row] = math.inf  # no answer is as far off as can be
                else:
                    self._errors[row] += (np.asarray(answer, np.float64).ravel() - wanted) ** 2

    def describe(self, name: str) -> Iterator[TargetFit]:
        size = len(self._mean)
        parts: dict[int | None, slice] = {None: slice(None)}
        if 1 < size <= MOST_ELEMENTS:
            parts = {index: slice(index, index + 1) for index in range(size)}
        for element, part in parts.items():
            errors, spread = self._errors[:, part].sum(axis=1), self._spread[part]
            if self._count and np.isfinite(errors).all() and np.isfinite(spread).all():
                yield _describe(name, element, errors, float(spread.sum()), self._count * len(spread))


def _fits(target: Array, output: Array) -> bool:
    """Whether a row of the targets is a whole answer, of numbers."""
    is_answer = target.dtype.kind in "fiu" and output.size > 0
    return is_answer and output.shape in {target.shape, (1, *target.shape)}


def _describe(name: str, element: int | None, errors: Array, spread: float, count: int) -> TargetFit:
    rmse, rmse_fp32 = (math.sqrt(float(error) / count) for error in errors)
    r2, r2_fp32 = (1 - float(error) / spread if spread > 0 else None for error in errors)
    return TargetFit(output=name, element=element, rmse=rmse, r2=r2, rmse_fp32=rmse_fp32, r2_fp32=r2_fp32)
