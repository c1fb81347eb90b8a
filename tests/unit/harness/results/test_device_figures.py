"""Figures of the computation alone on an accelerator."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from modelwright.harness.results.device_figures import DeviceFigures, describe_computation
from modelwright.harness.results.statistics import SpeedRatio
from modelwright.harness.run.interleave import Window
from modelwright.harness.run.measure_artifacts import Measured
from modelwright.harness.run.told import Opened, RanWith

ON_GPU = RanWith(device="cuda", batch=2, streams=1, cuda_graph=False, spin=False)


def opened(settings: RanWith) -> Opened:
    return Opened(seal="0" * 64, import_ms=1, load_ms=1, first_inference_ms=1, runtime_bytes=None, settings=settings)


def make(name: str, compute_ms: float, rounds: int = 8, **settings) -> Measured:
    window = Window(
        latencies_ms=[10.0] * 4,
        inferences=4,
        elapsed_s=0.04,
        compute_latencies_ms=[compute_ms] * 5,
        compute_inferences=6,
        compute_elapsed_s=compute_ms * 6 / 1e3,
        compute_enqueue_ms=0.01,
    )
    return Measured(name=name, opened=opened(replace(ON_GPU, **settings)), windows=dict.fromkeys(range(rounds), window))


def test_latency_throughput_and_ratio_are_those_of_the_computation_not_of_the_whole() -> None:
    figures = describe_computation("fast", make("fast", 2.0), "slow", make("slow", 5.0))
    assert figures.latency_ms.p50 == 2.0
    assert (figures.count, figures.warm_ups) == (40, 8)
    assert figures.throughput_per_s == pytest.approx(2 / 2e-3)  # 2 samples an inference of 2 ms
    assert figures.speedup.ratio == pytest.approx(2.5)
    assert figures.reasons["compute_latency_ms.p99"].startswith("needs 662")


def test_a_cpu_row_has_none() -> None:
    measured = Measured(name="ort", opened=opened(RanWith(batch=1, threads=1)))
    assert describe_computation("ort", measured, "ort", measured) == DeviceFigures()


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        (make("base", 5.0, cuda_graph=True), "cuda_graph False against True"),
        (make("base", 5.0, streams=4, batch=1), "batch 2 against 1, streams 1 against 4"),
        (make("base", 5.0, device="cpu"), "on the CPU"),
        (make("base", 5.0, rounds=4), "fewer than 5 rounds"),
        (None, "was not measured"),
    ],
)
def test_only_like_is_compared_with_like(baseline: Measured | None, said: str) -> None:
    figures = describe_computation("own", make("own", 2.0), "base", baseline)
    assert figures.speedup is None
    assert said in figures.reasons["compute_speedup"]


def test_the_baseline_is_1() -> None:
    own = make("own", 2.0)
    assert describe_computation("own", own, "own", own).speedup == SpeedRatio(ratio=1.0, ci95=(1.0, 1.0))


def test_a_session_without_a_computation_says_why() -> None:
    measured = Measured(name="x", opened=opened(replace(ON_GPU, computation_reason="the runtime hides its stream")))
    figures = describe_computation("x", measured, "y", None)
    assert figures.latency_ms is None
    assert figures.reasons["compute_latency_ms"] == "the runtime hides its stream"
