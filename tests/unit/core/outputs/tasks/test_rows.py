"""Detections of every layout, and what stands beside them: matched before anything is compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from answers import COUNT, Array, compare_by_task, kill, make_detector, rank_detections, rng, softmax

from modelwright.core.outputs.fidelity import Fidelity, compare_outputs, explain_broken
from modelwright.core.outputs.tasks.roles import find_roles
from modelwright.core.outputs.tasks.rows import RowFormat

Sample = dict[str, Array]


def compare_samples(expected: list[Sample], found: list[Sample]) -> Fidelity:
    return compare_outputs(expected, found, find_roles(expected))


def find_format(samples: list[Sample], name: str) -> RowFormat:
    rows = find_roles(samples)[name].rows
    assert rows is not None
    return rows


def to_logits(shares: Array) -> Array:
    clipped = np.clip(shares, 1e-3, 1 - 1e-3)
    return np.asarray(np.log(clipped / (1 - clipped)))


def one_output(values: Array) -> list[Sample]:
    return [{"output0": row[None]} for row in values]


def split(rows: Array, *, batched: bool) -> Sample:
    """Returns one sample's boxes, scores and labels; without a batch as torchvision gives them."""
    parts = {"boxes": rows[:, :4], "scores": rows[:, 4], "labels": rows[:, 5].astype(np.int64)}
    return {name: value[None] if batched else value for name, value in parts.items()}


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_a_count_that_never_changed_in_fp32_may_change(batched: bool, count: int) -> None:
    ranked = rank_detections(make_detector(), count + 1)
    expected = [split(rows[:count], batched=batched) for rows in ranked]
    one_more = [*expected[:-1], split(ranked[-1], batched=batched)]
    seen = compare_samples(expected, one_more)
    assert seen.task is not None
    assert seen.task.severity < 1.0, seen.task.worst
    assert explain_broken(seen) is None
    if count > 1:
        lost = compare_samples(expected, [split(rows[: count - 1], batched=batched) for rows in ranked])
        assert "detections are lost" in (explain_broken(lost) or "")


def test_a_sample_without_detections_may_come_first() -> None:
    ranked = rank_detections(make_detector(), 3)
    expected = [split(rows[: index % 3], batched=False) for index, rows in enumerate(ranked)]
    assert compare_samples(expected, expected).task.severity < 1e-9  # type: ignore[union-attr]
    none = [split(rows[:0], batched=False) for rows in ranked]
    assert "loses 54 of its 54 detections" in (explain_broken(compare_samples(expected, none)) or "")


def make_masks(rows: int) -> Array:
    """[samples, rows, 1, 14, 14] probabilities."""
    inside = np.repeat(np.repeat(rng().random((COUNT, rows, 1, 7, 7)) > 0.5, 2, axis=3), 2, axis=4)
    return np.where(inside, 0.95, 0.04)


def test_masks_follow_the_boxes_that_they_stand_beside() -> None:
    ranked, masks = rank_detections(make_detector(), 3), make_masks(3)
    points = rng().uniform(0, 200, (COUNT, 3, 5, 2))
    orders = [np.random.default_rng(index).permutation(3) for index in range(COUNT)]

    def build(rows: list[Array], beside: list[Array], spots: list[Array]) -> list[Sample]:
        return [
            {**split(row, batched=False), "masks": mask, "keypoints": spot, "ids": np.rint(row[:, :1]).astype(np.int64)}
            for row, mask, spot in zip(rows, beside, spots, strict=True)
        ]

    expected = build(list(ranked), list(masks), list(points))
    turned = [[value[order] for value, order in zip(side, orders, strict=True)] for side in (ranked, masks, points)]
    moved = compare_samples(expected, build(*turned))
    assert moved.task is not None
    assert moved.task.severity < 1e-9
    assert explain_broken(moved) is None, "nor by the numbers beside the boxes, whose rows have changed places too"
    for broken in (
        build(list(ranked), turned[1], list(points)),
        build(list(ranked), list(masks), turned[2]),
        build(list(ranked), list(masks * (np.arange(14) < 7)), list(points)),
    ):
        seen = compare_samples(expected, broken).task
        assert seen is not None
        assert seen.is_broken
        assert seen.worst is not None
        assert seen.worst.output in ("masks", "keypoints")


@pytest.mark.parametrize("turned", [False, True])
def test_heads_with_logits_for_scores(turned: bool) -> None:
    values = make_detector()
    values[..., 4:] = to_logits(values[..., 4:])

    def turn(array: Array) -> list[Sample]:
        return one_output(array.transpose(0, 2, 1) if turned else array)

    expected = turn(values)
    rows = find_format(expected, "output0")
    assert (rows.scale, rows.scores, rows.turned, rows.threshold) == ("sigmoid", 3, turned, 0.25)
    noise = rng().normal(0, 1, values.shape) * np.r_[0.3, 0.3, 0.3, 0.3, 0.1, 0.1, 0.1]
    assert compare_by_task(expected, turn(values + noise)).severity < 1.0
    dead = compare_by_task(expected, turn(kill(values, np.s_[..., 5], -6.0)))
    assert dead.worst is not None
    assert "class 1 loses" in dead.worst.text


def test_columns_behind_the_scores_are_none() -> None:
    """The coefficients of masks, as YOLO's segmentation has them, are larger than any score."""
    beside = rng().normal(0, 1.5, (COUNT, 120, 8))
    expected = one_output(np.concatenate([make_detector(), beside], axis=2))
    assert find_format(expected, "output0").scores == 3
    lost = one_output(np.concatenate([kill(make_detector(), np.s_[..., 5], 0.0), beside], axis=2))
    assert compare_by_task(expected, lost).is_broken


def test_an_objectness_counts_with_the_class() -> None:
    values = make_detector()
    sure = values[..., 4:].max(axis=2, keepdims=True)
    classes = rng().uniform(0.6, 1.0, (COUNT, 120, 1)) * (np.arange(3) == rng().integers(0, 3, (COUNT, 120, 1)))
    expected = one_output(np.concatenate([values[..., :4], sure, classes], axis=2))
    rows = find_format(expected, "output0")
    assert rows.objectness
    shown = sum(int((rows.read(sample["output0"][0])[0] >= 0.25).sum()) for sample in expected)
    assert 3 * COUNT < shown <= 4 * COUNT
    dim = one_output(np.concatenate([values[..., :4], sure * 0.1, classes], axis=2))
    assert compare_by_task(expected, dim).is_broken


@pytest.mark.parametrize(("place", "as_logits"), [(0, False), (3, False), (3, True)])
def test_a_class_of_nothing_is_no_detection(place: int, as_logits: bool) -> None:
    """SSD has it first, DETR last; its boxes are anywhere."""
    values = make_detector()
    nothing = np.where(values[..., 4:].max(axis=2, keepdims=True) > 0.3, -1.0, 4.0)
    logits = np.insert(to_logits(values[..., 4:]), [place], nothing, axis=2)
    scores = logits if as_logits else softmax(logits)
    name = "logits" if as_logits else "scores"
    expected = [{"boxes": row[None, :, :4], name: score[None]} for row, score in zip(values, scores, strict=True)]
    assert find_format(expected, "boxes").background == place
    empty = np.argmax(scores, axis=2) == place
    elsewhere = values[..., :4] + np.where(empty, 60.0, 0.0)[..., None] * rng().normal(0, 1, (COUNT, 120, 1))
    found = [{"boxes": row[None], name: score[None]} for row, score in zip(elsewhere, scores, strict=True)]
    measures = {check.measure: check.severity for check in compare_by_task(expected, found).checks}
    assert measures["lost"] == measures["found"] == measures["box_error"] == 0.0


def test_several_heads_each_count() -> None:
    """YOLO's three sizes as outputs of their own."""
    values = make_detector()
    parts = {"large": np.s_[:, :40], "medium": np.s_[:, 40:80], "small": np.s_[:, 80:]}

    def build(array: Array) -> list[Sample]:
        return [{name: array[part][index][None] for name, part in parts.items()} for index in range(COUNT)]

    expected = build(values)
    assert compare_by_task(expected, expected).detection == ("large", "medium", "small")
    seen = compare_by_task(expected, build(kill(values, np.s_[:, 80:, 4:], 0.0)))
    assert seen.worst is not None
    assert seen.worst.output == "small"


def test_a_foreign_format_is_read_without_harm() -> None:
    """A record may come from anywhere."""
    rows: Any = np.full((3, 6), np.nan)
    for extra in ({"scores": 2**62}, {"background": 10**9, "scores": 2}, {"numbered": True}, {"objectness": True}):
        scores, classes = RowFormat(outputs=("o",), **extra).read(rows)
        assert scores.shape == classes.shape == (3,)


def test_images_of_nothing_between_those_of_something() -> None:
    """Their best rows, at a score of 0.05, change places with every rounding: no detector shows them."""
    values = make_detector()
    empty = np.arange(COUNT) % 3 > 0
    values[empty, :, 4:] = rng().uniform(0.02, 0.05, values[empty, :, 4:].shape)
    values[~empty, :, 4:] = np.where(np.cumsum(values[~empty, :, 4:] > 0.3, axis=1) > 1, 0.01, values[~empty, :, 4:])
    expected = one_output(values)
    assert find_format(expected, "output0").threshold == 0.25
    noise = rng().normal(0, 1, values.shape) * np.r_[0.3, 0.3, 0.3, 0.3, 0.006, 0.006, 0.006]
    assert compare_by_task(expected, one_output(values + noise)).severity < 1.0
    assert compare_by_task(expected, one_output(kill(values, np.s_[..., 5], 0.0))).is_broken


def test_rows_that_are_all_alike_are_no_detections() -> None:
    """A detector that sees nothing scores all places alike: which ten are best is chance; a dead class still counts."""
    values = make_detector()
    values[..., 4:] = rng().uniform(0.085, 0.09, values[..., 4:].shape)
    values[::4, 7, 5] = 0.2
    expected = one_output(values)
    assert find_format(expected, "output0").threshold is None
    noise = rng().normal(0, 1, values.shape) * np.r_[0.3, 0.3, 0.3, 0.3, 0.0002, 0.0002, 0.0002]
    seen = compare_by_task(expected, one_output(values + noise))
    assert seen.kept == 1.0
    assert not seen.is_broken
    assert compare_by_task(expected, one_output(kill(values, np.s_[..., 5], 0.085))).is_broken
