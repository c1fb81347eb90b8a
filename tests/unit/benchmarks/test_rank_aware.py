"""The benchmark of ranked scales: its interval by a known answer, and what it calls a loss."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("rank_aware")


def make_case(benchmark: ModuleType, row: str, *points: float) -> Any:
    seeded = (benchmark.Seeded(seed=seed, plain=0.5, ranked=0.5 + gained / 100) for seed, gained in enumerate(points))
    return benchmark.Case(ranges="mse", row=row, seeded=tuple(seeded))


def test_the_interval_is_students_over_seeds(benchmark: ModuleType) -> None:
    mean, spread = make_case(benchmark, "4 bits", 1.0, 2.0, 3.0).points
    assert mean == pytest.approx(2.0)
    assert spread == pytest.approx(4.303 / 3**0.5, rel=1e-4)  # a deviation of 1, two degrees of freedom


def test_a_loss_counts_where_the_same_bits_are_everywhere(benchmark: ModuleType) -> None:
    assert make_case(benchmark, "4 bits", 1.0, -2.0, 0.5).hurts
    assert not make_case(benchmark, "4 bits", 1.0, -2.0, 1.5).hurts
    assert not make_case(benchmark, "6 bits", 0.0, 0.0, 0.0).hurts
    assert not make_case(benchmark, "mixed, thirds", -1.0, -2.0, -3.0).hurts


def test_the_page_names_what_is_worse(benchmark: ModuleType) -> None:
    cases = (make_case(benchmark, "6 bits", 0.0, 0.0, 0.0), make_case(benchmark, "4 bits", -1.0, -2.0, -3.0))
    findings = benchmark.Findings(
        machine="m", created="now", revision="r", versions={"numpy": "2"}, images={"drawn": 512, "test": 2000},
        fp32=0.603, kept=("mse, seed 0: none",), cases=cases,
    )  # fmt: skip
    page = benchmark.show(findings)
    assert "| mse | 4 bits | 50.00%, 49.00% | 50.00%, 48.00% | 50.00%, 47.00% | -2.00 | -4.48 to +0.48 |" in page
    assert "Not reached: 4 bits (mse)." in page
