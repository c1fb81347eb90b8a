"""How many evaluations a search may take: counted and never timed, so that a busy machine builds the same file."""

from __future__ import annotations

from typing import Any

from modelwright.targets.quantization.judge import Judge

MOST, LEAST = 24, 4
"""Candidates of a model that are evaluated at most, however small it is; and evaluations of the largest one."""
_WORK = 4e12
"""Multiplications that evaluating candidates may come to: about two minutes of two cores."""
_PER_BYTE = 500.0
"""What rounding, writing and loading a byte of weights counts as."""


def count_evaluations(judge: Judge) -> int:
    """Returns how many evaluations on the samples that judge candidates may cost: fewer of a model that works more."""
    each = judge.work * len(judge.reference) + judge.model_bytes * _PER_BYTE
    return int(max(LEAST, _WORK // max(each, 1.0)))


def count_repairs(judge: Judge, layers: int) -> int:
    """Returns how many candidates with layers in float may be evaluated: the logarithm of their number, and two."""
    return min(layers.bit_length() + 2, count_evaluations(judge))


def describe_budget() -> dict[str, Any]:
    """Returns the bounds: with others a search may choose otherwise."""
    return {"most": MOST, "least": LEAST, "work": _WORK, "per_byte": _PER_BYTE}
