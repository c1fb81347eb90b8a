from __future__ import annotations

import pytest
from language_results import make_proof
from msgspec.structs import replace

from modelwright.core.records.language_artifact import Estimate
from modelwright.harness.language.limits import find_loss, format_change


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0052, "+0.52 %"), (-0.0004, "-0.04 %"), (0.00004, "0 %"), (0.034, "+3.4 %"), (1.48, "+148 %"), (0.0, "0 %")],
)
def test_changes_read_as_percentages(share: float, text: str) -> None:
    assert format_change(share) == text


def test_what_is_over_the_limit_fails_with_its_figures() -> None:
    assert find_loss("x", make_proof(0.05, limit=0.05), is_float=False) is None
    loss = find_loss("x", make_proof(0.08, width=0.01, limit=0.05), is_float=False)
    assert loss is not None
    assert loss.exit_code == 7
    assert loss.proof.increase.value == 0.08
    assert "21.6 where FP32 has 20, +8.0 % (+7.0 % to +9.0 %)" in loss.message
    assert "--max-perplexity-increase allows 5 %" in loss.message


def test_a_limit_is_for_float_artifacts_too() -> None:
    loss = find_loss("x", make_proof(0.01, limit=0.005), is_float=True)
    assert loss is not None
    assert loss.exit_code == 7


def test_what_writes_other_text_is_not_delivered_without_any_limit() -> None:
    assert find_loss("x", make_proof(0.4), is_float=False) is None
    loss = find_loss("x", make_proof(1.48, width=0.2), is_float=False)
    assert loss is not None
    assert loss.exit_code == 5
    assert "does not follow FP32" in loss.message
    float_loss = find_loss("x", make_proof(0.05), is_float=True)
    assert float_loss is not None
    assert float_loss.exit_code == 5


@pytest.mark.parametrize(
    ("divergence", "is_float", "is_lost"), [(0.6, False, False), (1.6, False, True), (0.03, True, True)]
)
def test_words_that_are_lost_count_where_no_text_holds_them(divergence: float, is_float: bool, is_lost: bool) -> None:
    proof = replace(make_proof(0.0), divergence=Estimate(value=divergence))
    loss = find_loss("x", proof, is_float=is_float)
    assert (loss is not None) == is_lost
    assert loss is None or f"{divergence} nats from FP32's" in loss.message


def test_too_little_text_makes_nothing_look_broken() -> None:
    assert find_loss("x", make_proof(0.6, width=0.4), is_float=False) is None
