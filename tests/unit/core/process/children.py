"""Functions that the tests of `core.process` call in a child process."""

from __future__ import annotations

import fcntl
import importlib
import mmap
import os
import signal
import stat
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


def abort_after_telling(progress: Callable[[str], None]) -> None:
    progress("training")
    progress("* epoch 1 is over")
    os.abort()


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


def print_for_long(megabytes: int) -> int:
    """Prints so many MB in blocks, slowly enough to be seen; returns how many."""
    for _ in range(megabytes):
        print("y" * 999_999, flush=True)
        time.sleep(0.01)
    print("the very last line", flush=True)
    return megabytes


def print_and_die(megabytes: int) -> None:
    print_for_long(megabytes)
    os.kill(os.getpid(), 9)


def answer_pipe() -> int:
    """Returns the number of the pipe that answers leave by: the only writable one beside the standard streams."""
    for number in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(number).st_mode) and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_WRONLY:
                return number
        except OSError:
            continue
    raise AssertionError


def answer_without_end(seconds: float) -> None:
    block, until_s = b"x" * 65536, time.monotonic() + seconds
    while time.monotonic() < until_s:
        os.write(answer_pipe(), block)


def answer_nonsense() -> None:
    os.write(answer_pipe(), b"this is no JSON\n")
    time.sleep(60)


def report_for_ever(progress: Callable[[str], None]) -> None:
    while True:
        progress("still at it")


def close_pipes_and_live() -> None:
    os.close(answer_pipe())
    time.sleep(60)


def close_everything() -> None:
    os.closerange(3, 256)


def leave_a_fork_behind() -> None:
    """Dies while a fork of it, with all its pipes, lives on."""
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    os.kill(os.getpid(), 9)


def return_a_set() -> set[int]:
    return {1}


def return_itself() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def measure(text: str) -> int:
    return len(text)


def stop_first() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def where_from(module: str) -> str:
    return str(importlib.import_module(module).__file__)


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


def read_a_file_cut_short(path: str) -> int:
    """Reads a mapped file that somebody has emptied meanwhile."""
    Path(path).write_bytes(b"x" * mmap.PAGESIZE)
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), mmap.PAGESIZE, access=mmap.ACCESS_READ) as mapped:
        file.truncate(0)
        return mapped[0]
