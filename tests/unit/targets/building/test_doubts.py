"""Evidence that is none is said to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelwright.core.outputs.tasks.roles import find_roles
from modelwright.targets.building.doubts import find_doubts

COUNT = 40


def doubt(samples: Any, logits: Any, labels: Any = None) -> list[str]:
    answers = [{"logits": row[None]} for row in logits]
    return find_doubts([{"x": row[None]} for row in samples], answers, find_roles(answers), labels)


def make() -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    return generator.normal(0, 1, (COUNT, 3)), generator.normal(0, 1, (COUNT, 4))


def test_good_evidence_is_not_doubted() -> None:
    samples, logits = make()
    assert doubt(samples, logits, logits.argmax(axis=1)) == []
    samples[:3] = samples[3]
    assert doubt(samples, logits) == []


@pytest.mark.parametrize("kind", ["repeated", "zeros", "constant", "one answer", "one label", "wrong labels"])
def test_what_shows_nothing_is_said(kind: str) -> None:
    samples, logits = make()
    labels = None
    if kind == "repeated":
        samples = np.repeat(samples[:4], 10, axis=0)
        expected = "only 4 of the 40 evaluation samples differ"
    elif kind == "zeros":
        samples[:3] = 0.0
        expected = "3 of the 40 evaluation samples hold nothing but zeros"
    elif kind == "constant":
        logits = np.repeat(logits[:1], COUNT, axis=0)
        expected = "output logits is the same on all 40 samples"
    elif kind == "one answer":
        logits[:, 2] = 9.0
        expected = "FP32 answers with class 2 on all 40 samples"
    elif kind == "one label":
        labels = np.full(COUNT, 1)
        expected = "all 40 labels name class 1"
    else:
        labels = logits.argmax(axis=1) + 10
        expected = "FP32 gets none of the 40 labels right"
    found = doubt(samples, logits, labels)
    assert len(found) == 1
    assert expected in found[0]


def test_a_few_samples_are_not_doubted() -> None:
    samples, logits = make()
    assert doubt(samples[:3] * 0, logits[:3] * 0) == []
