"""A runtime that raises what nobody expects, for the child of `test_worker`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from modelwright.harness.run import worker


class FailingSession:
    device = "cpu"

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def _fail_at(self, stage: str) -> None:
        if stage == self._stage:
            raise TypeError("'dict' object cannot be interpreted as an integer")

    def bind(self, feeds: object) -> Callable[[], None]:
        self._fail_at("bind")
        return lambda: self._fail_at("call")

    def run(self, feeds: object) -> dict[str, Any]:
        self._fail_at("run")
        return {}


class FailingTarget:
    record = SimpleNamespace(name="failing-fp32", run_packages={})

    def __init__(self, stage: str) -> None:
        self._stage = stage

    @contextlib.contextmanager
    def load(self, *_: object) -> Iterator[FailingSession]:
        if self._stage == "load":
            raise KeyError("binding")
        yield FailingSession(self._stage)

    def explain_memory(self, error: BaseException) -> None:
        return None


def measure(directory: str, stage: str) -> None:
    """Opens an artifact and proves it, with a runtime that raises at a stage."""
    worker.get_target = lambda _name: FailingTarget(stage)  # type: ignore[assignment,return-value]
    worker.open_in_child(directory=directory, threads=1, batch=1, samples=None)
    worker.prove_on_reference()
