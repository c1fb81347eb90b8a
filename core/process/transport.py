"""Where a program runs and how to reach it: started, written to, read from, ended. Knows nothing of calls or models.

Every process of ours is started here. Where it runs is a strategy: `LocalTransport` starts it on this machine; one that
starts it elsewhere gives the same `Process`, and nothing above this module changes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from modelwright.core.process.pipes import Pipes, open_pipes

LOG_BYTES = 16 * 2**20
"""What is kept at most of what a process prints; of more only the end stays."""
_LOG_TAIL_BYTES = 2**16
_KILL_WAIT_S = 10.0
"""For a killed process to be gone; one that hangs in the kernel, on a lost disk for instance, is left to itself."""
_GUARD = 'read _; kill -9 "-$1"'
_SHELL = Path("/bin/sh")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A Python program to start. Its standard input and output are for whoever starts it; the rest goes to a log.

    Attributes:
        arguments: What follows the interpreter: `-m` and a module, or a script, and what they take.
        python: The interpreter; None for the one with this package in it, wherever it runs.
        isolated: Whether the user's own modules do not count (`-I`). Those that merely lie about, in the working
            directory or beside a script, never do (`-P`).
        environment: Variables set over those of the machine that it runs on; None takes one away.
    """

    arguments: Sequence[str]
    python: Path | None = None
    isolated: bool = False
    environment: Mapping[str, str | None] = field(default_factory=dict)


class Process(Pipes, Protocol):
    """A started program."""

    @property
    def pid(self) -> int:
        """As the machine that it runs on counts."""

    def poll(self) -> int | None:
        """Returns the exit code, negative for the signal that ended it; None while it runs."""

    def wait(self, wait_s: float) -> int | None:
        """As `poll`, but waits for the end as long as given."""

    def kill(self) -> None:
        """Ends it and all that it started, at once. May be called from any thread, and again."""

    def read_log(self) -> str:
        """Returns the end of what it printed."""


class Transport(Protocol):
    """A way to start programs somewhere."""

    def start(self, program: Program) -> Process:
        """Starts a program.

        Raises:
            OSError: It cannot be started.
        """


class LocalTransport:
    """Starts programs on this machine."""

    def start(self, program: Program) -> Process:
        return LocalProcess(program)


class LocalProcess:
    """A program on this machine, in a session of its own where the system knows such a thing.

    It ends with the process that started it, even where that one is killed: a guard, a shell outside the session, waits
    for the end of a pipe that this process alone holds and then ends the session. No signal at the death of the parent
    (`PR_SET_PDEATHSIG`) does that, for it comes when the *thread* ends that started the child.
    """

    def __init__(self, program: Program) -> None:
        self._log = _LogFile()
        self._swept = False
        self._guard: _Guard | None = None
        try:
            self._popen = subprocess.Popen(
                [program.python or sys.executable, "-I" if program.isolated else "-P", *program.arguments],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log.file,
                env=_make_variables(program.environment),
                # Ctrl-C reaches the parent only, which then ends all of it.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except BaseException:
            self._log.close()
            raise
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._pipes = open_pipes(self._popen.stdin, self._popen.stdout)
        _started.add(self)
        try:
            self._guard = _Guard(self.pid) if hasattr(os, "killpg") and _SHELL.exists() else None
        except BaseException:
            self.kill()
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._popen.pid

    def read(self, wait_s: float) -> bytes | None:
        self._log.cut()
        return self._pipes.read(wait_s)

    def write(self, data: memoryview, wait_s: float) -> int:
        return self._pipes.write(data, wait_s)

    def end_input(self) -> None:
        self._pipes.end_input()

    def poll(self) -> int | None:
        code = self._popen.poll()
        if code is not None:
            self._sweep()
        return code

    def wait(self, wait_s: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(wait_s)
        return self.poll()

    def kill(self) -> None:
        self._sweep()
        self._popen.kill()
        self.wait(_KILL_WAIT_S)

    def read_log(self) -> str:
        return self._log.read_tail()

    def close(self) -> None:
        """Lets go of all that was held for it. It must have ended."""
        if self._guard is not None:
            self._guard.end()
        self.release()

    def release(self) -> None:
        """Lets go of pipes, log and guard without ending anything, as a copy of the process that has them must."""
        self._pipes.close()
        self._log.close()
        if self._guard is not None:
            self._guard.release()

    def _sweep(self) -> None:
        """Ends the session, once: when its leader is gone, another one may get its number."""
        if self._swept:
            return
        self._swept = True
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


class _Guard:
    """A shell that ends a session when this process is gone; a thread would be gone with it."""

    def __init__(self, session: int) -> None:
        guarded, self._life = os.pipe()
        try:
            self._popen = subprocess.Popen(
                [_SHELL, "-c", _GUARD, "guard", str(session)],
                stdin=guarded,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={},
            )
        except BaseException:
            self.release()
            raise
        finally:
            os.close(guarded)

    def end(self) -> None:
        self._popen.kill()
        self._popen.wait()
        self.release()

    def release(self) -> None:
        if self._life >= 0:
            os.close(self._life)
            self._life = -1


class _LogFile:
    """A nameless file that a process appends to."""

    def __init__(self) -> None:
        handle, path = tempfile.mkstemp(prefix="modelwright-log-")
        os.close(handle)
        # By its name, because only so the system appends, whatever was cut off before.
        self.file = Path(path).open("ab+", buffering=0)  # noqa: SIM115 - lives as long as the process
        self._path = Path(path)
        self._unlink()

    def cut(self) -> None:
        """Throws away all but the end when there is too much of it."""
        if os.fstat(self.file.fileno()).st_size > LOG_BYTES:
            tail = self._read_tail()
            self.file.truncate(0)
            self.file.write(tail)

    def read_tail(self) -> str:
        return self._read_tail().decode(errors="replace")

    def close(self) -> None:
        self.file.close()
        self._unlink()

    def _read_tail(self) -> bytes:
        size = os.fstat(self.file.fileno()).st_size
        self.file.seek(max(0, size - _LOG_TAIL_BYTES))
        return self.file.read(_LOG_TAIL_BYTES) or b""

    def _unlink(self) -> None:
        with contextlib.suppress(OSError):  # Windows keeps the name of a file that is open
            self._path.unlink()


def _make_variables(changes: Mapping[str, str | None]) -> dict[str, str]:
    merged = {**os.environ, **changes}
    variables = {name: value for name, value in merged.items() if value is not None}
    if "PYTHONPATH" in variables:
        # An empty entry, as in `PYTHONPATH=$PYTHONPATH:/mine`, would be the working directory after all.
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, variables["PYTHONPATH"].split(os.pathsep)))
    return variables


_started: weakref.WeakSet[LocalProcess] = weakref.WeakSet()


def _release_all() -> None:
    """After a fork: a copy of this process must not keep alive, by its open pipes, what ends with this process."""
    for process in list(_started):
        process.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_all)
