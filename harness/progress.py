"""How long work says what it is doing, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Takes what is going on; the command line draws it, a library user may ignore it."""

    def start(self, task: str, text: str) -> None:
        """A task began, such as `build:ort-int8`."""
        ...

    def say(self, task: str, text: str) -> None:
        """A running task has something to tell."""
        ...

    def advance(self, task: str, done: int, total: int) -> None:
        """A running task with a known end got on."""
        ...

    def finish(self, task: str, text: str, *, ok: bool = True) -> None:
        """A task ended, with what came out of it."""
        ...


class Undisturbed:
    """Passes on what is going on; a listener that fails, such as a terminal that is gone, is told nothing more.

    Args:
        listener: None for nobody.
    """

    def __init__(self, listener: Progress | None) -> None:
        self._listener = listener

    def start(self, task: str, text: str) -> None:
        """Passes on that a task began."""
        self._tell(lambda listener: listener.start(task, text))

    def say(self, task: str, text: str) -> None:
        """Passes on what a task has to tell."""
        self._tell(lambda listener: listener.say(task, text))

    def advance(self, task: str, done: int, total: int) -> None:
        """Passes on how far a task has come."""
        self._tell(lambda listener: listener.advance(task, done, total))

    def finish(self, task: str, text: str, *, ok: bool = True) -> None:
        """Passes on what came out of a task."""
        self._tell(lambda listener: listener.finish(task, text, ok=ok))

    def _tell(self, act: Callable[[Progress], None]) -> None:
        if self._listener is None:
            return
        try:
            act(self._listener)
        except Exception:  # the work is worth more than the words about it
            self._listener = None
