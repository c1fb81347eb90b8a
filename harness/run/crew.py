"""Several inferences in flight on the CPU: each called, again and again, by a thread of its own.

A call's time runs from the end of the one before it in its thread: what the callers wait for each other, and for
Python, is in it. With every caller busy all the time, as many inferences a second are done as there are callers, over
the mean of these times.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

Calls = Sequence[Callable[[], object]]
"""One inference each, on inputs that are taken in turn."""


@dataclass
class _Ran:
    """What a caller did in a window."""

    latencies_ns: list[int] = field(default_factory=list)
    inferences: int = 0


class Crew:
    """Callers, each with what it calls; they live until the crew is closed.

    Args:
        members: Makes what a caller calls, in that caller's thread, and takes it down there.
    """

    def __init__(self, members: Sequence[Callable[[], AbstractContextManager[Calls]]]) -> None:
        self._tasks: list[queue.SimpleQueue[tuple[float, float] | None]] = []
        self._answers: queue.SimpleQueue[_Ran | BaseException] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        try:
            for member in members:  # one after the other, as a runtime's loading may not be made for more
                tasks: queue.SimpleQueue[tuple[float, float] | None] = queue.SimpleQueue()
                thread = threading.Thread(target=self._work, args=(member, tasks), daemon=True)
                self._tasks.append(tasks)
                self._threads.append(thread)
                thread.start()
                self._take()
        except BaseException:
            self.close()
            raise

    def run(self, window_s: float, warm_up_s: float) -> tuple[list[int], int, float]:
        """Keeps every caller busy for a window.

        Returns:
            Nanoseconds of every measured inference; all that ran, warm-up included; and the seconds until the last one
            was done.
        """
        begin = time.perf_counter()
        for tasks in self._tasks:
            tasks.put((window_s, warm_up_s))
        ran = [self._take() for _ in self._tasks]
        elapsed_s = time.perf_counter() - begin
        return [one for each in ran for one in each.latencies_ns], sum(each.inferences for each in ran), elapsed_s

    def close(self) -> None:
        """Ends the callers."""
        for tasks in self._tasks:
            tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._tasks, self._threads = [], []

    def _take(self) -> _Ran:
        answer = self._answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _work(
        self,
        member: Callable[[], AbstractContextManager[Calls]],
        tasks: queue.SimpleQueue[tuple[float, float] | None],
    ) -> None:
        try:
            with member() as calls:
                for call in calls:
                    call()
                self._answers.put(_Ran())
                turn = 0
                while (task := tasks.get()) is not None:
                    ran = _call_for(calls, turn, *task)
                    turn += ran.inferences
                    self._answers.put(ran)
        except BaseException as error:  # it is raised where the crew was asked
            self._answers.put(error)


def _call_for(calls: Calls, turn: int, window_s: float, warm_up_s: float) -> _Ran:
    clock = time.perf_counter_ns
    ran = _Ran()
    before = clock()
    counts_from = before + int(warm_up_s * 1e9)
    end = counts_from + int(window_s * 1e9)
    while before < end or not ran.latencies_ns:
        calls[(turn + ran.inferences) % len(calls)]()
        after = clock()
        if before >= counts_from:
            ran.latencies_ns.append(after - before)
        ran.inferences += 1
        before = after
    return ran
