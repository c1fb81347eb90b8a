"""Functions that the tests of `core.process.child` call in a child process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError

_kept: dict[str, Any] = {}


def add(a: int, b: int) -> int:
    return a + b


def keep(value: int) -> None:
    _kept["value"] = value


def recall() -> Any:
    return _kept.get("value")


def abort(progress: Callable[[str], None]) -> None:
    print("vendor: assertion failed in kernel.cc", flush=True)
    progress("loading the model")
    os.abort()


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def refuse() -> None:
    raise BadInputError("the file is bad", hint="bring another")


def break_down() -> None:
    raise KeyError("something of a vendor")


def print_much() -> str:
    print("x" * 1_000_000)
    return "done"


def own_pid() -> int:
    return os.getpid()


def start_grandchild() -> int:
    import subprocess

    return subprocess.Popen(["sleep", "60"]).pid


def lack_a_package() -> None:
    import a_package_that_nobody_has.part  # noqa: F401


def fill_the_disk() -> None:
    with Path("/dev/full").open("w") as file:
        file.write("x")


def open_onnxruntime(model: str) -> list[str]:
    """Opens a session with a temporary folder of its own; returns what it left there."""
    import tempfile

    import onnxruntime

    onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return sorted(path.name for path in Path(tempfile.gettempdir()).iterdir())
