"""What an inference costs by each goal: metered energy before estimated, and nothing where neither is to be had."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from modelwright.core.errors import MeasurementInvalidError
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.tuned import Tuned
from modelwright.harness.run.interleave import Window
from modelwright.harness.tuning import cost as module
from modelwright.harness.tuning.cost import choose_cost
from modelwright.harness.tuning.record import Configuration
from modelwright.profiles import load_profile

WINDOW = Window(latencies_ms=[1.0, 1.0, 4.0], inferences=4, elapsed_s=0.01, energy_j=0.8)
ONE = Configuration(artifact="a")
FOUR = Configuration(artifact="a", threads=2, requests=2)
DESKTOP = load_profile("desktop-i5-10400")


@dataclass
class Meter:
    name: str = "rapl"


def take(goal: Any, how: Configuration = ONE, *, meter: Any = None, batch: int = 1) -> float:
    return choose_cost(goal, DESKTOP, DESKTOP, meter, batch).of_window(WINDOW, how)


def test_latency_is_the_median_and_throughput_what_a_sample_takes() -> None:
    assert take("latency") == 1.0
    assert take("throughput") == 2.0
    assert take("throughput", FOUR) == 1.0, "two requests share the time that each measured"
    assert take("throughput", FOUR, batch=4) == 0.25


def test_a_meter_counts_all_that_ran() -> None:
    assert take("energy", meter=Meter()) == pytest.approx(0.2)
    assert choose_cost("energy", DESKTOP, DESKTOP, Meter(), 1).estimated is None  # type: ignore[arg-type]
    still = Window(latencies_ms=[1.0], inferences=1, elapsed_s=0.001, energy_j=0.0)
    with pytest.raises(MeasurementInvalidError, match="counted nothing"):
        choose_cost("energy", DESKTOP, DESKTOP, Meter(), 1).of_window(still, ONE)  # type: ignore[arg-type]


def test_without_a_meter_more_threads_draw_more() -> None:
    found = choose_cost("energy", DESKTOP, DESKTOP, None, 1)
    assert found.estimated
    one, two = found.of_window(WINDOW, ONE), found.of_window(WINDOW, Configuration(artifact="a", threads=2))
    assert 1 < two / one <= 2


def test_where_an_estimate_comes_from_fits_into_a_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.power_on(DESKTOP, DESKTOP)
    assert real is not None
    long = SimpleNamespace(**{name: getattr(real, name) for name in ("idle_w", "inference_power_w", "scope")})
    long.source = "a data sheet\n" * 100
    monkeypatch.setattr(module, "power_on", lambda *_: long)
    estimated = choose_cost("energy", DESKTOP, DESKTOP, None, 1).estimated
    tuned = Tuned(
        goal="energy", threads=1, options={}, ratio=None, ci95=None, over=None, trials=1, estimated=estimated,
        device="a CPU", versions={}, created="2026",
    )  # fmt: skip
    assert decode(Tuned, encode(tuned)) == tuned


def test_where_nothing_tells_the_energy_another_goal_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "power_on", lambda *_: None)
    with pytest.raises(MeasurementInvalidError, match="energy of an inference cannot be known") as caught:
        choose_cost("energy", DESKTOP, DESKTOP, None, 1)
    assert "tune for latency" in (caught.value.hint or "")
