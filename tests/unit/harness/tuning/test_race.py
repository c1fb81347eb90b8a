"""A trial on scripted times: the ratio, its end as soon as it is plain, a second launch for what wins, and coverage."""

from __future__ import annotations

import pytest
from scripted_machine import Machine, make_race

from modelwright.harness.tuning.race import IncumbentEndedError
from modelwright.harness.tuning.record import Configuration

A, B = Configuration(artifact="a"), Configuration(artifact="b")


def race(times: dict[str, float], *, seed: int = 0, noise: float = 0.01):
    machine = Machine(lambda how: times[how.artifact], seed=seed, noise=noise)
    runner = make_race(machine, seed=seed)
    raced = runner.run(A, B)
    runner.close()
    assert machine.alive == 0
    return raced, machine


def test_what_is_better_wins_by_its_ratio_over_two_launches() -> None:
    raced, machine = race({"a": 2.0, "b": 1.0})
    assert raced.outcome == "better"
    assert raced.gain.ratio == pytest.approx(2.0, rel=0.02)
    assert raced.gain.ci95[0] < 2.0 < raced.gain.ci95[1]
    assert raced.cost == pytest.approx(1.0, rel=0.05)
    assert [name for name, _ in machine.opened] == ["incumbent", "challenger", "challenger", "incumbent"]
    assert raced.rounds == 24


def test_what_cannot_win_is_given_up_at_the_first_look() -> None:
    raced, machine = race({"a": 1.0, "b": 1.5})
    assert raced.outcome == "not better"
    assert raced.rounds == 6
    assert machine.windows == 12
    assert raced.gain.ratio == pytest.approx(1 / 1.5, rel=0.03)


def test_what_stays_in_doubt_ends_with_the_rounds() -> None:
    raced, _ = race({"a": 1.0, "b": 0.985}, noise=0.01)
    assert raced.outcome == "undecided"
    assert raced.rounds == 24


def test_two_copies_are_not_called_different() -> None:
    """95 % intervals and a second launch: of 200 pairs of equals hardly one may win."""
    outcomes = [race({"a": 1.0, "b": 1.0}, seed=seed, noise=0.03)[0].outcome for seed in range(200)]
    assert outcomes.count("better") <= 4


def test_five_percent_are_found() -> None:
    outcomes = [race({"a": 1.05, "b": 1.0}, seed=seed)[0].outcome for seed in range(40)]
    assert outcomes.count("better") >= 38


@pytest.mark.parametrize("launch", [1, 2])
def test_a_challenger_that_does_not_run_costs_its_trial_only(launch: int) -> None:
    machine = Machine(lambda how: {"a": 2.0, "b": 1.0}[how.artifact])
    loads = iter(range(1, 9))
    machine.fails = lambda how: "no memory" if how.artifact == "b" and next(loads) == launch else None
    runner = make_race(machine)
    raced = runner.run(A, B)
    assert raced.outcome == "failed"
    assert "no memory" in raced.failure.message
    machine.fails = lambda how: None
    assert runner.run(A, B).outcome == "better", "the incumbent still runs"
    runner.close()


def test_an_incumbent_that_does_not_run_any_more_ends_the_search() -> None:
    machine = Machine(lambda how: 1.0)
    machine.fails = lambda how: "the driver is gone" if how.artifact == "a" else None
    with pytest.raises(IncumbentEndedError, match="does not run: the driver is gone"):
        make_race(machine).run(A, B)
