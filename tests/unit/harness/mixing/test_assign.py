"""Bits by thirds and by the program; the program against trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from modelwright.harness.mixing.assign import Costs, assign_program, assign_thirds, total

BITS = (8, 6, 4)


def make_costs(layers: int, seed: int) -> tuple[Costs, Costs]:
    rng = np.random.default_rng(seed)
    errors, energies = {}, {}
    for number in range(layers):
        harm, work = 10.0 ** rng.uniform(-9, -1), 10.0 ** rng.uniform(4, 9)
        errors[f"l{number}"] = {bits: harm * 4.0 ** (4 - bits) for bits in BITS}
        energies[f"l{number}"] = {bits: work * (bits**2 + 20 * bits) for bits in BITS}
    return errors, energies


def try_all(wanted: Costs, bounded: Costs, limit: float) -> float | None:
    choices = (dict(zip(wanted, bits, strict=True)) for bits in itertools.product(BITS, repeat=len(wanted)))
    return min((total(wanted, bits) for bits in choices if total(bounded, bits) <= limit * (1 + 1e-9)), default=None)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_the_program_finds_what_trying_everything_finds(seed: int, share: float) -> None:
    errors, energies = make_costs(5, seed)
    low, high = (total(energies, dict.fromkeys(errors, bits)) for bits in (4, 8))
    limit = low + share * (high - low)
    found = assign_program(errors, energies, limit, limited="energy")
    assert found is not None
    assert total(energies, found) <= limit * (1 + 1e-9)
    assert total(errors, found) == pytest.approx(try_all(errors, energies, limit), rel=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_the_least_energy_within_an_error_is_found_too(seed: int) -> None:
    errors, energies = make_costs(5, seed)
    low, high = (total(errors, dict.fromkeys(errors, bits)) for bits in (8, 4))
    limit = (low * high) ** 0.5
    found = assign_program(errors, energies, limit, limited="error")
    assert found is not None
    assert total(errors, found) <= limit * (1 + 1e-9)
    assert total(energies, found) == pytest.approx(try_all(energies, errors, limit), rel=1e-5)


def test_no_bits_are_given_where_none_keep_the_limit() -> None:
    errors, energies = make_costs(3, 0)
    assert assign_program(errors, energies, total(energies, dict.fromkeys(errors, 4)) * 0.99, limited="energy") is None


def test_a_limit_that_a_choice_meets_exactly_is_met() -> None:
    errors = {"a": {8: 0.0, 4: 1.0}, "b": {8: 0.0, 4: 10.0}}
    energies = {"a": {8: 3.0, 4: 1.0}, "b": {8: 3.0, 4: 1.0}}
    assert assign_program(errors, energies, 4.0, limited="energy") == {"a": 4, "b": 8}


def test_a_layer_whose_errors_are_nothing_gets_the_fewest_bits() -> None:
    errors = {"a": {8: 0.0, 4: 0.0}, "b": {8: 0.1, 4: 0.2}}
    energies = {"a": {8: 3.0, 4: 1.0}, "b": {8: 3.0, 4: 1.0}}
    assert assign_program(errors, energies, 0.1, limited="error") == {"a": 4, "b": 8}


def test_thirds_follow_the_order_and_are_of_equal_size() -> None:
    sensitivity = {"a": 1.0, "b": 9.0, "c": 3.0, "d": 7.0, "e": 5.0, "f": 0.1, "g": 8.0}
    assert assign_thirds(sensitivity, BITS) == {"b": 8, "g": 8, "d": 8, "e": 6, "c": 6, "a": 4, "f": 4}
    assert assign_thirds({"only": 1.0}, BITS) == {"only": 8}
    assert assign_thirds({"a": 2.0, "b": 1.0}, (4, 8)) == {"a": 8, "b": 4}
