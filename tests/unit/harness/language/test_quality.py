from __future__ import annotations

import math

import numpy as np
import pytest

from modelwright.harness.language import quality


def _logits(*rows: dict[int, float], words: int = 4) -> np.ndarray:
    """Rows of logits whose probabilities are the given ones."""
    table = np.full((len(rows), words), -np.inf, dtype=np.float64)
    for index, row in enumerate(rows):
        for word, chance in row.items():
            table[index, word] = math.log(chance)
    return table


def test_every_token_but_the_first_is_predicted_once() -> None:
    for length, window, stride in ((1, 8, 4), (2, 8, 4), (8, 8, 4), (9, 8, 4), (100, 8, 4), (33, 16, 15), (50, 7, 3)):
        counted = [at for span in quality.plan_spans(length, window, stride) for at in range(span.first, span.stop)]
        assert counted == list(range(1, length))


def test_a_window_gives_context_and_is_no_longer_than_it_may_be() -> None:
    spans = list(quality.plan_spans(100, 16, 8))
    assert all(span.stop - span.start <= 16 for span in spans)
    assert all(span.first - span.start >= 8 for span in spans[1:])


def test_the_cost_of_a_token_is_the_logarithm_of_its_chance() -> None:
    logits = _logits({0: 0.5, 1: 0.25, 2: 0.25}, {0: 0.1, 3: 0.9})
    costs, tops = quality.score_tokens(logits + 7.5, np.array([1, 3]))
    assert costs == pytest.approx([math.log(4), -math.log(0.9)])
    assert tops.tolist() == [0, 3]


def test_logits_that_are_no_numbers_are_refused() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not numbers"):
            quality.log_probabilities(np.array([[0.0, bad]]))


def test_perplexity_of_a_fair_die_is_its_faces() -> None:
    assert quality.perplexity(np.full(10, math.log(6))) == pytest.approx(6)


def test_bits_per_byte_of_a_coin_a_byte_is_one() -> None:
    assert quality.bits_per_byte(np.full(10, math.log(2)), 10) == pytest.approx(1)
    assert quality.bits_per_byte(np.full(10, math.log(2)), 40) == pytest.approx(0.25)


def test_divergence_by_hand() -> None:
    reference = np.log(np.array([[0.5, 0.5]]))
    found = quality.divergences(reference, np.log(np.array([[0.25, 0.75]])))
    assert found == pytest.approx([0.5 * math.log(2) + 0.5 * math.log(2 / 3)])
    assert quality.divergences(reference, reference * 1.0 + 3.0) == pytest.approx([0.0], abs=1e-12)


def test_what_has_no_chance_in_fp32_adds_nothing_to_the_divergence() -> None:
    reference = np.array([[0.0, -np.inf]])
    assert quality.divergences(reference, np.log(np.array([[0.5, 0.5]]))) == pytest.approx([math.log(2)])


def test_the_increase_is_the_ratio_of_the_perplexities() -> None:
    rng = np.random.default_rng(5)
    reference = rng.exponential(3.0, 400)
    costs = reference + rng.normal(0.02, 0.05, 400)
    found = quality.estimate_increase(costs, reference)
    assert found.value == pytest.approx(quality.perplexity(costs) / quality.perplexity(reference) - 1)
    assert found.ci95 is not None
    assert found.ci95[0] < math.expm1(0.02) < found.ci95[1]
    # Token by token: the scatter of the costs themselves, sixty times as wide, is in neither end.
    assert found.ci95[1] - found.ci95[0] < 0.03


def test_the_same_costs_have_no_increase_and_no_width() -> None:
    costs = np.arange(100.0)
    assert quality.estimate_increase(costs, costs) == quality.Estimate(value=0.0, ci95=(0.0, 0.0))


def test_an_interval_covers_what_neighbours_owe_to_each_other() -> None:
    """Of 200 texts of dependent tokens 95 % must cover the mean; single tokens as units would cover half."""
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(200):
        noise = rng.normal(size=1088)
        values = np.convolve(noise, np.ones(16) / 16, mode="valid")[:1024]
        interval = quality.estimate_mean(values).ci95
        assert interval is not None
        covered += interval[0] <= 0.0 <= interval[1]
    assert covered >= 180


def test_few_tokens_carry_no_interval() -> None:
    assert quality.estimate_mean(np.ones(39)).ci95 is None
    assert quality.estimate_mean(np.ones(40)).ci95 is not None


def test_a_share_of_all_is_not_certain() -> None:
    share = quality.estimate_share(np.ones(400, dtype=bool))
    assert share.value == 1
    assert share.ci95 is not None
    assert share.ci95[0] == pytest.approx(1 / (1 + 1.959964**2 / 400))
    assert share.ci95[1] == 1


def test_similarity_by_hand() -> None:
    assert quality.similarity([1, 2, 3], [1, 2, 3]) == 1
    assert quality.similarity([1, 2, 3, 4], [1, 9, 3, 4]) == 0.75
    assert quality.similarity([2, 3, 4], [1, 2, 3, 4]) == 0.75
    assert quality.similarity([5, 6], [7, 8]) == 0
    assert quality.similarity([], []) == 1


def test_the_mean_of_few_answers_has_students_width() -> None:
    values = [0.0, 0.5, 1.0, 0.5, 0.5]
    found = quality.estimate_of_few(values)
    assert found.ci95 is not None
    assert found.ci95[1] - found.value == pytest.approx(2.776 * np.std(values, ddof=1) / math.sqrt(5))
    assert quality.estimate_of_few(values[:4]).ci95 is None
