"""Where an inference's time goes, operator by operator, as the runtime's own profiler tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from modelwright.core.records.codec import Amount, Count, Record, Share

Kind = Literal["compute", "conversion", "other"]
CONVERSIONS = "conversions"
"""Stands among precisions for the time that goes into changing types and layouts."""
NO_PRECISION = "other"
"""Stands among precisions for operators on indices, shapes and masks, and for branches and loops themselves."""


class Operator(Record):
    """One operator that ran.

    Attributes:
        name: The runtime's, which may be of several operators of the model that it fused.
        type: The runtime's word for what it is: `QLinearConv`, `FullyConnected`, `Softmax`.
        kind: `compute` for what multiplies matrices; `conversion` for what changes types or layouts: quantize,
            dequantize, cast, reorder, transpose; `other` for the rest.
        precision: That it executed in: `int8`, `fp32`, `bf16`; null for conversions, and for what computes on indices
            and shapes.
        nodes: Nodes of the ONNX model that it stands for, by the names that the runtime kept; empty where it kept none.
        time_us: Of an inference.
        share: Of the time of all operators.
    """

    name: str
    type: str
    kind: Kind
    precision: str | None
    nodes: tuple[str, ...] = ()
    time_us: Amount
    share: Share


class OperatorType(Record):
    """All operators of one type that executed in one precision.

    Attributes:
        type: As of its operators.
        kind: As of its operators.
        precision: As of its operators.
        count: How many of them ran.
        time_us: Of all of them, in an inference.
        share: Of the time of all operators.
    """

    type: str
    kind: Kind
    precision: str | None
    count: Count
    time_us: Amount
    share: Share


class Remedy(Record):
    """Why operators of a type stay out of integers in this runtime, and what would help.

    Attributes:
        type: Of the operators.
        reason: Why, as the end of a sentence: `has no integer kernel`.
        change: What to change in the model, as an order: `replace HardSwish by Relu before training`; null where
            nothing is known that helps.
    """

    type: str
    reason: str
    change: str | None = None


class OperatorProfile(Record):
    """What the operators of an inference took, in a run of its own: profilers cost time, and nothing else was timed.

    Attributes:
        source: Which profiler told.
        inferences: How many it saw; times are the mean of those that nothing disturbed.
        inference_us: Of the quickest inference under the profiler, by the clock: the others were interrupted.
        operators_us: Of all operators of an inference.
        count: Operators that ran.
        types: All of them by type, kind and precision, the longest first.
        operators: The longest of them, the longest first; the types tell of the others.
        remedies: Of the types that stay out of integers in an artifact that was to compute in integers.
    """

    source: str
    inferences: Count
    inference_us: Amount
    operators_us: Amount
    count: Count
    types: tuple[OperatorType, ...]
    operators: tuple[Operator, ...]
    remedies: tuple[Remedy, ...] = ()

    def share_where(self, fits: Callable[[OperatorType], bool]) -> float:
        """Returns the share of the time that operators of some types take together."""
        return sum(entry.share for entry in self.types if fits(entry))

    def shares_by_precision(self) -> dict[str, float]:
        """Returns precision -> share of the time, the largest first; conversions are an entry of their own."""
        shares: dict[str, float] = {}
        for entry in self.types:
            name = CONVERSIONS if entry.kind == "conversion" else entry.precision or NO_PRECISION
            shares[name] = shares.get(name, 0.0) + entry.share
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def main_precision(self) -> str | None:
        """Returns the precision that took most of the time of what multiplies; of everything where nothing does."""
        for kinds in (("compute",), ("compute", "other")):
            times: dict[str, float] = {}
            for entry in self.types:
                if entry.kind in kinds and entry.precision is not None:
                    times[entry.precision] = times.get(entry.precision, 0.0) + entry.time_us
            if times:
                return max(times, key=lambda name: times[name])
        return None
