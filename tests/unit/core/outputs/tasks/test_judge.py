"""Candidates that a user would ship, and candidates that they would call broken: one of each kind that was met."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from answers import (
    COUNT,
    add_noise,
    compare,
    compare_by_task,
    compare_several,
    kill,
    kill_scores,
    make_body,
    make_class_map,
    make_close,
    make_constant,
    make_detector,
    make_embedding,
    make_grid,
    make_logits,
    make_map,
    make_masked,
    make_notes,
    make_padded,
    make_rare,
    make_rare_lost,
    make_same,
    make_segmentation,
    make_settled,
    make_shares,
    make_soft_mask,
    make_units,
    make_waveform,
    make_zero,
    rank_detections,
    rng,
    round_to,
    softmax,
    to_float16,
)

from modelwright.core.outputs.tasks.roles import Role, find_roles, parse_task

Array = npt.NDArray[Any]

Case = Callable[[], tuple[Array, Array]]

SHIPPED: dict[str, Case] = {
    "logits with 1 % noise": lambda: (make_logits(), add_noise(make_logits(), 0.01)),
    "logits in float16": lambda: (make_logits(), make_logits().astype(np.float16)),
    "a softmax in 8 bits": lambda: (softmax(make_logits()), round_to(softmax(make_logits()), 1 / 255)),
    "1000 classes in 8 bits": lambda: (
        softmax(make_logits(1000, 400) * 2),
        softmax(add_noise(make_logits(1000, 400), 0.003) * 2),
    ),
    "a detector in 8 bits": lambda: (
        make_detector(),
        np.concatenate([round_to(make_detector()[..., :4], 0.5), round_to(make_detector()[..., 4:], 1 / 255)], axis=2),
    ),
    "ranked detections that change places": lambda: (
        rank_detections(make_detector()),
        rank_detections(make_detector() + rng().normal(0, 1e-4, make_detector().shape)),
    ),
    "an embedding with 1 % noise": lambda: (make_embedding(), add_noise(make_embedding(), 0.01)),
    "a regression in three units": lambda: (make_units(), add_noise(make_units(), 0.002)),
    "a segmentation with 0.2 % noise": lambda: (make_segmentation(), add_noise(make_segmentation(), 0.002)),
    "a mask whose quiet border is noisy": lambda: (make_soft_mask(0.0), make_soft_mask(0.45)),
    "one value a sample": lambda: (make_logits()[:, :1], add_noise(make_logits()[:, :1], 0.002)),
    "a channel that is constant up to rounding": lambda: (make_constant(0.0), make_constant(1e-4)),
    "masked logits": lambda: (make_masked(-1e9), add_noise(make_masked(-1e9), 0.0)),
    "float16 of a mask that it does not hold": lambda: (make_masked(-1e9), to_float16(make_masked(-1e9))),
    "positions that are padded": lambda: (make_padded(), np.where(make_padded() == 0, 1e-7, make_padded())),
    "probabilities in bfloat16 that hardly differ": lambda: (make_close(), round_to(make_close(), 1 / 256)),
    "one sample in bfloat16": lambda: (make_logits()[:1], make_logits()[:1] * 1.004),
    "the same sample again and again": lambda: (make_same(), make_same() * 1.004),
    "a channel that is always 0": lambda: (make_zero(0.0), make_zero(1e-7)),
    "nothing but zeros": lambda: (make_zero(0.0) * 0, make_zero(0.0) * 0 + 1e-7),
    "no values at all": lambda: (np.zeros((COUNT, 0, 6)), np.zeros((COUNT, 0, 6))),
    "anchors that hardly move": lambda: (
        make_detector(),
        make_detector() + np.r_[1, 1, 1, 1, 0, 0, 0] * rng().normal(0, 1, make_detector().shape),
    ),
    "ranked shares of an image that change places": lambda: (
        rank_detections(make_shares()),
        rank_detections(make_shares() + rng().normal(0, 1e-5, make_shares().shape)),
    ),
    "notes that are never played": lambda: (make_notes(), make_notes() + rng().normal(0, 0.0015, make_notes().shape)),
    "class numbers with last bits": lambda: (
        rank_detections(make_detector()),
        rank_detections(make_detector()) * (1 - 1e-7),
    ),
    "one answer to everything, in another order of additions": lambda: (make_settled(1), make_settled(2)),
    "nothing but last bits": lambda: (make_logits(), np.nextafter(make_logits(), 1e9)),
}

BROKEN: dict[str, Case] = {
    "logits of other samples": lambda: (make_logits(), np.roll(make_logits(), 1, axis=0)),
    "a dead class": lambda: (make_logits(), kill(make_logits(), np.s_[:, 3], -5.0)),
    "half of the rare class": lambda: (make_rare(), make_rare_lost()),
    "scores drowned by boxes": lambda: (make_detector(), kill_scores(make_detector(), np.s_[..., 4:])),
    "one class of a detector": lambda: (make_detector(), kill(make_detector(), np.s_[..., 5], 0.0)),
    "one class of ranked detections": lambda: (
        rank_detections(make_detector()),
        rank_detections(kill(make_detector(), np.s_[..., 5], 0.0)),
    ),
    "boxes that are off by a third": lambda: (make_detector(), make_detector() + np.r_[10.0, 10, 0, 0, 0, 0, 0]),
    "a grid that drowns the motion": lambda: (make_grid(0.0), make_grid(0.4)),
    "a mask that drowns the logits": lambda: (make_masked(-1e9), make_masked(-1e9, noise=1.0)),
    "a smaller mask that drowns the logits": lambda: (make_masked(-100.0), make_masked(-100.0, noise=1.0)),
    "a mask that is gone": lambda: (make_masked(-1e9), np.where(make_masked(-1e9) < -1e8, 0.0, make_masked(-1e9))),
    "one unit of a regression": lambda: (make_units(), kill(make_units(), np.s_[:, 2])),
    "a regression at half its scale": lambda: (make_units(), make_units() / 2),
    "an embedding that is only its mean": lambda: (
        make_embedding(),
        np.broadcast_to(make_embedding().mean(axis=0), make_embedding().shape),
    ),
    "the small class of a segmentation": lambda: (make_segmentation(), kill(make_segmentation(), np.s_[:, 3], -12.0)),
    "a dead border": lambda: (make_map(), kill(make_map(), np.s_[..., -1], 0.0)),
    "a dead feature map": lambda: (make_map(), kill(make_map(), np.s_[:, 2])),
    "NaN in a few values": lambda: (make_logits(), kill(make_logits(), np.s_[::20, 1], np.nan)),
    "one unit that is 30 % off": lambda: (make_units(), make_units() * [1, 1.3, 1]),
    "a flow that is 30 % too long": lambda: (make_map(), make_map() * np.r_[1, 1, 1.3, 1, 1][None, :, None, None]),
    "a waveform at half its size": lambda: (make_waveform(), make_waveform() / 2),
    "other classes of ranked detections": lambda: (
        rank_detections(make_detector()),
        (rank_detections(make_detector()) + np.r_[0.0, 0, 0, 0, 0, 1]) % np.r_[1e9, 1e9, 1e9, 1e9, 1e9, 3],
    ),
    "class numbers that are cut down": lambda: (
        rank_detections(make_detector()),
        rank_detections(make_detector()) - np.r_[0.0, 0, 0, 0, 0, 0.4],
    ),
    "padded positions and a dead class": lambda: (
        make_padded(),
        np.where(make_padded() == 0, 0, kill(make_padded(), np.s_[..., 3], -5.0)),
    ),
    "the small class of an integer map": lambda: (
        make_class_map(),
        np.where(make_class_map() == 3, 0, make_class_map()),
    ),
    "one value a sample, far off": lambda: (make_logits()[:, :1] + 300, make_logits()[:, :1] * 0 + 300),
}


NAMES = {"a segmentation with 0.2 % noise": "seg_logits", "the small class of a segmentation": "seg_logits"}


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_user_would_ship_is_good(name: str) -> None:
    expected, found = SHIPPED[name]()
    seen = compare(expected, found, NAMES.get(name, "output"))
    assert not seen.is_broken, seen.worst
    assert seen.severity < 1.2, seen.worst


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_user_would_call_broken_is(name: str) -> None:
    expected, found = BROKEN[name]()
    seen = compare(expected, found, NAMES.get(name, "output"))
    assert seen.is_broken, seen.checks[:3]


@pytest.mark.parametrize("name", [*SHIPPED, *BROKEN])
def test_fp32_itself_is_perfect(name: str) -> None:
    expected, _ = {**SHIPPED, **BROKEN}[name]()
    seen = compare(expected, expected.copy())
    assert seen.severity < 1e-9, seen.worst


Several = dict[str, Array]


def split(ranked: Array, names: tuple[str, str, str], whole: type) -> Several:
    """Returns boxes, scores and classes as outputs of their own, as the detection APIs give them."""
    boxes, classes, scores = names
    return {boxes: ranked[..., :4], classes: ranked[..., 5].astype(whole), scores: ranked[..., 4]}


APIS = [
    (("detection_boxes", "detection_classes", "detection_scores"), np.float64),
    (("boxes", "labels", "scores"), np.int64),
    (("1234", "1236", "1235"), np.int64),
]


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize(("names", "whole"), APIS)
def test_detections_in_several_outputs_are_matched(names: tuple[str, str, str], whole: type, shares: bool) -> None:
    ranked = rank_detections(make_shares() if shares else make_detector())
    expected = split(ranked, names, whole)
    order = rng().permuted(np.broadcast_to(np.arange(50), (COUNT, 50)), axis=1)
    moved = split(np.take_along_axis(ranked, order[..., None], axis=1), names, whole)
    assert compare_several(expected, moved).severity < 1e-9
    dead = ranked.copy()
    dead[..., 4] *= 0.1
    other = ranked.copy()
    other[..., 5] = (other[..., 5] + 1) % 3
    for broken in (dead, other, np.roll(ranked, 1, axis=0)):
        assert compare_several(expected, split(broken, names, whole)).is_broken


def test_a_label_beside_its_probabilities_counts() -> None:
    values = softmax(make_logits(3))
    expected = {"label": values.argmax(axis=1), "probabilities": values}
    assert compare_several(expected, dict(expected)).severity < 1e-9
    wrong = np.where(np.arange(COUNT) % 4, expected["label"], (expected["label"] + 1) % 3)
    assert compare_several(expected, {**expected, "label": wrong}).is_broken


def test_a_number_of_detections_is_no_class() -> None:
    ranked = rank_detections(make_detector())
    outputs = {"num_dets": rng().integers(0, 9, (COUNT, 1)), **split(ranked, ("boxes", "labels", "scores"), np.int64)}
    assert "num_dets" not in find_roles([{name: value[:1] for name, value in outputs.items()}])


def test_outputs_whose_shape_turns_are_looked_at() -> None:
    """Of 6 positions and 8 classes rows could be either; of 12 and 8 only the positions."""
    values = [{"output": softmax(make_logits(8, rows))[None]} for rows in (6, 12, 7, 9)]
    assert find_roles(values)["output"].role == "tokens"


def test_a_waveform_of_changing_length_is_looked_at() -> None:
    values = [{"audio": row[None, : 100 + 10 * (index % 7)]} for index, row in enumerate(make_waveform())]
    assert find_roles(values)["audio"].axis is None
    halved = [{"audio": value["audio"] / 2} for value in values]
    assert compare_by_task(values, values).severity < 1e-9
    assert compare_by_task(values, halved).is_broken


def cases_of_roles() -> Iterator[tuple[str, Array, Role]]:
    yield "output", make_logits(), "classes"
    yield "output", make_logits(2), "classes"
    yield "anything", softmax(make_logits(5)), "classes"
    yield "output", make_embedding(), "embedding"
    yield "output", rng().normal(0, 1, (COUNT, 384)), "embedding"
    yield "output", rng().normal(0, 1, (COUNT, 2)), "regression"
    yield "output", make_units(), "regression"
    yield "output0", make_detector(), "boxes"
    yield "output0", make_detector().transpose(0, 2, 1), "boxes"
    yield "detections", rank_detections(make_detector()), "boxes"
    yield "logits", rng().normal(0, 1, (COUNT, 7, 30)), "tokens"
    yield "last_hidden_state", rng().normal(0, 1, (COUNT, 7, 32)), "other"
    yield "flow", make_grid(0.0), "other"
    yield "points", make_body(), "other"
    yield "kpts", make_body(), "other"
    yield "output", make_body(), "other"
    yield "out", make_segmentation() - make_segmentation().mean(axis=1, keepdims=True), "mask"
    yield "seg_logits", make_segmentation(), "mask"
    yield "out", softmax(make_segmentation().transpose(0, 2, 3, 1)), "mask"
    yield "score", rng().random((COUNT, 1)), "regression"
    yield "output", np.log(softmax(make_logits(10))), "classes"
    yield "output", np.log(softmax(make_padded() + np.arange(6))), "tokens"
    yield "output", make_waveform(), "other"
    yield "output0", make_shares(), "boxes"
    yield "output0", make_shares().transpose(0, 2, 1), "boxes"
    yield "output", rng().random((COUNT, 64, 30)), "other"
    yield "output", make_class_map(), "mask"
    yield "mask", rng().random((COUNT, 1, 24, 32)), "mask"


@pytest.mark.parametrize(("name", "values", "role"), list(cases_of_roles()))
def test_roles_are_found(name: str, values: Array, role: Role) -> None:
    found = find_roles([{name: row[None]} for row in values])
    assert found[name].role == role, found[name]


def test_a_few_samples_of_anything_are_no_logits() -> None:
    chances = [np.random.default_rng(seed).normal(0, 1, (8, 8)) for seed in range(200)]
    taken = [find_roles([{"output": row[None]} for row in values])["output"].role == "classes" for values in chances]
    assert sum(taken) <= 6, "one in a hundred, but for chance"
    assert find_roles([{"output": row[None]} for row in make_logits(8, 8)])["output"].role == "classes"


def test_the_axis_of_a_detector_is_its_columns_in_either_layout() -> None:
    for values, axis in ((make_detector(), 2), (make_detector().transpose(0, 2, 1), 1)):
        assert find_roles([{"o": row[None]} for row in values])["o"].axis == axis


@pytest.mark.parametrize(
    ("name", "values", "axis"),
    [
        ("logits", make_padded(), 2),
        ("logits", np.where(make_padded() == 0, -100.0, make_padded()), 2),
        ("output", softmax(make_logits(8, COUNT * 5).reshape(COUNT, 5, 8)).transpose(0, 2, 1), 1),
        ("mask", rng().random((COUNT, 1, 24, 32)), None),
        ("depth", rng().random((COUNT, 24, 32, 1)), None),
        ("pitch", make_waveform(), None),
    ],
)
def test_the_axis_is_that_of_the_meaning(name: str, values: Array, axis: int | None) -> None:
    assert find_roles([{name: row[None]} for row in values])[name].axis == axis


def test_a_user_says_what_outputs_are() -> None:
    values = [{"a": row[None]} for row in rng().normal(0, 1, (COUNT, 4))]
    assert find_roles(values, tasks=parse_task("classes"))["a"].role == "classes"
    assert find_roles(values, tasks=parse_task("a=embedding"))["a"].role == "embedding"
