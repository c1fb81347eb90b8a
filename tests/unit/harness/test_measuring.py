from __future__ import annotations

from modelwright.core.errors import MeasurementInvalidError
from modelwright.harness.measuring import _replace_failed
from modelwright.harness.run.measure_artifacts import Measured


def test_a_failed_first_artifact_is_no_baseline() -> None:
    failed = [Measured(name="a", failure=MeasurementInvalidError("crashed"))]
    assert _replace_failed("a", ["a", "b", "c"], failed) == "b"
    assert _replace_failed("b", ["a", "b", "c"], failed) == "b"
