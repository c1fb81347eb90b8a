"""How layers in float and what they cost are told."""

from __future__ import annotations

import pytest

from modelwright.targets.quantization.kept import KeptLayer, KeptLayers


@pytest.mark.parametrize(
    ("cost_us", "told"),
    [
        (3.0, "+3 us"),
        (9.14, "+9.14 us"),
        (123.4, "+123 us"),
        (14_400.0, "+14.4 ms"),
        (-1_234_567.0, "-1,230 ms"),
        (0.0004, "+0 us"),
        (-0.0004, "+0 us"),
    ],
)
def test_a_cost_is_told_as_times_are(cost_us: float, told: str) -> None:
    layer = KeptLayer(name="conv", float_us=cost_us, quantized_us=0.0)
    assert layer.describe() == f"conv ({told})"
    kept = KeptLayers(layers=(layer,), timed_by="profiler", cost_us=cost_us)
    assert str(kept.explain()).endswith(f"; an inference takes {told} for it, by the profiler on the build host")
