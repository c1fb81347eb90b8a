from __future__ import annotations

import documents
import pytest
from msgspec.structs import replace

from modelwright.core.errors import UsageError
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
