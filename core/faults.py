"""Any exception as an error that a row can hold: nothing unexpected costs more than what it befell."""

from __future__ import annotations

import traceback

from modelwright.core.errors import BuildFailedError, ModelwrightError, UnexpectedError
from modelwright.core.system_errors import describe_os_error

_LONGEST = 400
_FRAMES = 12


def as_error(error: Exception, what: str) -> ModelwrightError:
    """Returns an error of ours as it is; of any other one, what it means to the user.

    Args:
        error: Whatever was raised.
        what: What was going on, as it reads before `failed`: `building ort-int8`.
    """
    if isinstance(error, ModelwrightError):
        return error
    if isinstance(error, MemoryError):
        return BuildFailedError(
            f"{what} failed: there is not enough memory",
            hint="free some, raise the limit (`ulimit -v`), or use fewer samples or a smaller --batch",
        )
    explained = describe_os_error(error) if isinstance(error, OSError) else None
    if explained is not None:
        return explained
    return UnexpectedError(
        f"{what} failed: {type(error).__name__}: {str(error).strip()[:_LONGEST]}",
        hint="this is a fault of modelwright: please report it with the lines above",
        detail="".join(traceback.format_exception(error, limit=-_FRAMES)),
    )
