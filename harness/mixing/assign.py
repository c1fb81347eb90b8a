"""Which layer gets how many bits: by thirds of their sensitivity, or by an integer program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BuildFailedError
from modelwright.targets.readiness import require_import

Costs = Mapping[str, Mapping[int, float]]
"""Layer's output -> bits -> what it costs, which adds up over layers."""

Floats = npt.NDArray[np.float64]

_SOLVER_LIMIT_S = 60.0
_GAP = 1e-6
"""Of the optimum, by which HiGHS may miss it."""
_SLACK = 1e-9
_TOLERANCE = 2e-6
"""Of a limit of 1: twice HiGHS' own."""
_MADE = 0.5
_ROUNDS = 8


def assign_thirds(sensitivity: Mapping[str, float], widths: Sequence[int]) -> dict[str, int]:
    """Gives the most sensitive layers the most bits, in parts of equal size: thirds, where there are three widths.

    Args:
        sensitivity: Layer's output -> how much rounding changes what it makes; of equal ones, the first is ahead.
        widths: Bits to give.
    """
    ordered = sorted(sensitivity, key=lambda name: -sensitivity[name])
    offered = sorted(set(widths), reverse=True)
    return {name: offered[place * len(offered) // len(ordered)] for place, name in enumerate(ordered)}


def assign_program(errors: Costs, energies: Costs, limit: float, *, limited: str) -> dict[str, int] | None:
    """Gives the bits that make one cost least while the other stays within a limit.

    Args:
        errors: What rounding costs.
        energies: What bits cost.
        limit: Of what is limited, over all layers together.
        limited: `energy` makes the error least, `error` the energy.

    Returns:
        None where even the choice that is best for what is limited exceeds the limit.

    Raises:
        BuildFailedError: The solver does not come to an end.
    """
    wanted, bounded = (errors, energies) if limited == "energy" else (energies, errors)
    best = {name: min(costs, key=lambda bits, costs=costs: costs[bits]) for name, costs in bounded.items()}  # type: ignore[misc]
    if total(bounded, best) > limit * (1 + _SLACK):
        return None
    choices = [(name, bits) for name, costs in wanted.items() for bits in costs]
    costs, loads = (np.array([table[name][bits] for name, bits in choices]) for table in (wanted, bounded))
    owners = [name for name, _ in choices]
    for slack in (0.0, _TOLERANCE):  # HiGHS takes a hair beyond a limit for within it
        made = _solve_closely(costs, loads, limit * (1 - slack), owners)
        found = {name: bits for (name, bits), is_made in zip(choices, made, strict=True) if is_made}
        if total(bounded, found) <= limit * (1 + _SLACK):
            return found
    return best


def total(costs: Costs, bits: Mapping[str, int]) -> float:
    """Returns what a choice costs over all layers."""
    return sum(costs[name][width] for name, width in bits.items())


def _solve_closely(costs: Floats, loads: Floats, limit: float, owners: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Returns which choices are made, to a small share of what they cost together.

    HiGHS stops within an absolute gap of the optimum. So the problem is solved again in the scale of what was found:
    choices that alone cost more than that are too dear, whatever they cost.
    """
    scale = float(np.max(costs, initial=0.0))
    for _ in range(_ROUNDS):
        within = np.minimum(costs, 2 * scale) / scale if scale > 0.0 else costs
        made = _solve(within, loads, limit, owners) > _MADE
        found = float(costs[made].sum())
        if found >= scale / 2:
            break
        scale = found
    return made


def _solve(costs: Floats, loads: Floats, limit: float, owners: Sequence[str]) -> Floats:
    """Returns which choices are made: one an owner, whose loads are within the limit together."""
    optimize = require_import("scipy.optimize", "mix")
    names = list(dict.fromkeys(owners))
    one_each = np.array([[float(owner == name) for owner in owners] for name in names])
    scale = limit if limit > 0.0 else 1.0
    result = optimize.milp(
        costs,
        integrality=np.ones(len(costs)),
        bounds=optimize.Bounds(0, 1),
        constraints=[
            optimize.LinearConstraint(one_each, 1, 1),
            optimize.LinearConstraint(loads[None, :] / scale, -np.inf, limit / scale),
        ],
        options={"time_limit": _SOLVER_LIMIT_S, "mip_rel_gap": _GAP},
    )
    if result.x is None:
        raise BuildFailedError(f"HiGHS found no assignment of bits: {result.message}")
    return np.asarray(result.x, np.float64)
