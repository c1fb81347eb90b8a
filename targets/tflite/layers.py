"""The layers of a file that a search can put back: how each is computed then, what that costs, and its own noise."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelwright.targets.quantization.savings import LayerWork
from modelwright.targets.tflite.recipes import Rule, TfliteCandidate

_DYNAMIC = frozenset({"CONV_2D", "FULLY_CONNECTED"})
"""What XNNPACK runs in 8 bits with scales that it takes while running."""
QUANTIZER_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
"""A file's operator -> AEQ's name for it, where that is another."""
_EIGHT_BITS = 8


@dataclass(frozen=True, kw_only=True)
class Spared:
    """Operators that are not quantized as others of their kind.

    Attributes:
        dynamic: They have 8-bit weights, and take the scales of their inputs while running.
        in_float: They stay in float.
    """

    dynamic: list[str]
    in_float: list[str]


class Layers:
    """What the converter tells of a file's operators with weights.

    Args:
        layers: From its step `calibrate`; see `converter/noise.py`.
        ends: Likewise.
    """

    def __init__(self, layers: Iterable[Mapping[str, Any]] = (), ends: Iterable[Mapping[str, str]] = ()) -> None:
        self._layers = {str(layer["name"]): layer for layer in layers}
        self._ends = {end["name"]: end["operator"] for end in ends}

    def __bool__(self) -> bool:
        return bool(self._layers)

    def works(self, candidate: TfliteCandidate) -> dict[str, LayerWork]:
        """Returns the layers that a candidate quantizes -> what each does that goes back with it."""
        works = {}
        for name, layer in self._layers.items():
            rule = _find_rule(candidate, layer["operator"])
            if rule is None:
                continue
            if _costs_by_size(layer, candidate):
                works[name] = LayerWork(products=0.0, weights=layer["weights"])
            elif layer["operator"] == "FULLY_CONNECTED" and rule.mode == "static":
                # A matrix product that takes its scales while running is as fast as one with fixed ones.
                works[name] = LayerWork(products=0.0)
            elif rule.mode == "dynamic":
                # Values are passed on in float all the same.
                works[name] = LayerWork(products=layer["products"], weights=layer["weights"])
            else:
                works[name] = replace(_count_work(layer), passes_integers=True)
        return works

    def costs(self, candidate: TfliteCandidate) -> dict[str, float]:
        """Returns the same layers -> the share of the work that moves with each, or of the size where that costs."""
        size = sum(layer["weights"] for layer in self._layers.values()) or 1.0
        work = sum(_count_work(layer).total for layer in self._layers.values()) or 1.0
        by_size = {name for name, layer in self._layers.items() if _costs_by_size(layer, candidate)}
        return {
            name: layer.weights / size if name in by_size else layer.total / work
            for name, layer in self.works(candidate).items()
        }

    def noise(self, candidate: TfliteCandidate) -> dict[str, float]:
        """Returns layer -> noise to signal of its own rounding, as a candidate rounds."""
        found = {}
        for name, layer in self._layers.items():
            rule = _find_rule(candidate, layer["operator"])
            kind = None if rule is None else "four_bits" if rule.bits < _EIGHT_BITS else rule.mode
            if kind in layer["noise"]:
                found[name] = float(layer["noise"][kind])
        return found

    def spare(self, candidate: TfliteCandidate, kept: Iterable[str]) -> Spared:
        """Returns how layers are computed that a candidate puts back, and the ends, where it spares them."""
        ends = self._ends if candidate.spares_ends else {}
        dynamic: list[str] = []
        in_float: list[str] = []
        for name in dict.fromkeys((*kept, *ends)):
            is_eased = ends.get(name) in _DYNAMIC or self._is_eased(candidate, name)
            (dynamic if is_eased else in_float).append(name)
        return Spared(dynamic=dynamic, in_float=in_float)

    def explain(self, candidate: TfliteCandidate, kept: Collection[str]) -> str | None:
        """Returns what the user has to know of layers that were put back; None where it is that they are in float."""
        eased = sum(self._is_eased(candidate, name) for name in kept)
        if not eased:
            return None
        counts = {"in 8 bits with scales that they take while running": eased, "in float": len(kept) - eased}
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"some operators are quantized less, as the sensitivity analysis asks for: {told}"

    def _is_eased(self, candidate: TfliteCandidate, name: str) -> bool:
        """Whether a layer that is put back is quantized all the same, only better."""
        operator = self._layers[name]["operator"] if name in self._layers else ""
        rule = _find_rule(candidate, operator)
        if operator != "FULLY_CONNECTED" or rule is None:
            return False
        return rule.mode == "static" or rule.bits < _EIGHT_BITS


def _count_work(layer: Mapping[str, Any]) -> LayerWork:
    """Returns what a layer does in float; of a table only what is looked up is read."""
    weights = 0.0 if layer["operator"] == "GATHER" else layer["weights"]
    return LayerWork(products=layer["products"], weights=weights, values=layer["values"])


def _costs_by_size(layer: Mapping[str, Any], candidate: TfliteCandidate) -> bool:
    """Whether a layer is lookups, is widened at loading, or waits for memory."""
    rule = _find_rule(candidate, layer["operator"])
    return layer["operator"] == "GATHER" or (rule is not None and (rule.mode == "weights" or rule.bits < _EIGHT_BITS))


def _find_rule(candidate: TfliteCandidate, operator: str) -> Rule | None:
    return candidate.find_rule(QUANTIZER_NAMES.get(operator, operator))
