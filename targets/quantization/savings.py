"""What quantization saves in time, and what layers give up of it in float: an estimate, in which no clock takes part.

Two machines have to build the same file, so a layer counts by what it multiplies, reads and passes on, all in float
multiplications of one core. Behind the constants stand profiles of ONNX Runtime, OpenVINO and LiteRT on x86-64; they
need be right to a factor of two, no more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_PER_VALUE = 10.0
"""Passing a value on, written and read again: it is what a depthwise convolution spends its time on."""
_PER_WEIGHT = 4.0
"""Reading a float weight, one a byte; two where a cache has it, ten from memory. An inference of one sample uses each
weight of a matrix once: reading them is what a classifier spends its time on."""
_SAVED = 0.75
"""Share of that which 8 bits save: they are a quarter of the bytes, and four products are one instruction."""
STARTING = 50_000.0
"""What an operator takes beside that, about a microsecond: a layer that saves less gains nothing in integers."""


@dataclass(frozen=True, kw_only=True)
class LayerWork:
    """What a layer does in one inference.

    Attributes:
        products: Multiplications.
        weights: Constants that it reads.
        values: That it makes.
        passes_integers: Whether they are passed on in integers: with a neighbour in float, they have to be converted.
    """

    products: float
    weights: float = 0.0
    values: float = 0.0
    passes_integers: bool = False

    @property
    def total(self) -> float:
        """What it takes in float, in multiplications."""
        return self.products + _PER_WEIGHT * self.weights + _PER_VALUE * self.values


def share_given_up(works: Mapping[str, LayerWork], kept: Collection[str], starting: float = STARTING) -> float:
    """Returns the share of the time saved that goes with some layers in float, and with conversions around them.

    Neighbours in the order of the graph count as those that pass values to each other. 0 where nothing is saved.

    Args:
        works: The layers that are quantized, in the order of the graph.
        kept: Those of them that go back to float.
        starting: What an operator takes beside its work.
    """
    saved = {name: max(0.0, _SAVED * work.total - starting) for name, work in works.items()}
    total = sum(saved.values())
    if not total:
        return 0.0
    converted = sum(
        _PER_VALUE * works[before].values
        for before, after in pairwise(works)
        if works[before].passes_integers and (before in kept) != (after in kept)
    )
    return (sum(saved[name] for name in works if name in kept) + converted) / total


def describe_savings() -> dict[str, Any]:
    """Returns what the estimate rests on: with other values a search may choose otherwise."""
    return {"per_value": _PER_VALUE, "per_weight": _PER_WEIGHT, "saved": _SAVED, "starting": STARTING}
