"""What can be tried: nothing twice, nothing without effect, the defaults first."""

from __future__ import annotations

import pytest
from scripted_machine import make_space

from modelwright.harness.tuning.record import Configuration
from modelwright.harness.tuning.space import list_loads


def test_what_does_nothing_is_left_out() -> None:
    space = make_space()
    assert space.make("a", (1, 1), {"spin": False, "level": "high"}) == Configuration(artifact="a", options={})
    assert space.make("a", (2, 1), {"spin": False}).options == {"spin": False}
    assert space.make("a", (1, 1), {"inter": 2}).options == {}
    assert space.make("a", (1, 1), {"inter": 2, "mode": "both"}).options == {"inter": 2, "mode": "both"}


def test_neighbours_differ_in_one_thing_and_all_are_there() -> None:
    space = make_space()
    centre = space.default("a")
    found = [(each.threads, dict(each.options)) for each in space.neighbours(centre)]
    assert found == [
        (2, {}),
        (1, {"level": "low"}),
        (1, {"level": "middle"}),
        (1, {"mode": "both"}),
        (1, {"inter": 2, "mode": "both"}),
    ]
    two = space.make("a", (2, 1))
    assert {"spin": False} in [dict(each.options) for each in space.neighbours(two)]
    assert two not in space.neighbours(two)


def test_configurations_are_counted_once() -> None:
    # A thread: 3 levels by one, both, both with two. Two threads: twice that, as spinning counts.
    assert make_space("a").size == 3 * 3 + 2 * 3 * 3
    assert make_space("a", "b").size == 2 * make_space("a").size


@pytest.mark.parametrize(
    ("goal", "threads", "loads"),
    [
        ("latency", 1, [(1, 1)]),
        ("latency", 6, [(1, 1), (2, 1), (4, 1), (6, 1)]),
        ("energy", 2, [(1, 1), (2, 1)]),
        ("throughput", 4, [(4, 1), (2, 2), (1, 4)]),
        ("throughput", 6, [(6, 1), (4, 1), (2, 3), (1, 6)]),
        ("size", 8, [(1, 1)]),
    ],
)
def test_loads_use_no_more_threads_than_are_allowed(goal, threads, loads) -> None:
    found = list_loads(goal, threads)
    assert found == loads
    assert all(each * requests <= threads for each, requests in found)
