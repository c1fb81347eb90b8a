"""How long work says what it is doing, without knowing who listens."""

from __future__ import annotations

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


class Silence:
    """Ignores everything."""

    def start(self, task: str, text: str) -> None:
        """Ignores it."""

    def say(self, task: str, text: str) -> None:
        """Ignores it."""

    def advance(self, task: str, done: int, total: int) -> None:
        """Ignores it."""

    def finish(self, task: str, text: str, *, ok: bool = True) -> None:
        """Ignores it."""
