"""Only what was proved on the same samples stands on one front."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import documents
from msgspec.structs import replace

from modelwright.core.records.artifact import Artifact, ProvenancePart, SampleProvenance
from modelwright.harness.results.other_samples import set_apart
from modelwright.harness.results.record import Comparison
from modelwright.harness.verdict.judge import judge

NAMES = ("ort-fp32", "ort-int8", "tflite-int8")


def proved_on(letter: str | None, count: int = 500) -> Artifact:
    part = None
    if letter is not None:
        part = ProvenancePart(path=f"{letter}.npz", count=count, sha256=letter * 64, labels=True, shapes={})
    return cast(Artifact, SimpleNamespace(manifest=SimpleNamespace(samples=SampleProvenance(evaluation=part))))


def compare(**more: Any) -> Comparison:
    """INT8 of ONNX Runtime twice as fast, that of TFLite four times, with the best accuracy of all."""
    rows = [
        documents.make_row(name, name, latency_ms=latency, ratio=4.0 / latency, accuracy=accuracy, agreement=0.99)
        for name, latency, accuracy in zip(NAMES, (4.0, 2.0, 1.0), (0.97, 0.97, 0.99), strict=True)
    ]
    return replace(documents.read(documents.make_document(rows, labels=True, **more)), verdict=None)


def test_on_the_same_samples_all_compare() -> None:
    comparison = compare()
    artifacts = dict(zip(NAMES, [proved_on("a")] * 3, strict=True))
    assert set_apart(comparison, artifacts, counted=False) is comparison
    assert judge(comparison).ship == "tflite-int8"


def test_what_was_proved_on_others_is_on_no_front_and_says_why() -> None:
    """48.4 % of 500 samples and 51.6 % of 128 others are no difference between two artifacts."""
    artifacts = dict(zip(NAMES, (proved_on("a"), proved_on("a"), proved_on("b", 128)), strict=True))
    apart = set_apart(compare(), artifacts, counted=False)
    verdict = judge(apart)
    assert verdict.pareto == ("ort-int8",)
    assert verdict.ship == "ort-int8"
    row = apart.find("tflite-int8")
    assert row is not None
    assert (row.accuracy, row.agreement, row.fidelity) == (None, None, None)
    assert row.unavailable["accuracy"] == "proved on 128 samples of b.npz, the baseline on 500 samples of a.npz"
    assert row.speedup is not None, "the speeds compare"
    (told,) = apart.warnings[-1:]
    assert "ort-fp32, ort-int8 on 500 samples of a.npz; tflite-int8 on 128 samples of b.npz" in told


def test_packed_inputs_alone_are_other_samples_too() -> None:
    artifacts = dict(zip(NAMES, (proved_on("a"), proved_on(None), proved_on("a")), strict=True))
    apart = set_apart(compare(), artifacts, counted=False)
    assert "ort-int8 on packed inputs alone" in apart.warnings[-1]
    row = apart.find("ort-int8")
    assert row is not None
    assert row.accuracy is None


def test_right_answers_that_were_counted_here_compare() -> None:
    artifacts = dict(zip(NAMES, (proved_on("a"), proved_on("a"), proved_on("b")), strict=True))
    assert judge(set_apart(compare(), artifacts, counted=True)).ship == "tflite-int8"
