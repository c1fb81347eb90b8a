"""Flips, what they cost, and what the labels say to it."""

from __future__ import annotations

import numpy as np
import pytest
from answers import Array, compare, compare_several, kill, make_logits, make_masked, rng, softmax

from modelwright.core.outputs.fidelity import compare_outputs
from modelwright.core.outputs.tasks.judge import TaskFidelity
from modelwright.core.outputs.tasks.roles import find_roles


def make_task(classes: int, apart: float) -> tuple[Array, Array]:
    """Logits [3000, classes] of a classifier that is right now and then, and the right classes."""
    generator = rng()
    labels = generator.integers(0, classes, 3000)
    logits = generator.normal(0, 1, (3000, classes))
    logits[np.arange(3000), labels] += 0.75 * np.sqrt(2 * np.log(classes)) + generator.normal(apart, 1.6, 3000)
    return 1.5 * (logits - logits.mean(axis=1, keepdims=True)), labels


def judge(expected: Array, found: Array, labels: Array | None) -> TaskFidelity:
    sides = [[{"logits": row[None]} for row in side[:512]] for side in (expected, found)]
    known = None if labels is None else [int(label) for label in labels[:512]]
    seen = compare_outputs(*sides, find_roles(sides[0], labelled=labels is not None), known).task
    assert seen is not None
    return seen


def find_check(seen: TaskFidelity, measure: str) -> float:
    return next(check.value for check in seen.checks if check.measure == measure)


@pytest.mark.parametrize(("classes", "apart"), [(2, 0.6), (2, 2.0), (10, 2.0), (1000, 1.2)])
@pytest.mark.parametrize("decibels", [40, 30])
def test_noise_that_costs_no_accuracy_is_good_with_labels_and_without(
    classes: int, apart: float, decibels: float
) -> None:
    logits, labels = make_task(classes, apart)
    found = logits + np.random.default_rng(1).normal(0, logits.std() * 10 ** (-decibels / 20), logits.shape)
    drop = np.mean(found.argmax(axis=1) == labels) - np.mean(logits.argmax(axis=1) == labels)
    assert abs(drop) < 0.004, "the case is what it says"
    assert judge(logits, found, labels).severity <= 1.0
    assert judge(logits, found, None).severity <= 1.0


@pytest.mark.parametrize(
    ("count", "noise", "broken"),
    [(400, 0.3, False), (60, 0.3, True), (400, 0.5, True)],
    ids=["many labels", "few labels", "many labels, accuracy lost"],
)
def test_many_labels_decide_where_fp32_itself_is_in_doubt(count: int, noise: float, broken: bool) -> None:
    """As a network of a thousand classes on hard pictures: a fifth or a third of its answers become others."""
    logits, labels = (values[:count] for values in make_task(1000, 0.0))
    found = logits + rng().normal(0, noise, logits.shape)
    before, after = (side.argmax(axis=1) for side in (logits, found))
    assert 0.15 < np.mean(after != before) < 0.35
    drop = np.mean(before == labels) - np.mean(after == labels)
    assert bool(drop >= 0.03) is broken
    seen = judge(logits, found, labels)
    assert seen.is_broken is broken
    assert seen.severity > 1.0


@pytest.mark.parametrize(("classes", "apart", "shift"), [(2, 0.6, 2.5), (2, 2.0, 3.0), (10, 2.0, 3.0)])
def test_what_costs_three_points_is_broken_with_labels_and_without(classes: int, apart: float, shift: float) -> None:
    logits, labels = make_task(classes, apart)
    found = logits + shift * (np.arange(classes) == 0)
    drop = np.mean(found.argmax(axis=1) == labels) - np.mean(logits.argmax(axis=1) == labels)
    assert drop < -0.03, "the case is what it says"
    assert judge(logits, found, labels).is_broken
    assert judge(logits, found, None).is_broken


def test_a_flip_costs_what_fp32_holds_the_other_answer_for_less_likely() -> None:
    expected = np.log(np.array([[0.6, 0.4]] * 90 + [[0.9, 0.1]] * 10))
    turned = expected.copy()
    turned[-4:] = turned[-4:, ::-1]
    # 4 of 100 rows, each from 0.9 to 0.1; what margins and errors lead one to expect counts for 200 rows beside them.
    seen = compare(expected, turned, "logits")
    assert "regret" in {check.measure for check in seen.checks}
    nearly = expected + np.random.default_rng(0).normal(0, 1e-3, expected.shape)
    assert find_check(compare(expected, nearly, "logits"), "regret") < 1e-9
    assert find_check(seen, "regret") > 0.8 * 4 / 300


def test_flips_that_are_only_expected_are_not_told_as_seen() -> None:
    expected = np.tile([1.0, 0.0], (40, 1)) * np.where(np.arange(40) % 2, 1.0, -1.0)[:, None]
    found = expected + 0.49 * np.where(np.arange(40) % 4 < 2, 1.0, -1.0)[:, None] * [1.0, -1.0]
    seen = compare(expected, found, "logits")
    text = next(check.text for check in seen.checks if check.measure == "flips")
    assert text.startswith("about ")
    assert text.endswith("by the margins and errors seen here, where 0 of 40 do")
    turned = compare(expected, expected[::-1].copy(), "logits")
    text = next(check.text for check in turned.checks if check.measure == "flips")
    assert text.startswith("40 of 40 samples get another class than FP32's (")


def test_scores_that_are_only_flatter_turn_no_answer() -> None:
    logits = make_logits(10, 32)
    seen = compare(logits, logits / 2)
    assert seen.kept == 1.0
    assert find_check(seen, "flips") < 1e-9
    assert 1.0 < seen.severity < 2.0, "half of the confidence is gone"


@pytest.mark.parametrize("count", [48, 400])
def test_a_tenth_of_wrong_answers_is_broken(count: int) -> None:
    logits = make_logits(10, count)
    wrong = logits.copy()
    chosen = np.random.default_rng(1).permutation(count)[: -(-count // 10)]
    wrong[chosen] = np.roll(wrong[chosen], 1, axis=1)
    assert compare(logits, wrong).is_broken
    assert compare(softmax(logits), softmax(wrong)).is_broken
    labels = {"label": logits.argmax(axis=1)[:, None]}
    seen = compare_several(labels, {"label": wrong.argmax(axis=1)[:, None]})
    assert seen.is_broken
    assert seen.worst is not None
    assert f"{len(chosen)} of {count}" in seen.worst.text


def test_of_many_classes_one_misses_a_few_by_chance() -> None:
    """Every class is found in 19 of 20 rows, but for what chance does."""
    generator = rng()
    answers = generator.integers(0, 100, 3000)
    scores = np.where(np.arange(100) == answers[:, None], 6.0, 0.0) + generator.normal(0, 0.1, (3000, 100))
    other = np.where(generator.random(3000) < 0.02, (answers + 1) % 100, answers)
    found = np.where(np.arange(100) == other[:, None], 6.0, 0.0)
    measures = {check.measure: check for check in compare(scores, found).checks}
    assert measures["recall"].severity < 1.0, measures["recall"]
    lost = np.where(answers == 7, 8, answers)
    broken = compare(scores, np.where(np.arange(100) == lost[:, None], 6.0, 0.0))
    assert broken.is_broken
    assert any("class 7 is found in 0 of" in check.text for check in broken.checks)


def test_a_class_that_fp32_never_names_cannot_be_lost() -> None:
    """Two samples of 200 get it all the same: two answers are wrong, and that is all."""
    values = softmax(np.pad(3 * make_logits(6, 200), ((0, 0), (0, 50)), constant_values=-20.0))
    other = values.copy()
    other[:2] = np.where(np.arange(56) == 40, 0.7, 0.3 * values[:2])
    seen = compare(values, other)
    assert 1.0 < seen.severity < 2.0, seen.checks[:3]
    assert compare(values, kill(values, np.s_[:, 3], 0.0)).is_broken


def test_any_number_that_masks_will_do() -> None:
    masked = make_masked(-3.4e38)
    assert compare(masked, np.where(masked < -1e38, -65504.0, masked)).severity < 1e-9
    assert compare(masked, np.where(masked < -1e38, 5.0, masked)).is_broken
