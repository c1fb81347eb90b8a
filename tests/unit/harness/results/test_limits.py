from __future__ import annotations

import pytest

from modelwright.harness.results.limits import Limits

ROW = {"status": "measured", "latency_ms": {"p50": 6.1}, "accuracy": 0.97, "agreement": 0.99, "size_bytes": 3_000_000}


@pytest.mark.parametrize(
    ("limits", "misses"),
    [
        (Limits(), []),
        (Limits(max_p50_ms=6.1, min_accuracy=0.97, min_agreement=0.99, max_size_mb=3.0), []),
        (Limits(max_p50_ms=5), ["p50 6.1 ms is over 5"]),
        (Limits(min_accuracy=0.98), ["accuracy 0.97 is under 0.98"]),
        (Limits(max_size_mb=2.5, min_agreement=0.995), ["agreement 0.99 is under 0.995", "size 3 MB is over 2.5"]),
    ],
)
def test_misses_are_named_with_both_numbers(limits: Limits, misses: list[str]) -> None:
    assert limits.explain_misses(ROW) == misses


def test_an_unknown_figure_misses_its_limit() -> None:
    assert Limits(min_accuracy=0.5).explain_misses({**ROW, "accuracy": None}) == ["accuracy is not known"]


def test_only_measured_rows_are_judged() -> None:
    document = {"measurements": [dict(ROW), {"status": "failed"}]}
    Limits(max_p50_ms=1).apply(document)
    assert document["measurements"][0]["limits_missed"] == ["p50 6.1 ms is over 1"]
    assert "limits_missed" not in document["measurements"][1]
    assert document["limits"] == {"max_p50_ms": 1}
