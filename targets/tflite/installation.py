"""Makes the converter's environment: a venv, and pip with the pinned wheels and their hashes."""

from __future__ import annotations

import ast
import re
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Self
from urllib.parse import urlsplit

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.process.program import Finished, run_program
from modelwright.core.process.transport import Program

FOREIGN_VARIABLES = dict.fromkeys(
    ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "PIP_TARGET", "PIP_USER", "PIP_PREFIX")
)
"""What leads Python or pip to other packages; none of the environment's processes sees them."""
STEP_TIMEOUT_S = 3600.0
"""For pip to find and unpack everything, over a slow line."""
SILENCE_S = 10.0
"""Of pip, after which the user is told what it waits for."""
_PATIENCE = ("--timeout", "15", "--retries", "1")
"""Of pip, for users who set none: its own is five times 15 s for each package."""
_CHECK = "import ai_edge_litert.interpreter, onnx2tf.tflite_builder"
_TAIL_LINES = 12

_NO_ANSWER = re.compile(
    r"timed? ?out|connection ?error|connection (?:refused|reset|aborted|broken)|max retries|name resolution|retrying",
    re.IGNORECASE,
)


def install(folder: Path, requirements: Path, progress: Callable[[str], None]) -> None:
    """Makes the environment in an empty place.

    Raises:
        ToolchainMissingError: It cannot be made; says why, and what helps.
    """
    _require(get_base_python(), ("-m", "venv", "--without-pip", str(folder)), "venv")
    python, pip = _find_pip(folder)
    settings = _read_settings(python, pip)
    patience = () if {"timeout", "default-timeout", "retries"} & set(settings) else _PATIENCE
    arguments = (
        "install", "--no-deps", "--ignore-requires-python", "--require-hashes", "--only-binary", ":all:",
        "--no-compile", "--disable-pip-version-check", "--no-input", "--no-color", "--progress-bar", "off", *patience,
        "-r", str(requirements),
    )  # fmt: skip
    index = _describe_index(settings)
    with _Impatience(lambda: progress(f"{index} has not answered yet (PIP_INDEX_URL names another)")) as impatience:
        finished = _run(python, (*pip, *arguments), "pip", impatience.calm)
    if finished.code != 0:
        _explain_pip(finished, index, was_silent=impatience.is_waiting)
    there = get_python(folder)
    # What Python would write beside the packages on first use; some files are none that it can read.
    _run(there, ("-m", "compileall", "-q", "-j", "0", str(folder)), "compileall")
    _require(there, ("-B", "-c", _CHECK), "the import check")


def get_base_python() -> Path:
    """Returns the interpreter under the virtual environment that this process may run in."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable)


def get_python(folder: Path) -> Path:
    """Returns the Python of an environment."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def remove(folder: Path) -> None:
    """Removes an environment.

    Raises:
        ToolchainMissingError: Something of it stays.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise ToolchainMissingError(
            f"the TFLite converter's environment in {folder} is damaged, and cannot be removed to make it again",
            hint=f"remove {folder}, or set MODELWRIGHT_CACHE to a folder that can be written",
        )


def _find_pip(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Returns a Python and its arguments for a pip that installs into `folder`."""
    here, there = Path(sys.executable), get_python(folder)
    # pip of this interpreter installs into that environment: saves unpacking another pip there.
    if _run(here, ("-m", "pip", "--version"), "pip").code == 0:
        return here, ("-m", "pip", "--python", str(there))
    _require(there, ("-m", "ensurepip", "--upgrade"), "ensurepip")
    return there, ("-m", "pip")


def _read_settings(python: Path, pip: Sequence[str]) -> dict[str, str]:
    """Returns what the user set for pip, in files and variables: `index-url`, `timeout`, ..."""
    settings = {}
    for line in _run(python, (*pip, "config", "list"), "pip").tail:
        name, separator, value = line.partition("=")
        if separator and re.fullmatch(r"(?:global|install|:env:)\.[a-z-]+", name):
            try:
                settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
            except (SyntaxError, ValueError):
                continue
    return settings


def _describe_index(settings: dict[str, str]) -> str:
    """Returns the package index by its address, without a user's name and password."""
    parts = urlsplit(settings.get("index-url", ""))
    if not parts.hostname:
        return "pip's package index"
    port = f":{parts.port}" if parts.port else ""
    return f"the package index at {parts.scheme}://{parts.hostname}{port}{parts.path}"


class _Impatience:
    """Says something each time that nothing was heard for a while.

    Attributes:
        is_waiting: Whether nothing was heard since it said so.
    """

    def __init__(self, say: Callable[[], None]) -> None:
        self._say = say
        self.is_waiting = False
        self._heard = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._heard.set()
        self._thread.join()

    def calm(self, _line: str) -> None:
        """Takes what was heard."""
        self.is_waiting = False
        self._heard.set()

    def _listen(self) -> None:
        while not self._ended.is_set():
            if not self._heard.wait(SILENCE_S):
                self.is_waiting = True
                self._say()
                self._heard.wait()
            self._heard.clear()


def _explain_pip(finished: Finished, index: str, *, was_silent: bool) -> NoReturn:
    text = "\n".join(finished.tail)
    if "DO NOT MATCH THE HASHES" in text:
        fault = f"{index} gives other files than the ones that were pinned"
        hint = "set PIP_INDEX_URL to an index that has the packages as they were published"
    elif "No space left" in text:
        fault, hint = "there is no space left", "set MODELWRIGHT_CACHE to a folder with 250 MB free"
    elif was_silent or _NO_ANSWER.search(text):
        fault = f"{index} does not answer"
        hint = (
            "set PIP_INDEX_URL to one that does, HTTPS_PROXY where a proxy is between, or PIP_DEFAULT_TIMEOUT to wait "
            "more seconds; or make the environment on a machine that reaches one, at the same path, and copy "
            "$MODELWRIGHT_CACHE/envs"
        )
    elif "No matching distribution" in text:
        fault = f"{index} lacks a package for Python {sys.version_info.major}.{sys.version_info.minor} on this machine"
        hint = "set PIP_INDEX_URL to an index that has it, or PIP_EXTRA_INDEX_URL to one more"
    else:
        _fail(finished, "pip")
    _raise(fault, hint, finished)


def _require(python: Path, arguments: Sequence[str], what: str) -> None:
    finished = _run(python, arguments, what)
    if finished.code != 0:
        _fail(finished, what)


def _fail(finished: Finished, what: str) -> NoReturn:
    hints = {
        "venv": "install the venv module of this Python (on Debian: apt install python3-venv), or look at the folder",
        "ensurepip": "install pip for this Python (on Debian: apt install python3-pip)",
        "pip": "the lines below say why; PIP_INDEX_URL and the like are honoured",
        "the import check": "the lines below say what this machine lacks; the ort-* targets need none of it",
    }
    _raise(f"{what} failed with exit code {finished.code}", hints[what], finished)


def _raise(fault: str, hint: str, finished: Finished) -> NoReturn:
    lines = [line for line in finished.tail if line.strip()]
    raise ToolchainMissingError(
        f"the TFLite converter's environment cannot be made: {fault}",
        hint=hint,
        detail="\n".join(lines[-_TAIL_LINES:]),
    )


def _run(python: Path, arguments: Sequence[str], what: str, on_line: Callable[[str], None] | None = None) -> Finished:
    return run_program(
        Program(python=python, isolated=True, arguments=arguments, environment=FOREIGN_VARIABLES),
        purpose=what,
        timeout_s=STEP_TIMEOUT_S,
        error=ToolchainMissingError,
        on_line=on_line,
    )
