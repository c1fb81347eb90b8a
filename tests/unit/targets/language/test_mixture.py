"""As few matrices of 8 bits as keep the limit: what each share loses is told here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelwright.targets.language import mixture
from modelwright.targets.language.grids import BlockFormat, NearestGrids, SparedGrids
from modelwright.targets.language.portable import LinearLayer

ROWS = 64
NAMES = [f"layer{number}" for number in range(16)]
HARM = {f"x{number}": 16.0 - number for number in range(16)}
"""The first of 16 equal matrices harms most."""


def make_model(rows: int = ROWS) -> Any:
    layers = [
        LinearLayer(name=name, weight=name, reads=f"x{number}", gives=f"y{number}", rows=rows, columns=1)
        for number, name in enumerate(NAMES)
    ]
    return SimpleNamespace(linear_layers={layer.name: layer for layer in layers})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the harm was measured."""
    calls: list[int] = []

    def measure_harm(*_: Any) -> dict[str, float]:
        calls.append(1)
        return HARM

    monkeypatch.setattr(mixture, "measure_harm", measure_harm)
    return calls


def choose(limit: float | None, loss: float) -> tuple[set[str], Any]:
    """Chooses where each matrix of 4 bits costs as much; returns those of 8 bits, and what was found."""
    model = make_model()
    few, more = (
        NearestGrids(model, dict.fromkeys(NAMES, BlockFormat(bits=bits, size=64, symmetric=True))) for bits in (4, 8)
    )
    request: Any = SimpleNamespace(max_perplexity_increase=limit, threads=1, progress=lambda line: None)

    def measure(grids: Any) -> float:
        assert isinstance(grids, SparedGrids)
        return loss * sum(found.bits == 4 for found in grids.formats.values())

    found = mixture.choose_mixture(request, few, more, np.zeros((2, 8), np.int64), measure)  # type: ignore[arg-type]
    return {name for name, each in found.grids.formats.items() if each.bits == 8}, found


def test_where_4_bits_everywhere_keep_the_limit_nothing_else_is_measured(measured: list[int]) -> None:
    spared, found = choose(0.05, 0.05 / 16)
    assert spared == set()
    assert found.search["tried"] == [{"share_in_8_bits": 0.0, "perplexity_increase": 0.05}]
    assert not measured


@pytest.mark.parametrize(("limit", "count"), [(0.15, 1), (0.13, 3), (0.12, 4), (0.1, 6), (0.05, 12)])
def test_the_smallest_share_that_keeps_the_limit_is_found_and_holds_what_harms_most(
    measured: list[int], limit: float, count: int
) -> None:
    spared, found = choose(limit, 0.01)
    assert spared == set(NAMES[:count])
    assert found.notes == ()
    assert found.search["limit"] == limit
    assert measured == [1]


def test_a_limit_that_no_share_keeps_is_told_and_the_usual_one_holds_where_there_is_none(measured: list[int]) -> None:
    spared, found = choose(0.01, 0.01)
    assert spared == set(NAMES[:12])
    assert found.notes == ("perplexity grows by 4.0% on tuning texts, more than 1.0%",)
    assert choose(None, 0.01)[1].search["limit"] == mixture.DEFAULT_INCREASE
    assert len(measured) == 2


def test_blocks_are_as_long_as_all_matrices_divide_into() -> None:
    assert [mixture.choose_few(make_model(rows)).size for rows in (576, 96, 24)] == [64, 32, 32]
