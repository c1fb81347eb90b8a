"""What is lost against FP32: counted with known answers, and expected so that what passes now passes later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from modelwright.core.outputs.drop import (
    Drop,
    Expectation,
    check_limit,
    count_drop,
    expect_drop,
    expect_metric_drop,
    metric_drop,
)
from modelwright.core.outputs.fidelity import Fidelity, compare_outputs
from modelwright.core.outputs.limit import Limit, Metric
from modelwright.core.outputs.tasks.judge import AnswerLoss, TaskFidelity
from modelwright.core.outputs.tasks.roles import OutputRole

ROLE = {"y": OutputRole(name="y", role="classes", why="test", axis=1)}
ACCURACY = Limit(max_drop=0.5, by="accuracy", evaluated=512)
KEPT = Limit(max_drop=0.5, by="kept", evaluated=512)


def compare(wanted: Any, found: Any, labels: Any = None) -> Fidelity:
    as_rows = ([{"y": np.float32(row)[None]} for row in values] for values in (wanted, found))
    return compare_outputs(*as_rows, ROLE, None if labels is None else map(int, labels))


def task_of(wanted: Any, found: Any, labels: Any = None) -> TaskFidelity:
    task = compare(wanted, found, labels).task
    assert task is not None
    return task


def one_hot(classes: Any, height: float = 4.0) -> Any:
    return height * np.eye(4)[classes]


@pytest.fixture
def hundred() -> Fidelity:
    """FP32 and a candidate that answers 3 of 100 samples otherwise."""
    wanted = np.arange(100) % 4
    found = wanted.copy()
    found[:3] = (found[:3] + 1) % 4
    return compare(one_hot(wanted), one_hot(found))


@pytest.mark.parametrize(
    ("correct", "fp32", "points"), [(77, 78, 1.0), (78, 78, 0.0), (80, 78, -2.0), (0, 78, 78.0), (1, 1, 0.0)]
)
def test_right_answers_that_are_lost(hundred: Fidelity, correct: int, fp32: int, points: float) -> None:
    drop = count_drop(hundred, correct, fp32, 100)
    assert drop is not None
    assert (drop.by, drop.measure, drop.points) == ("accuracy", "accuracy", points)
    assert (drop.fp32, drop.artifact) == (fp32 / 100, correct / 100)


@pytest.mark.parametrize(("correct", "fp32"), [(None, None), (0, 0), (60, 0)])
def test_where_fp32_is_never_right_its_answers_are_what_can_be_lost(
    hundred: Fidelity, correct: int | None, fp32: int | None
) -> None:
    drop = count_drop(hundred, correct, fp32, 100)
    assert drop is not None
    assert (drop.by, drop.measure, drop.points) == ("kept", "agreement with FP32", 3.0)


@pytest.mark.parametrize(
    ("max_points", "over"), [(0.0, True), (2.999, True), (3.0, False), (3.5, False), (None, False)]
)
def test_a_limit_is_held_to_the_point(hundred: Fidelity, max_points: float | None, over: bool) -> None:
    drop = count_drop(hundred, None, None, 100, max_points)
    assert drop is not None
    assert drop.is_over is over


def test_roundings_of_another_runtime_lose_nothing() -> None:
    wanted = np.random.default_rng(0).standard_normal((50, 3))
    role = {"y": OutputRole(name="y", role="regression", why="test", axis=None)}
    rows = ([{"y": np.float32(row)[None]} for row in values] for values in (wanted, wanted * (1 + 1e-6)))
    drop = count_drop(compare_outputs(*rows, role), None, None, 50, 0.0)
    assert drop is not None
    assert drop.measure == "R squared"
    assert not drop.is_over


def test_nothing_is_known_where_fp32_gives_no_answer(hundred: Fidelity) -> None:
    assert hundred.task is not None
    silent = replace(hundred, task=replace(hundred.task, kept=None))
    assert count_drop(silent, None, None, 100, 0.5) is None
    assert count_drop(replace(hundred, task=None), None, None, 100, 0.5) is None


@pytest.mark.parametrize(
    ("higher", "per_unit", "fp32", "found", "points"),
    [
        (True, None, 0.374, 0.369, 0.5),
        (False, None, 0.05, 0.06, 1.0),
        (True, 1.0, 37.4, 36.9, 0.5),
        (False, 1, 9, 7, -2),
    ],
)
def test_a_metric_counts_in_its_own_direction_and_unit(
    higher: bool, per_unit: float | None, fp32: float, found: float, points: float
) -> None:
    metric = Metric(
        path=Path("/home/ann/m.py"), function="f", sha256="0" * 64, higher_is_better=higher, points_per_unit=per_unit
    )
    drop = metric_drop(Limit(max_drop=0.5, by="metric", evaluated=9, metric=metric), fp32, found)
    assert drop.points == pytest.approx(points)
    assert drop.is_over is (points > 0.5)
    assert drop.measure == "m.py:f"


def test_what_changes_no_answer_is_expected_to_lose_nothing() -> None:
    wanted = one_hot(np.arange(64) % 4)
    for limit in (ACCURACY, KEPT, replace(KEPT, max_drop=0.0, evaluated=4)):
        expected = expect_drop(limit, task_of(wanted, 1.5 * wanted))
        assert expected is not None
        assert expected.loss == 0.0
        assert check_limit(limit, expected, task_of(wanted, wanted)).severity == 0.0


def noisy(rng: Any, count: int, noise: float) -> tuple[Any, Any, Any]:
    """Returns scores of FP32 in two classes, a candidate's, and labels that FP32 gets right as often as it thinks."""
    margin = rng.normal(0.0, 4.0, count)
    scores = np.stack([margin / 2, -margin / 2], axis=1)
    labels = (rng.random(count) > 1 / (1 + np.exp(-margin))).astype(int)
    return scores, scores + rng.normal(0.0, noise, scores.shape), labels


def test_no_flip_seen_on_few_samples_proves_nothing() -> None:
    """64 samples of which none flips, where margins and errors say that one in a hundred does."""
    rng = np.random.default_rng(5)
    scores, found, labels = noisy(rng, 64, 0.1)
    task = task_of(scores, found, labels)
    assert task.kept == 1.0
    expected = expect_drop(KEPT, task)
    assert expected is not None
    assert 0.002 < expected.loss < 0.02
    assert check_limit(KEPT, expected, task).severity > 1.0


def test_one_right_answer_lost_of_64_is_mostly_chance() -> None:
    """Margins expect 1 % of the answers to change, and as many won as lost; one of 64 lost is 1.56 points."""
    wanted = one_hot(np.arange(64) % 4)
    answers = AnswerLoss(
        output="y", rows=64, differing=1, expected_flips=0.01, expected_regret=0.0, labelled=64, lost=1, won=0
    )
    expected = expect_drop(ACCURACY, replace(task_of(wanted, wanted), answers=(answers,)))
    assert expected is not None
    # Changed: (1 + 200 * 0.01) / 264 = 1.136 %; doubt (0.284 points)^2, chance 1.136 % / 64 = (1.33 points)^2.
    assert expected.loss == pytest.approx(0.015625 * 0.0807 / (0.0807 + 1.7756), rel=1e-2)
    assert expected.margin == pytest.approx(0.6745 * (0.01136 * 0.98864 / 512) ** 0.5, rel=1e-2)


@pytest.mark.parametrize(("each", "worth"), [(1, 1.0), (11, 5.5), (1001, 1001 / 101)])
def test_many_answers_of_one_sample_are_worth_up_to_ten_samples(each: int, worth: float) -> None:
    wanted = one_hot(np.arange(64) % 4)
    answers = AnswerLoss(
        output="y", rows=64 * each, differing=0, expected_flips=0.01, expected_regret=0.0, labelled=0, lost=0, won=0
    )
    expected = expect_drop(KEPT, replace(task_of(wanted, wanted), answers=(answers,)))
    assert expected is not None
    assert expected.margin == pytest.approx(
        0.6745 * (expected.loss * (1 - expected.loss) / (512 * worth)) ** 0.5, rel=1e-3
    )


@pytest.mark.parametrize(("by", "labelled"), [("accuracy", True), ("accuracy", False), ("kept", False)])
def test_what_passes_on_the_samples_that_choose_mostly_passes_on_those_that_judge(by: Any, labelled: bool) -> None:
    rng = np.random.default_rng(11)
    limit = Limit(max_drop=2.0, by=by, evaluated=256)
    passed = held = refused = 0
    for noise in np.repeat([0.01, 0.03, 0.1, 0.2, 0.4, 0.8], 4):
        chosen, judged = noisy(rng, 64, noise), noisy(rng, 256, noise)
        task = task_of(*chosen[:2], chosen[2] if labelled else None)
        expected = expect_drop(limit, task)
        assert expected is not None
        if check_limit(limit, expected, task).severity > 1.0:
            refused += 1
            continue
        passed += 1
        answers = [np.argmax(scores, axis=1) for scores in judged[:2]]
        right = [int(np.sum(answer == judged[2])) for answer in answers]
        lost = right[0] - right[1] if by == "accuracy" else int(np.sum(answers[0] != answers[1]))
        held += 100 * lost / 256 <= limit.max_drop
    assert passed >= 6, "or the limit would cost speed for nothing"
    assert refused >= 4, "or it would refuse nothing"
    assert held >= 0.85 * passed


def test_of_few_samples_that_judge_not_one_may_be_lost() -> None:
    wanted = one_hot(np.arange(64) % 4)
    task = task_of(wanted, wanted)
    limit = replace(KEPT, evaluated=20)
    assert check_limit(limit, Expectation(loss=0.0, margin=0.0), task).severity == 0.0
    assert check_limit(limit, Expectation(loss=0.02, margin=0.03), task).severity > 1.0
    # The same loss is within 5 points, which one of 20 is.
    assert check_limit(replace(limit, max_drop=5.0), Expectation(loss=0.02, margin=0.03), task).severity < 1.0


def test_beyond_the_limit_without_any_bad_luck_a_candidate_is_broken() -> None:
    wanted = one_hot(np.arange(64) % 4)
    task = task_of(wanted, wanted)
    allowed = 2.5 / 512  # of which two may be lost
    between = check_limit(KEPT, Expectation(loss=0.9 * allowed, margin=0.2 * allowed), task)
    beyond = check_limit(KEPT, Expectation(loss=1.1 * allowed, margin=0.2 * allowed), task)
    assert 1.0 < between.severity < 2.0
    assert beyond.is_broken
    assert "0.54 points of agreement" in beyond.text


def test_a_metric_that_scatters_over_parts_needs_room() -> None:
    metric = Metric(path=Path("m.py"), function="f", sha256="0" * 64)
    limit = Limit(max_drop=1.0, by="metric", evaluated=64, metric=metric)
    fp32 = [0.9] * 5
    steady = expect_metric_drop(limit, fp32, [0.895] * 5, 64, None)
    assert (steady.loss, steady.margin) == (pytest.approx(0.005), pytest.approx(0.0))
    scattered = expect_metric_drop(limit, fp32, [0.895, 0.89, 0.90, 0.885, 0.905], 64, None)
    # Lost: 1, 0, 1.5, -0.5 points; deviation 0.913, of the mean of four 0.456; of other samples 0.645.
    assert scattered.margin == pytest.approx(0.00435, abs=1e-4)
    nothing_seen = expect_metric_drop(limit, fp32, fp32, 64, Expectation(loss=0.004, margin=0.003))
    assert (nothing_seen.loss, nothing_seen.margin) == (0.004, 0.003)


def test_figures_in_words() -> None:
    drop = Drop(by="accuracy", measure="accuracy", fp32=0.78125, artifact=0.77, points=1.125, count=512, max_points=0.5)
    assert drop.describe() == "accuracy 78.12% to 77.00%, 1.125 points lost on 512 samples"
    better = replace(drop, points=-0.4, artifact=0.78525)
    assert better.describe() == "accuracy 78.12% to 78.53%, 0.4 points won on 512 samples"
    assert replace(drop, points=1.0, artifact=0.77125).describe().endswith(" 1 point lost on 512 samples")
    assert replace(drop, points=0.0).describe().endswith(" 0 points lost on 512 samples")
