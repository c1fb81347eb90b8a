from __future__ import annotations

import pytest
from language_results import make_comparison, make_row
from msgspec.structs import replace

from modelwright.core.errors import LimitNotMetError
from modelwright.harness.language.comparing import require_kept
from modelwright.harness.language.measuring import Measured, drop_unequal
from modelwright.harness.language.record import LanguageComparison, LanguageRow
from modelwright.harness.language.runner import GenerationWindow
from modelwright.harness.language.verdict import judge
from modelwright.harness.results.statistics import Latency, SpeedRatio


def _judge(*rows: LanguageRow, limit: float | None = None) -> LanguageComparison:
    return judge(replace(make_comparison(*rows), max_perplexity_increase=limit))


FP32 = make_row("torch-fp32", 62.0, 1.0, 0.0, memory=1000)
INT8 = make_row("ort-int8-weights", 11.7, 5.3, 0.005, memory=260)
INT4 = make_row("ort-int4-weights", 8.0, 7.75, 0.07, memory=200)


def test_the_sentence_says_what_to_ship_and_why() -> None:
    verdict = _judge(FP32, INT8).verdict
    assert verdict is not None
    assert verdict.ship == "ort-int8-weights"
    assert verdict.sentence == (
        "Ship ort-int8-weights title: 5.3 times as fast per token as torch-fp32 title (95 % interval 5.19 to 5.41), "
        "74 % less memory, perplexity +0.50 %."
    )


def test_many_times_are_a_plain_number() -> None:
    verdict = _judge(FP32, make_row("tflite-int8-dynamic", 0.04, 1451.2, 0.005, memory=64)).verdict
    assert verdict is not None
    assert verdict.sentence.startswith("Ship tflite-int8-dynamic title: 1,451 times as fast per token as")


def test_memory_that_differs_by_nothing_is_the_same() -> None:
    verdict = _judge(FP32, make_row("ort-int8-weights", 11.7, 5.3, 0.005, memory=999)).verdict
    assert verdict is not None
    assert "5.41), the same memory, perplexity" in verdict.sentence


def test_what_loses_more_is_offered_and_not_shipped_unasked() -> None:
    verdict = _judge(FP32, INT8, INT4).verdict
    assert verdict is not None
    assert verdict.ship == "ort-int8-weights"
    assert (
        "ort-int4-weights title is 7.8 times as fast at perplexity +7.0 %; --max-perplexity-increase"
        in verdict.sentence
    )
    assert verdict.order == ("ort-int4-weights", "ort-int8-weights", "torch-fp32")


def test_a_limit_is_what_may_be_lost() -> None:
    verdict = _judge(FP32, INT8, INT4, limit=0.08).verdict
    assert verdict is not None
    assert verdict.ship == "ort-int4-weights"


def test_of_equal_speeds_the_smaller_one_is_shipped() -> None:
    other = make_row("openvino-int8-weights", 11.5, 5.35, 0.004, memory=300)
    verdict = _judge(FP32, INT8, other).verdict
    assert verdict is not None
    assert verdict.ship == "ort-int8-weights"


def test_nothing_within_bounds_is_no_recommendation() -> None:
    verdict = _judge(replace(FP32, quality=None), INT4).verdict
    assert verdict is not None
    assert verdict.ship is None
    assert "No recommendation" in verdict.sentence


def test_a_limit_that_the_interval_reaches_over_is_told() -> None:
    unsure = make_row("ort-int8-weights", 11.7, 5.3, 0.005, memory=260, limit=0.006)
    verdict = _judge(FP32, unsure, limit=0.006).verdict
    assert verdict is not None
    assert any("not beyond doubt" in warning for warning in verdict.warnings)


@pytest.mark.parametrize(("share", "is_told"), [(0.62, True), (0.01, False)])
def test_text_that_judges_and_calibrates_is_told(share: float, is_told: bool) -> None:
    comparison = make_comparison(FP32, INT8)
    verdict = judge(replace(comparison, texts=replace(comparison.texts, repeated=share))).verdict
    assert verdict is not None
    assert any("62 % of the text that judges" in warning for warning in verdict.warnings) == is_told


def _measured(*tokens: int) -> Measured:
    windows = {
        index: GenerationWindow(
            latencies_ms=[1.0], inferences=count, elapsed_s=1.0, prompt_tokens=5, tokens=tuple(range(count))
        )
        for index, count in enumerate(tokens)
    }
    return Measured(windows=windows)


@pytest.mark.parametrize(("texts", "told"), [(1, "on one text:"), (15, "on 15 texts:"), (16, None)])
def test_few_texts_that_judge_are_told_for_their_interval_is_of_their_kind(texts: int, told: str | None) -> None:
    comparison = make_comparison(FP32, INT8)
    judged = comparison.texts.evaluation
    assert judged is not None
    found = judge(replace(comparison, texts=replace(comparison.texts, evaluation=replace(judged, texts=texts)))).verdict
    assert found is not None
    assert [told in line for line in found.warnings if told and "intervals speak of" in line] == [True] * bool(told)
    assert bool(told) == any("intervals speak of" in line for line in found.warnings)


def test_times_of_unequal_work_do_not_compare() -> None:
    results = {"a": _measured(20, 20), "b": _measured(20, 20), "c": _measured(20, 7)}
    drop_unequal(results)
    assert [name for name, measured in results.items() if measured.failure is not None] == ["c"]
    failure = results["c"].failure
    assert failure is not None
    assert "c read 5 and wrote 7 tokens in round 2, where others read 5 and wrote 20" in failure.message


@pytest.mark.parametrize("ratio", [1.0])
def test_the_same_speed_is_said_so(ratio: float) -> None:
    same = replace(
        make_row("ort-fp32", 61.0, ratio, 0.0, memory=900), speedup=SpeedRatio(ratio=1.01, ci95=(0.99, 1.03))
    )
    verdict = _judge(FP32, same).verdict
    assert verdict is not None
    assert "as fast per token as torch-fp32 title (95 % interval 0.99 to 1.03)" in verdict.sentence
    assert same.token_ms == Latency(p50=61.0)


def test_what_was_asked_for_and_loses_too_much_makes_the_exit_code() -> None:
    over = replace(INT4, status="failed", exit_code=7, hint="allow more")
    assert require_kept([FP32, INT8, over], asked=[]) == 0
    assert require_kept([FP32, INT8, over], asked=["ort-int4-weights"]) == 7
    with pytest.raises(LimitNotMetError, match="ort-int4-weights lost more than --max-perplexity-increase allows"):
        require_kept([FP32, over], asked=[])
