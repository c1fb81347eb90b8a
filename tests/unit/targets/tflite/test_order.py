"""Choosing by speed: known intervals, and that a busy machine builds the same file."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from modelwright.targets.tflite.order import MOST_ROUNDS, ROUNDS, bound_median, choose_by_speed


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # Ranks of the sign test's 95 % interval, from a table of the binomial distribution (Dixon and Mood, 1946).
    [(6, 1, 6), (8, 1, 8), (9, 2, 8), (15, 4, 12), (20, 6, 15), (30, 10, 21)],
)
def test_the_interval_of_a_median(count: int, low: int, high: int) -> None:
    values = random.Random(0).sample(range(1, count + 1), count)
    assert bound_median(values) == (low, high)


def test_five_values_bound_nothing() -> None:
    assert bound_median([1.0] * 5) == (-math.inf, math.inf)


class Machine:
    """Times files of known speed; a busy one takes up to several times as long, for some rounds on end."""

    def __init__(self, true_ms: Sequence[float], seed: int, *, busy: bool) -> None:
        self.true_ms, self.busy, self.random = true_ms, busy, random.Random(seed)
        self.rounds = 0

    def __call__(self, rounds: int) -> list[list[float]]:
        self.rounds += rounds
        return [[time_ms * self._draw() for time_ms in self.true_ms] for _ in range(rounds)]

    def _draw(self) -> float:
        if not self.busy:
            return self.random.gauss(1.0, 0.02)
        return self.random.gauss(1.0, 0.1) * (self.random.uniform(1.0, 5.0) if self.random.random() < 0.3 else 1.0)


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize(
    ("true_ms", "chosen"),
    [((4.0, 4.0, 4.0), 0), ((4.0, 3.9, 4.1), 0), ((4.0, 2.8, 2.7), 1), ((4.0, 8.0, 2.0), 2), ((4.0, 3.0, 2.0), 2)],
)
def test_a_busy_machine_chooses_the_same_file(true_ms: tuple[float, ...], chosen: int, busy: bool) -> None:
    machines = [Machine(true_ms, seed, busy=busy) for seed in range(200)]
    wrong = sum(choose_by_speed(len(true_ms), machine).position != chosen for machine in machines)
    assert wrong <= 2


def test_what_no_number_of_rounds_tells_apart_ends_and_leaves_the_order() -> None:
    def take(rounds: int) -> list[list[float]]:
        return [[1.0, 1.0 / ratio] for ratio in ([1.0, 1.3] * rounds)[:rounds]]

    choice = choose_by_speed(2, take)
    assert choice.position == 0
    assert MOST_ROUNDS <= len(choice.rounds) < MOST_ROUNDS + ROUNDS


def test_what_is_clear_at_once_takes_no_more_rounds() -> None:
    machine = Machine((4.0, 2.0), 0, busy=False)
    choice = choose_by_speed(2, machine)
    assert machine.rounds == ROUNDS
    assert choice.speed_ratios() == [1.0, pytest.approx(2.0, rel=0.02)]
