"""The converter's own Python environment: made once in a cache folder, found there afterwards.

onnx2tf pins its dependencies hard, so it cannot live in the environment of the tool. What was installed is written down
file by file: an environment that is no longer what it was is noticed before it runs, and made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from modelwright.core.cache import get_cache_folder
from modelwright.core.errors import ToolchainMissingError
from modelwright.core.files import hash_file
from modelwright.core.locks import Lock, lock_file, try_lock
from modelwright.targets.tflite.installation import get_base_python, get_python, install, remove
from modelwright.targets.tflite.intact import find_damage, record_files

REQUIREMENTS = Path(__file__).with_name("converter") / "requirements.txt"
UNUSED_DAYS = 30
"""After which an environment of other requirements, or of another Python, is removed when one is made."""
_PREFIX = "tflite-"
_MARKER = "complete"
_WHAT = "the TFLite converter's environment"


def get_environment_folder() -> Path:
    """Returns where the environment belongs: a folder named for its content and its Python."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes())
    digest.update(f"{sys.version_info[:3]} {get_base_python()}".encode())
    return get_cache_folder() / "envs" / f"{_PREFIX}{digest.hexdigest()[:16]}"


def describe_converter() -> dict[str, str]:
    """Returns what the converter consists of: a hash over its code, its timing and its requirements, and its Python."""
    digest = hashlib.sha256()
    for path in sorted(REQUIREMENTS.parent.iterdir()):
        if path.is_file():
            digest.update(f"{path.name} {hash_file(path)}\n".encode())
    return {"files": digest.hexdigest(), "python": f"{sys.version_info.major}.{sys.version_info.minor}"}


def find_environment() -> Path | None:
    """Returns the environment's Python if it was made already and is what it was then; makes nothing."""
    folder = get_environment_folder()
    with contextlib.suppress(OSError):  # a cache that may not be read is none
        if _find_damage(folder) is None:
            return get_python(folder)
    return None


@contextlib.contextmanager
def hold_environment(progress: Callable[[str], None]) -> Iterator[Path]:
    """Yields the environment's Python, made first where there is none; nobody removes it meanwhile.

    Args:
        progress: Takes a line about what is going on.

    Raises:
        ToolchainMissingError: See `ensure_environment`.
    """
    python = ensure_environment(progress)
    lock = _get_lock(get_environment_folder())
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # of a cache that is read only
            stack.enter_context(lock_file(lock, _WHAT, progress, shared=True))
            os.utime(lock)  # when it was used last
        yield python


def ensure_environment(progress: Callable[[str], None]) -> Path:
    """Returns the environment's Python, after making the environment where it is not there or damaged.

    Args:
        progress: Takes a line about what is going on.

    Raises:
        ToolchainMissingError: It cannot be made: no package index, no space, no venv module.
    """
    found = find_environment()
    if found is not None:
        return found
    folder = get_environment_folder()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(_get_lock(folder), _WHAT, progress):
            found = find_environment()  # another process may have made it while this one waited
            if found is None:
                _make_environment(folder, progress)
                _remove_unused(folder, progress)
    except OSError as error:
        raise ToolchainMissingError(
            f"{_WHAT} cannot be made in {folder}",
            hint="set MODELWRIGHT_CACHE to a folder that can be written",
            detail=str(error),
        ) from error
    return get_python(folder)


def doubt_environment() -> str | None:
    """Reads every byte of the environment; returns what is wrong with it, in words that follow its name.

    One that is damaged does not count from then on, and the next build makes it again.
    """
    folder = get_environment_folder()
    damage = _find_damage(folder, every_byte=True)
    if damage is not None:
        with contextlib.suppress(OSError):
            (folder / _MARKER).unlink(missing_ok=True)
    return damage


def _find_damage(folder: Path, *, every_byte: bool = False) -> str | None:
    damage = find_damage(folder, folder / _MARKER, every_byte=every_byte)
    if damage is None and not get_python(folder).exists():
        return "has a Python that is gone"
    return damage


def _make_environment(folder: Path, progress: Callable[[str], None]) -> None:
    # A venv's scripts hold its path, so it is made in place; only the marker, written last, makes it count.
    if (folder / _MARKER).exists():
        progress(f"{_WHAT} in {folder} {_find_damage(folder)}: making it again")
    else:
        progress(f"making {_WHAT} in {folder} (once; about 210 MB)")
    remove(folder)
    try:
        install(folder, REQUIREMENTS, progress)
        record_files(folder, folder / _MARKER)
    except BaseException:  # Ctrl-C too: nothing half-made is to stay
        with contextlib.suppress(ToolchainMissingError):
            remove(folder)
        raise


def _remove_unused(made: Path, progress: Callable[[str], None]) -> None:
    """Removes environments of other requirements and Pythons that nobody has used for long, or uses now."""
    for folder in sorted(made.parent.glob(f"{_PREFIX}*")):
        lock = _get_lock(folder)
        if folder == made or not folder.is_dir():
            continue
        used_s = max((path.stat().st_mtime for path in (lock, folder, folder / _MARKER) if path.exists()), default=0.0)
        if time.time() - used_s < UNUSED_DAYS * 86400:
            continue
        with lock.open("ab") as file:
            if try_lock(file.fileno()) is not Lock.HELD:
                continue
            since = datetime.fromtimestamp(used_s, UTC).date()
            progress(f"removing {folder}, an environment of the TFLite converter that was last used on {since}")
            with contextlib.suppress(ToolchainMissingError):
                remove(folder)
                lock.unlink(missing_ok=True)


def _get_lock(folder: Path) -> Path:
    return folder.with_suffix(".lock")
