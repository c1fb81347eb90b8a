"""Layers that a search left in float, and what each costs in time: measured where a profiler tells, else estimated."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelwright.core.records.operators import OperatorProfile

_NAMED = 8
"""Layers named in a note."""
_REASON = "sensitivity analysis"
_US_PER_MS = 1000.0


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """What the layers of a model take, by the runtime's own profiler.

    Attributes:
        source: Which profiler told.
        times_us: Layer -> microseconds of an inference; layers that were fused into others are left out.
        total_us: Of all operators of an inference, conversions between float and integers included.
    """

    source: str
    times_us: Mapping[str, float]
    total_us: float

    @staticmethod
    def of_profile(profile: OperatorProfile) -> LayerTimes:
        """Takes the layers out of a profile, which names the longest operators only."""
        times: dict[str, float] = defaultdict(float)
        for operator in profile.operators:
            for node in operator.nodes:
                # Operators that became one are not told apart: the first does the arithmetic.
                times[node] += operator.time_us if node == operator.nodes[0] else 0.0
        return LayerTimes(source=profile.source, times_us=times, total_us=profile.operators_us)


@dataclass(frozen=True, kw_only=True)
class KeptLayer:
    """A layer in float.

    Attributes:
        name: Of the layer.
        work_share: Of the model's work: an estimate of the time that float costs, where nothing was measured.
        noise: Noise to signal that its quantization makes at the layer itself; None where the runtime cannot tell.
        float_us: What it takes in float; None where no profiler told.
        quantized_us: What it takes quantized, in the same candidate; None likewise.
    """

    name: str
    work_share: float | None = None
    noise: float | None = None
    float_us: float | None = None
    quantized_us: float | None = None

    @property
    def cost_us(self) -> float | None:
        """What float costs in time: negative where it is the faster one."""
        if self.float_us is None or self.quantized_us is None:
            return None
        return self.float_us - self.quantized_us

    def describe(self) -> str:
        """Returns for instance `conv4 (+9.1 us)`; the name alone where nothing was measured."""
        return self.name if self.cost_us is None else f"{self.name} ({_tell_time(self.cost_us)})"

    def to_dict(self) -> dict[str, Any]:
        """Returns an entry of the manifest's `float_layers`; null is what is not known."""
        return {
            "layer": self.name,
            "reason": _REASON,
            "work_share": _round(self.work_share),
            "noise": _round(self.noise),
            "float_us": _round(self.float_us),
            "quantized_us": _round(self.quantized_us),
            "cost_us": _round(self.cost_us),
        }


@dataclass(frozen=True, kw_only=True)
class KeptLayers:
    """The layers that a candidate keeps in float.

    Attributes:
        layers: In the order of what they gain for their time.
        timed_by: Which profiler told what they take; None where none did.
        cost_us: What the inference takes more than with all layers quantized, conversions included; None likewise.
    """

    layers: tuple[KeptLayer, ...] = ()
    timed_by: str | None = None
    cost_us: float | None = None

    def timed(self, kept: LayerTimes, whole: LayerTimes) -> KeptLayers:
        """Returns the same with what layers take in float and quantized.

        Args:
            kept: Of the model with them in float.
            whole: Of the same model with all layers quantized.
        """
        layers = [
            replace(layer, float_us=kept.times_us.get(layer.name), quantized_us=whole.times_us.get(layer.name))
            for layer in self.layers
        ]
        return KeptLayers(layers=tuple(layers), timed_by=kept.source, cost_us=kept.total_us - whole.total_us)

    def explain(self) -> str | None:
        """Returns a sentence for the user on the layers and what they cost; None without any."""
        if not self.layers:
            return None
        count, them = (f"{len(self.layers)} layers", "them") if len(self.layers) > 1 else ("1 layer", "it")
        named = ", ".join(layer.describe() for layer in self.layers[:_NAMED])
        more = ", ..." if len(self.layers) > _NAMED else ""
        reason = f"because quantizing {them} loses too much"
        return f"{count} left in float, {reason}: {named}{more}{self._explain_cost()}"

    def to_dict(self) -> dict[str, Any]:
        """Returns what the manifest says of them."""
        return {
            "float_layers": [layer.to_dict() for layer in self.layers],
            "float_layers_timed_by": self.timed_by,
            "float_layers_cost_us": _round(self.cost_us),
        }

    def _explain_cost(self) -> str:
        if self.cost_us is not None:
            return f"; an inference takes {_tell_time(self.cost_us)} for it, by the {self.timed_by} on the build host"
        shares = [layer.work_share for layer in self.layers if layer.work_share is not None]
        return f"; {sum(shares):.1%} of the work, an estimate of the time that float costs" if shares else ""


def _round(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def _tell_time(us: float) -> str:
    """Returns a difference for people: `+9.1 us`, `-14.4 ms`; three digits, never as a power of ten."""
    value, unit = (us / 1000, "ms") if abs(us) >= _US_PER_MS else (us, "us")
    return f"{round(float(f'{value:.3g}'), 2) + 0.0:+,g} {unit}"
