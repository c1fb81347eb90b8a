"""Which class carries out which method."""

from __future__ import annotations

from collections.abc import Mapping

from modelwright.compression.distil import Distillation
from modelwright.compression.low_rank import LowRank
from modelwright.compression.magnitude import MagnitudePruning
from modelwright.compression.methods import Kind, Method
from modelwright.compression.qat import QuantizationAwareTraining
from modelwright.compression.step import Step, Task
from modelwright.compression.structured import StructuredPruning
from modelwright.compression.two_four import TwoFourPruning

_STEPS: Mapping[Kind, type[Step]] = {
    "prune:magnitude": MagnitudePruning,
    "prune:2:4": TwoFourPruning,
    "prune:structured": StructuredPruning,
    "distil": Distillation,
    "low-rank": LowRank,
    "qat": QuantizationAwareTraining,
}


def make_step(method: Method, task: Task) -> Step:
    """Returns what carries out a method."""
    return _STEPS[method.kind](method, task)
