"""The converter's own Python environment: made once in a cache folder, found there afterwards.

onnx2tf pins its dependencies hard, so it cannot live in the environment of the tool.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from modelwright.core.cache import get_cache_folder
from modelwright.core.errors import ToolchainMissingError

REQUIREMENTS = Path(__file__).with_name("converter") / "requirements.txt"
_MARKER = "complete"
_TAIL_LINES = 12
_LOCK_POLL_S = 0.2


def get_environment_folder() -> Path:
    """Returns where the environment belongs: a folder named for its content and its Python."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes())
    digest.update(f"{sys.version_info[:3]} {_get_base_python()}".encode())
    return get_cache_folder() / "envs" / f"tflite-{digest.hexdigest()[:16]}"


def find_environment() -> Path | None:
    """Returns the environment's Python if it was made already; makes nothing."""
    folder = get_environment_folder()
    python = _get_python(folder)
    with contextlib.suppress(OSError):  # a cache that may not be read is none
        if (folder / _MARKER).is_file() and python.exists():
            return python
    return None


def ensure_environment(progress: Callable[[str], None]) -> Path:
    """Returns the environment's Python, after making the environment where it is not there yet.

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
        with _lock(folder.with_suffix(".lock"), progress):
            found = find_environment()  # another process may have made it while this one waited
            if found is None:
                _make_environment(folder, progress)
    except OSError as error:
        raise ToolchainMissingError(
            f"the TFLite converter's environment cannot be made in {folder}",
            hint="set MODELWRIGHT_CACHE to a folder that can be written",
            detail=str(error),
        ) from error
    return _get_python(folder)


def _make_environment(folder: Path, progress: Callable[[str], None]) -> None:
    # A venv's scripts hold its path, so it is made in place; only the marker, written last, makes it count.
    shutil.rmtree(folder, ignore_errors=True)
    progress(f"making the TFLite converter's environment in {folder} (once; about 170 MB)")
    try:
        _run([str(_get_base_python()), "-m", "venv", "--without-pip", str(folder)], "venv")
        # pip of this interpreter installs into that environment: saves unpacking another pip there.
        install = [
            *_find_pip(folder), "install", "--no-deps", "--ignore-requires-python", "--no-compile", "--quiet",
            "--disable-pip-version-check", "--no-input", "-r", str(REQUIREMENTS),
        ]  # fmt: skip
        _run(install, "pip")
        _run(
            [str(_get_python(folder)), "-c", "import ai_edge_litert.interpreter, onnx2tf.tflite_builder"],
            "the import check",
        )
        (folder / _MARKER).write_text("", encoding="utf-8")
    except BaseException:  # Ctrl-C too: nothing half-made is to stay
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _find_pip(folder: Path) -> list[str]:
    """Returns the command of a pip that installs into `folder`."""
    has_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, env=get_variables())
    if has_pip.returncode == 0:
        return [sys.executable, "-m", "pip", "--python", str(_get_python(folder))]
    _run([str(_get_python(folder)), "-m", "ensurepip", "--upgrade"], "ensurepip")
    return [str(_get_python(folder)), "-m", "pip"]


def _run(command: list[str], what: str) -> None:
    process = subprocess.run(command, capture_output=True, text=True, errors="replace", env=get_variables())
    if process.returncode == 0:
        return
    lines = [line for line in (process.stdout + process.stderr).splitlines() if line.strip()]
    raise ToolchainMissingError(
        f"the TFLite converter's environment cannot be made: {what} failed with exit code {process.returncode}",
        hint=(
            "a package index must be reachable (PIP_INDEX_URL and the like are honoured); or make the environment on "
            "a machine that has one, at the same path, and copy $MODELWRIGHT_CACHE/envs"
        ),
        detail="\n".join(lines[-_TAIL_LINES:]),
    )


def get_variables() -> dict[str, str]:
    """Returns the variables for the environment's processes: nothing that leads Python to other packages."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "PIP_TARGET", "PIP_USER", "PIP_PREFIX"}
    return {name: value for name, value in os.environ.items() if name not in dropped}


def _get_base_python() -> Path:
    """Returns the interpreter under the virtual environment that this process may run in."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable)


def _get_python(folder: Path) -> Path:
    return folder / "bin" / "python"


@contextlib.contextmanager
def _lock(path: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Holds a file lock; says so when another process has it. The system frees it if this process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that is making the TFLite converter's environment")
            while True:
                time.sleep(_LOCK_POLL_S)
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
        yield
