"""An FP32 model that takes too long for its samples is refused early, and what is said to help does; scripted times."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import Part, SampleRef, open_samples
from modelwright.targets.building import evidence

SIGNATURE = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 2)),), outputs=())


@pytest.mark.parametrize(
    ("part", "count", "words", "hint", "mended"),
    [
        ("evaluation", 200, "100 samples", "--eval-limit", {"limit": 40}),
        ("tuning", 400, "50 samples", "fewer --samples", {"count": 160}),
    ],
)
def test_fewer_samples_of_the_part_that_takes_too_long_are_answered(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: Part,
    count: int,
    words: str,
    hint: str,
    mended: dict[str, int],
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def run(_feeds: Any) -> dict[str, Any]:
        now[0] += 40.0
        return {}

    def answer(count: int = count, limit: int | None = None) -> int:
        np.savez(tmp_path / "s.npz", x=np.zeros((count, 2), np.float32))
        samples = open_samples(SampleRef(path=tmp_path / "s.npz", part=part, limit=limit), SIGNATURE)
        model: Any = SimpleNamespace(path="m.onnx", run=run)
        return len(list(evidence._answer(model, samples, evidence._FEWER[part])))

    with pytest.raises(BadInputError, match=rf"takes 40 s a sample, so {words} would take more than 30 min") as caught:
        answer()
    assert now[0] < 100, "it is told early"
    assert hint in (caught.value.hint or "")
    assert answer(**mended) > 0
