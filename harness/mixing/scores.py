"""What a method says of the layers: in which order they suffer, and what each number of bits costs.

A method is a function of what was measured; `SCORERS` lists them. The order is what thirds go by, the costs are what an
integer program adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from modelwright.harness.mixing.assign import Costs
from modelwright.harness.mixing.sensitivity import Sensitivity
from modelwright.harness.mixing.settings import Method


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a method says.

    Attributes:
        order: Layer's output -> how sensitive it is; only the order matters.
        costs: Layer's output -> bits -> squared relative error of the answers, an estimate. Errors of layers do not
            know each other, so their squares add up.
    """

    order: Mapping[str, float]
    costs: Costs


def score_by_sensitivity(found: Mapping[str, Sensitivity], widths: Sequence[int]) -> Scores:
    """Orders layers by S at the fewest bits, and takes of S what reaches the answers."""
    return Scores(
        order={name: layer.errors[min(widths)] for name, layer in found.items()},
        costs={name: {bits: layer.answer_error(bits) ** 2 for bits in widths} for name, layer in found.items()},
    )


def score_by_nuclear_norm(found: Mapping[str, Sensitivity], widths: Sequence[int]) -> Scores:
    """Orders layers by their nuclear norm times S^2, a layer's share of Omega (`nuclear.py`): that is what bits cost.

    It says which layer suffers more, not how much the answers do: the costs are given the scale on which all layers
    together cost at the fewest bits what their errors do to the answers.
    """
    fewest = min(widths)
    suffered = {
        name: {bits: (layer.nuclear_norm or 0.0) * layer.errors[bits] ** 2 for bits in widths}
        for name, layer in found.items()
    }
    whole = sum(costs[fewest] for costs in suffered.values())
    reached = sum(layer.answer_error(fewest) ** 2 for layer in found.values())
    scale = reached / whole if whole > 0.0 else 0.0
    return Scores(
        order={name: costs[fewest] for name, costs in suffered.items()},
        costs={name: {bits: cost * scale for bits, cost in costs.items()} for name, costs in suffered.items()},
    )


SCORERS: Mapping[Method, Callable[[Mapping[str, Sensitivity], Sequence[int]], Scores]] = {
    "sensitivity": score_by_sensitivity,
    "nuclear": score_by_nuclear_norm,
}
