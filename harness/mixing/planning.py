"""The plan that `build --plan` carries out, made of what a mix chose."""

from __future__ import annotations

from pathlib import Path

from modelwright.core.records.plan import BitPlan, PlannedLayer
from modelwright.harness.formatting import clean_text, shorten
from modelwright.harness.mixing.record import MixedLayer, Mixture

MOST_PLANNED_BITS = 8
"""No integer kernel of any runtime has more: such layers stay in float."""
_KINDS = {"thirds": "by thirds", "program": "by an integer program"}


def make_plan(mixture: Mixture) -> BitPlan:
    """Returns the plan: for each layer its bits, of weights and of what it reads."""
    row = mixture.chosen
    granularity = mixture.settings.granularity
    return BitPlan(
        onnx_sha256=mixture.onnx_sha256,
        model=shorten(clean_text(Path(mixture.model).name), 200),
        origin="modelwright mix",
        method=f"{mixture.settings.method}, {_KINDS[row.kind]}",
        granularity=granularity,
        rank_aware=row.rank_aware,
        layers=tuple(_plan_layer(layer, granularity) for layer in mixture.layers),
    )


def _plan_layer(layer: MixedLayer, granularity: str) -> PlannedLayer:
    bits = layer.bits if layer.bits <= MOST_PLANNED_BITS else None
    return PlannedLayer(
        output=layer.output,
        node=layer.node,
        operator=layer.operator,
        weight=layer.weight,
        weight_bits=None if layer.weight is None else bits,
        activation_bits=bits,
        granularity="channel" if granularity == "channel" else "tensor",
        simulated=True,
    )
