from __future__ import annotations

import documents
import pytest
from msgspec.structs import replace

from modelwright.core.errors import UsageError
from modelwright.core.outputs.drop import Drop
from modelwright.harness.results.limits import Limits
from modelwright.harness.results.record import Measurement
from modelwright.harness.results.statistics import Latency

ROW = Measurement(
    target="x-fp32", title="X", runtime="x", precision="fp32", is_float=True, status="measured",
    latency_ms=Latency(p50=6.1), accuracy=0.97, agreement=0.99, size_bytes=3_000_000,
)  # fmt: skip


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
    assert limits.explain_misses(ROW) == tuple(misses)


def test_an_unknown_figure_misses_its_limit() -> None:
    assert Limits(min_accuracy=0.5).explain_misses(replace(ROW, accuracy=None)) == ("accuracy is not known",)


DROP = Drop(by="accuracy", measure="accuracy", fp32=0.98, artifact=0.97, points=1.0, count=100)


def test_points_lost_are_held_to_what_is_asked() -> None:
    row = replace(ROW, drop=DROP)
    assert Limits(max_drop=1).explain_misses(row) == ()
    assert Limits(max_drop=0.9).explain_misses(row) == ("loss 1 points is over 0.9",)
    assert Limits(max_drop=0).explain_misses(replace(row, drop=replace(DROP, points=-0.4))) == ()
    assert Limits(max_drop=50).explain_misses(ROW) == ("loss is not known",)


def test_an_artifact_over_its_own_limit_misses_it_whatever_is_asked_for() -> None:
    """It was built with a limit and is marked as over it: measuring it elsewhere must not make it good."""
    marked = replace(ROW, drop=replace(DROP, max_points=0.5))
    for limits in (Limits(), Limits(max_p50_ms=10)):
        assert limits.explain_misses(marked) == ("1 points are lost, over the 0.5 of its own limit",)
    assert Limits(max_drop=2).explain_misses(marked) == (), "the user says otherwise now"
    assert Limits().explain_misses(replace(ROW, drop=replace(DROP, max_points=1.0))) == ()


def test_only_measured_rows_are_judged() -> None:
    document = documents.make_document([documents.make_unmeasured("y-fp32", "Y", "failed", "crash")])
    comparison = documents.read(document)
    limited = Limits(max_p50_ms=1).apply(replace(comparison, measurements=(ROW, *comparison.measurements)))
    assert limited.measurements[0].limits_missed == ("p50 6.1 ms is over 1",)
    assert limited.measurements[1].limits_missed == ()
    assert limited.limits == {"max_p50_ms": 1}


def test_a_limit_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="no limit 'max_p5_ms'") as caught:
        Limits(max_p5_ms=1)
    assert "max_p50_ms" in (caught.value.hint or "")
