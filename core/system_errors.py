"""What the operating system refuses - a full disk, a folder that may not be written - in words that name a cure."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from modelwright.core.errors import BadInputError, BuildFailedError, ModelwrightError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSALS = (
    errno.EACCES, errno.EEXIST, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR,
    errno.ENOTEMPTY, errno.EPERM, errno.EROFS, errno.ETXTBSY,
)  # fmt: skip
_SHORTAGES = (errno.EAGAIN, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@contextlib.contextmanager
def explain_os_error(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals into errors that name the folder and the cure."""
    try:
        yield
    except OSError as error:
        explained = describe_os_error(error, path)
        if explained is None:
            raise
        raise explained from error


def describe_os_error(error: OSError, path: Path | None = None) -> ModelwrightError | None:
    """Returns what a refusal of the operating system means to the user; None when it looks like a fault of ours.

    Args:
        error: A full disk, a folder that may not be written, too many open files, ...
        path: What was to be written, in the user's words; None when only the system's own words say it.
    """
    named = path is not None
    if path is None and isinstance(error.filename, str):
        path = Path(error.filename)
    where = "" if path is None else f" {path}"
    if error.errno in _NO_SPACE:
        return BuildFailedError(
            f"no space left on the disk{f' while writing{where}' if where else ''}",
            hint="free some space or choose another --out; what was finished before is kept",
            detail=str(error),
        )
    if error.errno in _REFUSALS or (named and error.errno == errno.ENOENT):
        if not named:
            return BadInputError(f"cannot use{where or ' a file'}: {error.strerror}")
        return BadInputError(f"cannot write{where}: {error.strerror}", hint="choose another --out", detail=str(error))
    if error.errno in _SHORTAGES:
        return BuildFailedError(f"the system refused{where and f' work on{where}'}: {error.strerror}")
    if "temporary directory" in str(error):
        return BadInputError(
            "no folder for temporary files can be written", hint="set TMPDIR to one", detail=str(error)
        )
    return None
