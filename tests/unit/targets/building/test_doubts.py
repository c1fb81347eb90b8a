"""Evidence that is none is said to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.outputs.limit import Limit
from modelwright.core.outputs.states import State
from modelwright.core.outputs.tasks.roles import OutputRole, find_roles
from modelwright.targets.building.doubts import (
    doubt_limit,
    find_doubts,
    find_foreign_states,
    look_at,
    require_finite_answers,
    require_other_samples,
)

COUNT = 40


def look(samples: Any) -> Any:
    return look_at({"x": row[None]} for row in samples)


def doubt(samples: Any, logits: Any, labels: Any = None, calibrating: Any = ()) -> list[str]:
    answers = [{"logits": row[None]} for row in logits]
    used = frozenset(look(calibrating).digests)
    return find_doubts(look(samples), answers, find_roles(answers), labels, calibrating=used)


def make() -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    return generator.normal(0, 1, (COUNT, 3)), generator.normal(0, 1, (COUNT, 4))


def test_good_evidence_is_not_doubted() -> None:
    samples, logits = make()
    assert doubt(samples, logits, logits.argmax(axis=1)) == []
    samples[:3] = samples[3]
    assert doubt(samples, logits) == []
    assert doubt(samples, logits, calibrating=samples + 1) == []


@pytest.mark.parametrize("mask", [-1e9, -np.inf])
def test_scores_between_the_masked_ones_are_seen_to_move(mask: float) -> None:
    samples, logits = make()
    logits[:, 2:] = mask
    assert doubt(samples, logits) == []
    logits[:, :2] = logits[0, :2]
    assert doubt(samples, logits) == [
        "FP32's output logits is the same on all 40 samples: nothing shows whether it works"
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "repeated",
        "identical",
        "zeros",
        "constant",
        "rounding",
        "nan",
        "one answer",
        "one label",
        "wrong labels",
        "worse",
    ],
)
def test_what_shows_nothing_is_said(kind: str) -> None:
    samples, logits = make()
    labels = None
    if kind == "repeated":
        samples = np.repeat(samples[:4], 10, axis=0)
        expected = "only 4 of the 40 evaluation samples differ"
    elif kind == "identical":
        samples = np.repeat(samples[:1], 40, axis=0)
        expected = "all 40 evaluation samples are the same one"
    elif kind == "zeros":
        samples[:3] = 0.0
        expected = "3 of the 40 evaluation samples hold nothing but zeros"
    elif kind == "constant":
        logits = np.repeat(logits[:1], COUNT, axis=0)
        expected = "output logits is the same on all 40 samples"
    elif kind == "rounding":
        logits = np.repeat(logits[:1], COUNT, axis=0) * (1 + 1e-7 * logits)
        expected = "output logits is the same on all 40 samples"
    elif kind == "nan":
        logits[5, 1] = logits[7, 2] = np.nan
        expected = "output logits holds NaN on 2 of the 40 samples"
    elif kind == "one answer":
        logits[:, 2] = 9.0
        expected = "FP32 answers with class 2 on all 40 samples"
    elif kind == "one label":
        labels = np.full(COUNT, logits[0].argmax())
        expected = f"all 40 labels name class {labels[0]}"
    elif kind == "wrong labels":
        labels = logits.argmax(axis=1) + 10
        expected = "FP32 gets none of the 40 labels right"
    else:
        labels = (logits.argmax(axis=1) + 1) % 4
        labels[:3] = logits[:3].argmax(axis=1)
        expected = "FP32 gets 3 of the 40 labels right, fewer than guessing would"
    found = doubt(samples, logits, labels)
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(("count", "words"), [(1, "only 1 sample judges"), (3, "only 3 samples judge")])
def test_a_few_samples_are_said_to_be_few(count: int, words: str) -> None:
    samples, logits = make()
    found = doubt(samples[:count] * 0, logits[:count] * 0)
    assert len(found) == 1
    assert found[0].startswith(words)


def test_samples_that_calibrate_and_judge_are_counted() -> None:
    samples, logits = make()
    mixed = np.concatenate([samples[::-1][:10], samples[10:] + 1])
    found = doubt(samples, logits, calibrating=mixed)
    assert len(found) == 1
    assert found[0].startswith("10 of the 40 evaluation samples are also among those that calibrate")


def test_a_reordered_copy_is_no_other_file() -> None:
    samples, _ = make()
    with pytest.raises(BadInputError, match="all 40 samples of --eval are those of --samples") as caught:
        require_other_samples(look(samples), look(samples[::-1]))
    assert "leave out --eval" in str(caught.value.hint)
    require_other_samples(look(samples), look(samples[1:]))


def test_both_zeros_are_one_value() -> None:
    assert look(np.float32([[0.0, -0.0], [-0.0, 0.0]])).still == {"x"}
    assert look(np.float32([[0.0, -0.0], [-0.0, 1.0]])).still == set()


def test_a_state_that_never_changes_is_named() -> None:
    samples, logits = make()
    answers = [{"logits": row[None], "hn": row[None]} for row in logits]
    states = (State(output="hn", input="h"),)
    for state, named in ((np.zeros((COUNT, 1)), True), (samples, False)):
        judged = look_at({"x": row[None], "h": h} for row, h in zip(samples, state, strict=True))
        found = find_doubts(judged, answers, find_roles(answers, states=["hn"]), None, states=states)
        assert [text.startswith("input h is the same in all samples") for text in found] == [True] * named


@pytest.mark.parametrize(
    ("given", "own", "foreign"),
    [(1.0, 1.9, False), (1.0, 2.1, True), (1.0, 0.13, False), (1.0, 0.12, True), (0.0, 5.0, False)],
)
def test_states_that_the_model_does_not_make_are_named(given: float, own: float, foreign: bool) -> None:
    feeds = [{"x": np.full((1, 2), 99.0), "h": np.array([[0.0, -given / 2, given][index % 3 :]])} for index in range(3)]
    ends = [{"y": np.full((1, 2), 99.0), "hn": np.array([[-own, np.nan]])}]
    found = find_foreign_states(feeds, (State(output="hn", input="h"),), ends)
    said = f"h holds values up to {given:.3g} in the samples, and up to {own:.3g} when FP32 is fed with its own"
    assert found == ({"h": said} if foreign else {})


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_a_model_without_a_number_is_refused(value: float, word: str) -> None:
    broken = [{"y": np.full((1, 3), value, np.float32)} for _ in range(5)]
    with pytest.raises(BadInputError, match=f"on any of the 5 samples: output y is {word}"):
        require_finite_answers(broken)
    one_number = [*broken, {"y": np.array([[np.nan, 1.0, np.nan]], np.float32)}]
    require_finite_answers(one_number)
    require_finite_answers([answer | {"count": np.array([3])} for answer in broken])
    require_finite_answers([{"boxes": np.zeros((0, 4), np.float32)}])


CLASSES = {"y": OutputRole(name="y", role="classes", why="test", axis=1)}


@pytest.mark.parametrize(
    ("max_drop", "count", "words"),
    [
        (0.5, 200, None),
        (5.0, 20, None),
        (0.5, 20, "20 samples resolve 5 points, and --max-drop allows 0.5"),
        (0.5, 20, "give 200 or more with --eval"),
        (0.3, 20, "give 334 or more"),
        (0.0, 500, "a single lost answer is over it; give more with --eval"),
        (9.0, 1, "1 sample resolves 100 points"),
    ],
)
def test_what_samples_resolve_of_a_limit(max_drop: float, count: int, words: str | None) -> None:
    for by, right in (("accuracy", count), ("kept", None)):
        limit = Limit(max_drop=max_drop, by=by, evaluated=count)  # type: ignore[arg-type]  # both are
        found = doubt_limit(limit, CLASSES, right=right)
        assert len(found) == (words is not None)
        assert words is None or words in found[0]


def test_what_is_not_counted_in_samples_is_not_said_to_be() -> None:
    boxes = {"y": OutputRole(name="y", role="boxes", why="test", axis=None)}
    assert not doubt_limit(Limit(max_drop=0.5, by="kept", evaluated=8), boxes, right=None)


def test_labels_that_fp32_never_gets_right_set_no_limit() -> None:
    (found,) = doubt_limit(Limit(max_drop=5, by="kept", evaluated=100), CLASSES, right=0)
    assert "it gets none of the labels right" in found
