"""Answers of which several may be right: judged label by label at a threshold, never by the largest value."""

from __future__ import annotations

import numpy as np
import pytest
from answers import COUNT, Array, add_noise, compare, compare_several, kill, make_logits, rng, round_to, softmax

from modelwright.core.outputs.fidelity import compare_outputs
from modelwright.core.outputs.tasks.roles import find_roles


def sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-logits)))


def make_tags() -> Array:
    """[samples, 20] logits; each label is right for one sample in fifteen."""
    return rng().normal(-3, 2, (COUNT, 20))


def make_piano_roll() -> Array:
    """[samples, 40, 24] logits a moment and note, three in a hundred of them played."""
    generator = rng()
    played = generator.random((COUNT, 40, 24)) < 0.03
    return np.where(played, generator.normal(2, 1.5, played.shape), generator.normal(-5, 1, played.shape))


NAMES = ["probs", "scores", "output"]


@pytest.mark.parametrize("name", NAMES)
def test_labels_by_themselves_are_found(name: str) -> None:
    role = find_roles([{name: row[None]} for row in sigmoid(make_tags())])[name]
    assert (role.role, role.independent, role.axis) == ("classes", True, 1)
    one = find_roles([{name: row[None]} for row in softmax(make_logits())])[name]
    assert not one.independent


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_judged_one_by_one(name: str) -> None:
    values = sigmoid(make_tags())
    assert compare(values, values, name).severity < 1e-9
    assert compare(values, sigmoid(add_noise(make_tags(), 0.005)), name).severity <= 1.0
    for broken, words in (
        (kill(values, np.s_[:, 3], 0.01), "class 3 is found in"),
        (kill(values, np.s_[:, 3], 0.9), "class 3 is said"),
        (values / 2, "is found in"),
    ):
        seen = compare(values, broken, name)
        assert seen.is_broken
        assert seen.worst is not None
        assert words in seen.worst.text


def test_which_of_several_right_labels_is_the_largest_means_nothing() -> None:
    values = np.where(sigmoid(make_tags()) > 0.5, 0.99, 0.01) + rng().normal(0, 1e-3, (COUNT, 20))
    other = np.clip(values + np.random.default_rng(1).normal(0, 3e-3, values.shape), 0, 1)
    assert np.mean(values.argmax(axis=1) == other.argmax(axis=1)) < 0.9
    seen = compare(np.clip(values, 0, 1), other)
    assert seen.severity < 0.1, seen.worst
    assert (seen.measure, seen.kept) == ("overlap", 1.0)


def test_logits_of_labels_are_found_where_they_mostly_say_no() -> None:
    tags = make_tags() - 1
    assert find_roles([{"logits": row[None]} for row in tags])["logits"].independent
    assert not find_roles([{"logits": row[None]} for row in make_logits(20)])["logits"].independent
    assert compare(tags, add_noise(tags, 0.003), "logits").severity <= 1.0
    assert compare(tags, kill(tags, np.s_[:, 3], -8.0), "logits").is_broken
    assert compare(tags, tags + 1.5, "logits").is_broken


def test_agreement_is_none_with_a_reason_that_is_true() -> None:
    rows = [{"scores": row[None]} for row in sigmoid(make_tags())]
    seen = compare_outputs(rows, rows, find_roles(rows))
    assert seen.agreement is None
    assert seen.agreement_reason == "every class is decided by itself, so no sample has one answer"


def test_labels_of_one_class_each_keep_one_answer() -> None:
    rows = [{"scores": row[None]} for row in sigmoid(make_tags())]
    assert not find_roles(rows, labelled=True)["scores"].independent


def test_a_map_of_notes_in_few_bits_is_good() -> None:
    logits = make_piano_roll()
    values = sigmoid(logits)
    role = find_roles([{"note": row[None]} for row in values])["note"]
    assert (role.role, role.independent) == ("tokens", True)
    assert compare(values, round_to(values, 1 / 256), "note").severity < 1.0
    noisy = sigmoid(logits + np.random.default_rng(1).normal(0, 0.15, logits.shape))
    assert compare(values, noisy, "note").severity < 1.0
    assert compare(values, values * 0.3, "note").is_broken
    assert compare(values, kill(values, np.s_[..., 11], 0.01), "note").is_broken


def test_channels_of_a_mask_that_are_decided_by_themselves() -> None:
    inside = np.repeat(np.repeat(rng().random((COUNT, 3, 6, 6)) > [[[0.5]], [[0.6]], [[0.97]]], 4, axis=2), 4, axis=3)
    values = np.where(inside, 0.9, 0.05)
    role = find_roles([{"masks": row[None]} for row in values])["masks"]
    assert (role.role, role.independent, role.axis) == ("mask", True, 1)
    assert compare(values, np.where(inside, 0.8, 0.1), "masks").worst is not None
    lost = compare(values, kill(values, np.s_[:, 2], 0.05), "masks")
    assert lost.is_broken
    assert lost.worst is not None
    assert "class 2" in lost.worst.text


def test_logits_of_masks_that_overlap() -> None:
    """As of a model that segments anything: three guesses at one object, each larger than the one before."""
    field = np.repeat(np.repeat(rng().normal(0, 4, (COUNT, 1, 6, 6)), 4, axis=2), 4, axis=3)
    values = field + np.array([-3.0, 0.0, 3.0])[None, :, None, None]
    role = find_roles([{"low_res_masks": row[None]} for row in values])["low_res_masks"]
    assert (role.role, role.independent) == ("mask", True)
    noise = np.random.default_rng(1).normal(0, 0.1, values.shape)
    assert compare(values, values + noise, "low_res_masks").severity < 1.0
    assert compare(values, values[:, [0, 0, 2]], "low_res_masks").is_broken
    empty = compare(values, kill(values, np.s_[:, 0], -9.0), "low_res_masks")
    assert any("class 0 is found in" in check.text and check.is_broken for check in empty.checks)


def test_one_probability_a_sample() -> None:
    """As of a detector of voices: 0 or 1, seldom between."""
    values = sigmoid(np.where(rng().random((COUNT, 1)) < 0.3, 4.0, -4.0) + rng().normal(0, 1, (COUNT, 1)))
    role = find_roles([{"speech": row[None]} for row in values])["speech"]
    assert (role.role, role.independent) == ("classes", True)
    spoken = np.flatnonzero(values > 0.5)
    half = values.copy()
    half[spoken[::2]] = 0.2
    assert compare(values, half, "speech").is_broken
    assert compare(values, round_to(values, 1 / 64), "speech").severity <= 1.0


def test_every_head_counts() -> None:
    values = {"genre": sigmoid(make_tags()), "mood": sigmoid(make_tags()[:, :5])}
    broken = compare_several(values, {**values, "mood": values["mood"][:, ::-1].copy()})
    assert broken.is_broken
    assert broken.worst is not None
    assert broken.worst.output == "mood"
