"""The error tree. Every error carries the exit code that the command line ends with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class ModelwrightError(Exception):
    """Base of all errors that modelwright raises on purpose.

    Args:
        message: What failed and on which file, node or target, and what was expected. One or two sentences.
        hint: What the user can do now. Printed on a line of its own.
        detail: The vendor's own words, printed under the message, dimmed and cut.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON form that `from_dict` turns back, so that errors can cross a process border."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "hint": self.hint,
            "detail": self.detail,
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ModelwrightError:
        """Rebuilds an error sent by a child process; an unknown kind becomes the base class."""
        cls = _KINDS.get(str(data.get("kind")), ModelwrightError)
        return cls(str(data.get("message", "")), hint=data.get("hint"), detail=data.get("detail"))


class UnexpectedError(ModelwrightError):
    """A fault of modelwright's own. It costs what it befell; everything else goes on and is kept."""


class UsageError(ModelwrightError):
    """The request itself makes no sense: unknown target, options that exclude each other."""

    exit_code = 2


class BadInputError(ModelwrightError):
    """A file or value given by the user cannot be used: model, samples, profile, artifact."""

    exit_code = 3


class ToolchainMissingError(ModelwrightError):
    """A package, driver or piece of hardware that the request needs is absent or broken."""

    exit_code = 4


class BuildFailedError(ModelwrightError):
    """A vendor's toolchain could not make the artifact, or made one that does not follow FP32."""

    exit_code = 5


class MeasurementInvalidError(ModelwrightError):
    """A measurement could not be taken, or must not be trusted: crash, hang, machine that does not fit."""

    exit_code = 6


class LimitNotMetError(ModelwrightError):
    """A limit that the user set (latency, accuracy, agreement) was not met."""

    exit_code = 7


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns a question that offers the names close to a mistyped one; empty if none is. It makes a hint."""
    import difflib  # only needed on the way to an error, and slow to import

    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else ""


_KINDS: dict[str, type[ModelwrightError]] = {
    cls.__name__: cls
    for cls in (
        UnexpectedError,
        UsageError,
        BadInputError,
        ToolchainMissingError,
        BuildFailedError,
        MeasurementInvalidError,
        LimitNotMetError,
    )
}
