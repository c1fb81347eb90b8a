"""Right tags and right sets of classes: known answers, entities as seqeval counts them, and what fools a count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.core.outputs.label_fit import LabelFit, LabelMeter, find_entities
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.records.texts import IGNORED, TextInputs
from modelwright.core.samples.sample_set import SampleRef, open_samples

Array = np.ndarray[Any, Any]
NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def fit(
    folder: Path,
    right: Sequence[Sequence[int]],
    found: Sequence[Array],
    fp32: Sequence[Array] | None = None,
    *,
    names: Sequence[str] = NAMES,
    kind: str = "tags",
) -> LabelFit | None:
    """Returns the figures; answers are of one sample each, batch dimension included."""
    arrays = {"x": np.zeros((len(right), 1), np.float32), f"target_{kind}": np.array(right)}
    np.savez(folder / "s.npz", **arrays)  # type: ignore[arg-type]
    signature = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 1)),), outputs=())
    samples = open_samples(SampleRef(path=folder / "s.npz"), signature)
    task: Any = "token classification" if kind == "tags" else "multi-label classification"
    model = TextInputs(task=task, inputs=("x",), classes=tuple(names), vocabulary=9, most_tokens=8)
    meter = LabelMeter(samples, model)
    for position, row in enumerate(samples.rows):
        meter.add(position, {"y": found[row]}, {"y": (fp32 or found)[row]})
    return meter.result()


def say(*tags: int) -> Array:
    """Returns scores whose largest one in each row is that of a tag."""
    return np.eye(len(NAMES), dtype=np.float32)[list(tags)][None]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        ("I-PER I-PER", {("PER", 0, 1)}),
        ("B-PER I-LOC", {("PER", 0, 0), ("LOC", 1, 1)}),
        ("O I-PER O I-PER", {("PER", 1, 1), ("PER", 3, 3)}),
        ("S-PER I-PER E-PER", {("PER", 0, 0), ("PER", 1, 2)}),
        ("B-PER E-PER I-PER", {("PER", 0, 1), ("PER", 2, 2)}),
        ("U-LOC B-LOC L-LOC", {("LOC", 0, 0), ("LOC", 1, 2)}),
        ("O O", set()),
    ],
)
def test_entities_are_those_of_conlleval(tags: str, expected: set[tuple[str, int, int]]) -> None:
    assert find_entities(tags.split()) == expected


def test_words_and_entities_have_known_answers(tmp_path: Path) -> None:
    right = [[IGNORED, 1, 2, IGNORED, 0], [IGNORED, 3, 0, 0, IGNORED]]
    found = fit(tmp_path, right, [say(4, 1, 2, 4, 0), say(4, 3, 3, 0, 4)], [say(0, 1, 0, 0, 0), say(0, 3, 0, 0, 0)])
    assert found is not None
    assert (found.of, found.count, found.correct, found.sought) == ("words", 6, 5, 2)
    assert found.accuracy == pytest.approx(5 / 6)
    assert found.accuracy_fp32 == pytest.approx(5 / 6)
    assert found.f1 == pytest.approx(2 * 2 / (3 + 2)), "both are found, and one that is none"
    assert found.f1_fp32 == pytest.approx(2 * 1 / (2 + 2)), "the first ends a word too early"
    assert found.accuracy_ci95 == (pytest.approx(2 / 3), 1.0), "of two texts three are drawn: each twice, or both"
    assert "83.33 % (95 % interval 66.67 to 100.00) of 6 words right, FP32 83.33 %; F1 80.00 %" in found.describe()
    assert found.describe().endswith("of 2 entities, FP32 50.00 %")


def test_the_interval_is_of_texts_whose_words_are_right_together(tmp_path: Path) -> None:
    right = [[1] * 50] * 20
    found = fit(tmp_path, right, [say(*[1 if row % 2 else 0] * 50) for row in range(20)])
    assert found is not None
    low, high = found.accuracy_ci95
    assert found.accuracy == 0.5
    assert high - low > 0.35, "of a thousand words alone it would be 0.06"


def test_no_answer_is_no_right_one_and_tags_without_places_name_no_entities(tmp_path: Path) -> None:
    lost = np.full((1, 2, 5), np.nan, np.float32)
    found = fit(tmp_path, [[1, 0], [3, 0]], [lost, np.zeros((1, 0, 5), np.float32)], [say(1, 0), say(3, 0)])
    assert found is not None
    assert (found.correct, found.accuracy, found.accuracy_fp32) == (0, 0.0, 1.0)
    assert (found.f1, found.f1_fp32) == (0.0, 1.0)
    found = fit(tmp_path, [[1, 0]], [say(1, 0)], names=("DET", "NOUN", "VERB", "ADJ", "ADV"))
    assert found is not None
    assert (found.accuracy, found.f1, found.sought) == (1.0, None, 0)
    assert "F1" not in found.describe()
    assert fit(tmp_path, [[IGNORED] * 2], [say(1, 0)]) is None


def test_a_set_of_classes_is_right_as_a_whole_and_its_classes_each(tmp_path: Path) -> None:
    right = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1]]
    found = [
        np.array([row], np.float32) for row in ([0.9, 0.1, 0.5], [0.4, 0.2, 0.1], [0.6, 0.7, 0.0], [0.1, 0.2, 0.4])
    ]
    got = fit(tmp_path, right, found, names=("a", "b", "c"), kind="classes")
    assert got is not None
    assert (got.of, got.count, got.correct, got.sought) == ("texts", 4, 2, 4)
    assert got.f1 == pytest.approx(2 * 3 / (4 + 4))
    assert " of 4 texts right" in got.describe()
    assert " of 4 labels" in got.describe()
