"""Verdicts where the outputs are no classes: what the task keeps of FP32's answers decides, in the task's words."""

from __future__ import annotations

from typing import Any

import documents
import pytest
from msgspec.structs import replace

from modelwright.core.outputs.fidelity import Fidelity
from modelwright.core.outputs.tasks.checks import Check
from modelwright.core.outputs.tasks.judge import TaskFidelity
from modelwright.harness.results.record import Comparison, Measurement
from modelwright.harness.verdict.judge import judge
from modelwright.harness.verdict.wording import name_quality


def make_task(severity: float, kept: float, measure: str = "detections") -> Fidelity:
    check = Check(output="boxes", measure="lost", value=severity, good=1.0, broken=2.0, text="9 detections are lost")
    task = TaskFidelity(task="boxes", samples=80, detection=("boxes",), measure=measure, kept=kept, checks=(check,))
    return Fidelity(
        samples=80, outputs=(), worst_output=None, cosine=0.6, agreement=None, agreement_reason="boxes", task=task
    )


def make_comparison(**severities: float) -> Comparison:
    """The made-up comparison without labels, each row with a severity; rows of other targets lose nothing."""
    comparison = documents.read(documents.transformer())

    def change(row: Measurement) -> Measurement:
        if not row.measured:
            return row
        severity = severities.get(row.target.replace("-", "_"), 0.0)
        fidelity: Any = make_task(severity, 1 - severity / 20)
        nothing: dict[str, Any] = {"accuracy": None, "accuracy_ci95": None, "accuracy_fp32": None, "agreement": None}
        return replace(row, **nothing, cosine=0.6, kept=fidelity.task.kept, fidelity=fidelity)

    return replace(comparison, measurements=tuple(map(change, comparison.measurements)))


def test_what_keeps_the_task_ships_though_its_cosine_is_poor() -> None:
    comparison = make_comparison()
    verdict = judge(comparison)
    assert verdict.quality == "kept"
    assert name_quality(comparison, verdict.quality) == "FP32's detections kept"
    assert verdict.ship is not None
    assert verdict.ship != comparison.baseline


def test_what_some_would_notice_does_not_ship() -> None:
    assert judge(make_comparison(openvino_bf16=1.8)).ship == "openvino-int8"
    verdict = judge(make_comparison(openvino_bf16=1.8, openvino_int8=1.8))
    assert verdict.ship not in ("openvino-bf16", "openvino-int8")
    assert "loses too much: output boxes: 9 detections are lost" in verdict.sentence


@pytest.mark.parametrize("axis", ["accuracy", "agreement", None])
def test_other_axes_are_named_as_ever(axis: Any) -> None:
    assert name_quality(make_comparison(), axis) == (axis or "quality")
