"""The converter's own Python environment: made once in a cache folder, found there afterwards.

onnx2tf pins its dependencies hard, so it cannot live in the environment of the tool.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from modelwright.core.cache import get_cache_folder
from modelwright.core.errors import ToolchainMissingError
from modelwright.core.files import hash_file
from modelwright.core.locks import lock_file
from modelwright.core.process.program import Finished, run_program
from modelwright.core.process.transport import Program

REQUIREMENTS = Path(__file__).with_name("converter") / "requirements.txt"
FOREIGN_VARIABLES = dict.fromkeys(
    ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "PIP_TARGET", "PIP_USER", "PIP_PREFIX")
)
"""What leads Python or pip to other packages; none of the environment's processes sees them."""
STEP_TIMEOUT_S = 3600.0
"""For pip to find and unpack everything, over a slow line."""
_MARKER = "complete"
_TAIL_LINES = 12


def get_environment_folder() -> Path:
    """Returns where the environment belongs: a folder named for its content and its Python."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes())
    digest.update(f"{sys.version_info[:3]} {_get_base_python()}".encode())
    return get_cache_folder() / "envs" / f"tflite-{digest.hexdigest()[:16]}"


def describe_converter() -> dict[str, str]:
    """Returns what the converter consists of: a hash over its code, its timing and its requirements, and its Python."""
    digest = hashlib.sha256()
    for path in sorted(REQUIREMENTS.parent.iterdir()):
        if path.is_file():
            digest.update(f"{path.name} {hash_file(path)}\n".encode())
    return {"files": digest.hexdigest(), "python": f"{sys.version_info.major}.{sys.version_info.minor}"}


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
        with lock_file(folder.with_suffix(".lock"), "the TFLite converter's environment", progress):
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
        _run(_get_base_python(), ("-m", "venv", "--without-pip", str(folder)), "venv")
        # pip of this interpreter installs into that environment: saves unpacking another pip there.
        python, pip = _find_pip(folder)
        install = (
            "install", "--no-deps", "--ignore-requires-python", "--no-compile", "--quiet",
            "--disable-pip-version-check", "--no-input", "-r", str(REQUIREMENTS),
        )  # fmt: skip
        _run(python, (*pip, *install), "pip")
        _run(
            _get_python(folder), ("-c", "import ai_edge_litert.interpreter, onnx2tf.tflite_builder"), "the import check"
        )
        (folder / _MARKER).write_text("", encoding="utf-8")
    except BaseException:  # Ctrl-C too: nothing half-made is to stay
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _find_pip(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Returns a Python and its arguments for a pip that installs into `folder`."""
    here, there = Path(sys.executable), _get_python(folder)
    if _try(here, ("-m", "pip", "--version"), "pip").code == 0:
        return here, ("-m", "pip", "--python", str(there))
    _run(there, ("-m", "ensurepip", "--upgrade"), "ensurepip")
    return there, ("-m", "pip")


def _run(python: Path, arguments: Sequence[str], what: str) -> None:
    finished = _try(python, arguments, what)
    if finished.code == 0:
        return
    lines = [line for line in finished.tail if line.strip()]
    raise ToolchainMissingError(
        f"the TFLite converter's environment cannot be made: {what} failed with exit code {finished.code}",
        hint=(
            "a package index must be reachable (PIP_INDEX_URL and the like are honoured); or make the environment on "
            "a machine that has one, at the same path, and copy $MODELWRIGHT_CACHE/envs"
        ),
        detail="\n".join(lines[-_TAIL_LINES:]),
    )


def _try(python: Path, arguments: Sequence[str], what: str) -> Finished:
    return run_program(
        Program(python=python, isolated=True, arguments=arguments, environment=FOREIGN_VARIABLES),
        purpose=what,
        timeout_s=STEP_TIMEOUT_S,
        error=ToolchainMissingError,
    )


def _get_base_python() -> Path:
    """Returns the interpreter under the virtual environment that this process may run in."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable)


def _get_python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
