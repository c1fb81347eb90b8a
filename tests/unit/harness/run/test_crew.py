"""Several callers at a time: each in one thread, with calls of its own, and what goes wrong is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from modelwright.harness.run.crew import Calls, Crew


def test_callers_call_at_the_same_time_each_in_its_thread() -> None:
    both = threading.Barrier(2, timeout=10)
    made: list[int] = []
    called: set[int] = set()
    closed: list[int] = []

    @contextmanager
    def join() -> Iterator[Calls]:
        made.append(threading.get_ident())
        warm = iter([True])

        def call() -> None:
            called.add(threading.get_ident())
            if not next(warm, False):
                both.wait()  # only where the other one is in a call too does this end
            time.sleep(0.001)

        yield [call]
        closed.append(threading.get_ident())

    crew = Crew([join, join])
    latencies, inferences, elapsed_s = crew.run(0.0, 0.0)
    crew.close()
    assert len(set(made)) == 2
    assert called == set(made)
    assert sorted(closed) == sorted(made), "taken down where it was made"
    assert len(latencies) == inferences == 2, "a window has at least one inference of each"
    assert all(one >= 1e6 for one in latencies)
    assert elapsed_s >= 0.001


def test_what_ran_to_warm_up_is_counted_and_not_measured() -> None:
    @contextmanager
    def join() -> Iterator[Calls]:
        yield [lambda: time.sleep(0.002)]

    crew = Crew([join])
    latencies, inferences, elapsed_s = crew.run(0.02, 0.02)
    crew.close()
    assert 0 < len(latencies) < inferences
    assert elapsed_s >= 0.04
    # One caller is busy all the time: what was measured fills what was not warm-up.
    assert sum(latencies) / 1e9 == pytest.approx(elapsed_s - 0.02, abs=0.015)


@pytest.mark.parametrize("calls_before_it_fails", [0, 2])
def test_what_a_caller_raises_is_raised_by_the_crew(calls_before_it_fails: int) -> None:
    @contextmanager
    def join() -> Iterator[Calls]:
        left = iter(range(calls_before_it_fails))

        def call() -> None:
            if next(left, None) is None:
                raise RuntimeError("the runtime fails")

        yield [call]

    def use() -> None:
        crew = Crew([join])
        try:
            crew.run(0.05, 0.0)
        finally:
            crew.close()

    with pytest.raises(RuntimeError, match="the runtime fails"):
        use()
