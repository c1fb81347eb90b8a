from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from modelwright.core.errors import MeasurementInvalidError
from modelwright.core.records.artifact import Artifact, ProvenancePart, SampleProvenance
from modelwright.harness.measuring import _replace_failed, _warn_of_samples
from modelwright.harness.run.measure_artifacts import Measured


def test_a_failed_first_artifact_is_no_baseline() -> None:
    failed = [Measured(name="a", failure=MeasurementInvalidError("crashed"))]
    assert _replace_failed("a", ["a", "b", "c"], failed) == "b"
    assert _replace_failed("b", ["a", "b", "c"], failed) == "b"


def proved_on(letter: str | None, count: int = 500) -> Artifact:
    part = None
    if letter is not None:
        part = ProvenancePart(path=f"{letter}.npz", count=count, sha256=letter * 64, labels=True, shapes={})
    samples = SampleProvenance(evaluation=part)
    return cast(Artifact, SimpleNamespace(manifest=SimpleNamespace(samples=samples)))


def test_proofs_on_different_samples_are_told_apart() -> None:
    """48.4 % of 500 samples and 51.6 % of 128 others are no difference between two artifacts."""
    assert _warn_of_samples({"a": proved_on("a"), "b": proved_on("a")}) == []
    (told,) = _warn_of_samples({"a": proved_on("a"), "b": proved_on("b", 128), "c": proved_on("a")})
    assert "a, c on 500 samples of a.npz; b on 128 samples of b.npz" in told
    assert "packed inputs alone" in _warn_of_samples({"a": proved_on("a"), "b": proved_on(None)})[0]
