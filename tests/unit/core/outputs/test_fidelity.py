"""Fidelity against answers worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.outputs.fidelity import (
    Fidelity,
    FidelityMeter,
    compare_outputs,
    count_correct,
    explain_broken,
    find_scores,
)
from modelwright.core.outputs.tasks.roles import find_roles
from modelwright.core.records.codec import decode, encode


def row(*values: float) -> dict[str, np.ndarray]:
    return {"y": np.array([values], np.float32)}


def only(fidelity: Fidelity):
    assert len(fidelity.outputs) == 1
    return fidelity.outputs[0]


def test_identical_outputs_follow_perfectly() -> None:
    rows = [row(1, 2, 3), row(3, 1, 0), row(0, 5, 1), row(2, 2, 1)]
    fidelity = compare_outputs(rows, rows)
    output = only(fidelity)
    assert (fidelity.samples, fidelity.agreement, fidelity.worst_output) == (4, 1.0, "y")
    assert fidelity.cosine == pytest.approx(1.0)
    assert (output.max_abs_error, output.relative_l2_error, output.r_squared) == (0.0, 0.0, 1.0)
    assert explain_broken(fidelity) is None


def test_known_cosine_errors_and_agreement() -> None:
    # Sample 1: 45 degrees apart; sample 2: opposite.
    fidelity = compare_outputs([row(1, 0), row(0, 2)], [row(1, 1), row(0, -2)])
    output = only(fidelity)
    assert output.cosine_mean == pytest.approx((math.sqrt(0.5) - 1) / 2)
    assert output.cosine_min == pytest.approx(-1.0)
    assert output.max_abs_error == 4.0
    assert output.relative_l2_error == pytest.approx(math.sqrt((1 + 16) / (1 + 4)))
    assert output.r_squared is None  # two samples say nothing of variation
    # [1, 1] has its first top class where FP32 has its own; [0, -2] has not.
    assert fidelity.agreement == 0.5


def test_zero_norms() -> None:
    both = only(compare_outputs([row(0, 0)], [row(0, 0)]))
    assert (both.cosine_mean, both.relative_l2_error) == (1.0, 0.0)
    candidate = only(compare_outputs([row(1, 0)], [row(0, 0)]))
    assert (candidate.cosine_mean, candidate.relative_l2_error) == (0.0, 1.0)
    reference = only(compare_outputs([row(0, 0)], [row(1, 0)]))
    assert (reference.cosine_mean, reference.relative_l2_error, reference.max_abs_error) == (0.0, None, 1.0)


def test_r_squared_is_the_followed_share_of_the_variation() -> None:
    reference = [row(10, x) for x in (-3.0, -1.0, 1.0, 3.0)]
    half = only(compare_outputs(reference, [row(10, x / 2) for x in (-3.0, -1.0, 1.0, 3.0)]))
    assert half.r_squared == pytest.approx(0.75)  # the residual is half as large: 1 - 0.5 ** 2
    shifted = only(compare_outputs(reference, [row(12, x + 5) for x in (-3.0, -1.0, 1.0, 3.0)]))
    assert shifted.r_squared == pytest.approx(1.0)  # an offset is seen by the errors, not here
    constant = compare_outputs(reference, [row(10, 0)] * 4)
    assert only(constant).r_squared == pytest.approx(0.0)
    assert only(compare_outputs([row(1, 2)] * 5, [row(1, 2)] * 5)).r_squared is None
    assert only(compare_outputs([row(0.1, 0.3)] * 50, [row(0.1, 0.3)] * 50)).r_squared is None


def test_candidate_that_ignores_its_input_is_found_despite_a_high_cosine() -> None:
    reference = [row(10, x, 0) for x in (-1.0, -0.5, 0.5, 1.0)]
    fidelity = compare_outputs(reference, [row(10, 0, 0)] * 4)
    assert fidelity.cosine is not None
    assert fidelity.cosine > 0.99
    assert "the same on all 4 samples" in (explain_broken(fidelity) or "")
    # Rounded to the same 8-bit value: nothing to object to.
    tiny = [row(10, x) for x in (-0.01, -0.005, 0.005, 0.01)]
    assert explain_broken(compare_outputs(tiny, [row(10, 0)] * 4)) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_candidate_does_not_follow(bad: float) -> None:
    fidelity = compare_outputs([row(3, 4)], [row(3, bad)])
    output = only(fidelity)
    assert (output.nonfinite, output.cosine_mean, output.cosine_min, fidelity.agreement) == (1, 0.0, 0.0, 0.0)
    assert "NaN or infinite" in (explain_broken(fidelity) or "")
    json.dumps(encode(fidelity), allow_nan=False)


def test_elements_where_the_reference_is_infinite_do_not_count() -> None:
    fidelity = compare_outputs([row(-math.inf, 3, 4)], [row(-3.4e38, 3, 4)])
    output = only(fidelity)
    assert (output.reference_nonfinite, output.nonfinite) == (1, 0)
    assert output.cosine_mean == pytest.approx(1.0)
    assert explain_broken(fidelity) is None


def test_integer_outputs_are_counted_by_equality() -> None:
    reference = [{"boxes": np.ones((1, 2), np.float32), "kind": np.array([1, 2, 3, 4])}]
    fidelity = compare_outputs(reference, [{"boxes": np.ones((1, 2), np.float32), "kind": np.array([1, 2, 3, 0])}])
    kind = fidelity.outputs[1]
    assert (kind.equal_share, kind.cosine_mean, kind.max_abs_error) == (0.75, None, None)
    assert explain_broken(fidelity) is None
    truths = compare_outputs([{"m": np.array([True, False])}], [{"m": np.array([False, True])}])
    assert truths.outputs[0].equal_share == 0.0
    assert (truths.cosine, truths.worst_output) == (None, "m")
    assert "m equals FP32 in 0.0%" in (explain_broken(truths) or "")


def test_missing_and_misshapen_outputs_are_named() -> None:
    reference = [{"a": np.ones((1, 3), np.float32), "b": np.ones((1, 4), np.float32)}]
    missing = compare_outputs(reference, [{"a": np.ones((1, 3), np.float32)}])
    assert "output b" in (explain_broken(missing) or "")
    assert missing.cosine == 0.0
    squeezed = compare_outputs(reference, [{"a": np.ones(3, np.float32), "b": reference[0]["b"]}])
    assert "expected [1, 3], got [3]" in (explain_broken(squeezed) or "")


@pytest.mark.parametrize("shape", [(1, 5, 5, 5), (1, 3, 6, 7)])
def test_swapped_layout_is_recognised(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    reference = [{"y": rng.standard_normal(shape).astype(np.float32)} for _ in range(3)]
    candidate = [{"y": np.ascontiguousarray(r["y"].transpose(0, 2, 3, 1))} for r in reference]
    fidelity = compare_outputs(reference, candidate, find_roles(reference))
    assert fidelity.outputs[0].layout == (0, 3, 1, 2)
    assert "NHWC" in (explain_broken(fidelity) or "")
    assert decode(Fidelity, json.loads(json.dumps(encode(fidelity)))) == fidelity
    noise = [{"y": rng.standard_normal(shape).astype(np.float32)} for _ in range(3)]
    other = compare_outputs(reference, noise, find_roles(reference))
    assert other.outputs[0].layout is None
    assert "NHWC" not in (explain_broken(other) or "")


def test_agreement_over_tokens_and_ties() -> None:
    reference = [{"y": np.array([[[1, 0], [0, 1], [2, 2], [5, 1]]], np.float32)}]
    candidate = [{"y": np.array([[[1, 0], [1, 0], [0, 1], [5, 1]]], np.float32)}]
    assert compare_outputs(reference, candidate).agreement == 0.75  # token 1 differs; token 2 is a tie in FP32
    flat = compare_outputs([{"y": np.ones(3, np.float32)}], [{"y": np.ones(3, np.float32)}])
    assert flat.agreement is None
    assert flat.agreement_reason


def test_scores_are_the_first_rank_2_output_even_after_a_rank_3_one() -> None:
    hidden, logits = np.zeros((1, 4, 8), np.float32), np.zeros((1, 2), np.float32)
    assert find_scores({"hidden": hidden, "logits": logits}) == "logits"
    assert find_scores({"hidden": hidden, "one": np.zeros((1, 1), np.float32)}) == "hidden"
    assert find_scores({"ids": np.zeros((1, 5), np.int64)}) is None


def test_meter_streams_and_survives_large_values() -> None:
    meter = FidelityMeter()
    for scale in (1e30, 1e-30):
        meter.add(row(3 * scale, 4 * scale), row(3 * scale, 4 * scale))
    assert meter.result().cosine == pytest.approx(1.0)
    assert FidelityMeter().result().samples == 0
    assert explain_broken(FidelityMeter().result()) == "no sample was compared"
    with pytest.raises(ValueError, match="zip"):
        compare_outputs([row(1, 2)], [])


def test_count_correct() -> None:
    scores = {"logits": np.array([[0.1, 0.7, 0.2]], np.float32)}
    assert (count_correct(scores, 1), count_correct(scores, np.int64(2))) == (1, 0)
    assert count_correct({"logits": np.array([[math.nan, 0.7]], np.float32)}, 0) == 0
    assert count_correct({"class": np.array([3])}, 3) == 1
    with pytest.raises(BadInputError, match=r"map \[1, 2, 4\]"):
        count_correct({"map": np.zeros((1, 2, 4), np.float32)}, 0)


def test_the_cosine_of_two_classes_says_how_far_their_values_move() -> None:
    """Sample by sample it was 1 or -1: the share of equal answers, once more."""
    rng = np.random.default_rng(0)
    margin, noise = rng.standard_normal(400), 0.2 * rng.standard_normal(400)
    reference = [{"y": np.array([[m, -m]])} for m in margin]
    found = [{"y": np.array([[m, -m]])} for m in margin + noise]
    wanted, have = margin - margin.mean(), margin + noise - margin.mean()
    expected = wanted @ have / np.sqrt((wanted @ wanted) * (have @ have))
    output = compare_outputs(reference, found).outputs[0]
    assert output.cosine_mean == pytest.approx(expected)
    assert output.cosine_min == output.cosine_mean
    assert 0.97 < expected < 0.99, "which no share of flips tells"


def test_means_of_two_columns_are_their_own() -> None:
    rng = np.random.default_rng(1)
    values, noise = rng.normal((50.0, -3.0), 1.0, (300, 2)), 0.1 * rng.standard_normal((300, 2))
    output = compare_outputs([{"y": row[None]} for row in values], [{"y": row[None]} for row in values + noise])
    wanted, have = values - values.mean(axis=0), values + noise - values.mean(axis=0)
    expected = np.vdot(wanted, have) / np.sqrt(np.vdot(wanted, wanted) * np.vdot(have, have))
    assert output.outputs[0].cosine_mean == pytest.approx(expected)


def test_squares_that_overflow_leave_the_cosine_of_each_sample() -> None:
    rows = [{"y": np.array([[1e200, 2e200 * (1 + index)]])} for index in range(8)]
    assert compare_outputs(rows, rows).outputs[0].cosine_mean == pytest.approx(1.0)
