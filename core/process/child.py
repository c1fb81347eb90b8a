"""Work in child processes: nothing heavy, hostile or crash-prone runs in the parent.

The parent starts a small launcher (`python -m modelwright.core.process.child`), sends it one JSON line a call and
blocks on a pipe until the answer comes: it steals no core from what the child measures. Arrays cross by file, never by
pickle. What vendors print lands in a log, whose end is shown when the child dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import IO, Any, Self

from modelwright.core.errors import BuildFailedError, ModelwrightError, ToolchainMissingError
from modelwright.core.files import describe_os_error

Progress = Callable[[str], None]

_LOG_TAIL_LINES = 25
_NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
"""What no vendor is told: onnxruntime 1.31 writes a session file for its telemetry unless this is set."""
_PR_SET_PDEATHSIG = 1


class Child:
    """A child process that answers calls, one at a time.

    Args:
        purpose: What the child is for, as it reads in an error: `building ort-int8`.
        crash_error: The error to raise when the child dies or hangs.
        environment: Variables set in the child on top of the parent's.
        threads: What the OpenMP and BLAS pools of the child are limited to; None leaves them alone.
    """

    def __init__(
        self,
        purpose: str,
        *,
        crash_error: type[ModelwrightError] = BuildFailedError,
        environment: Mapping[str, str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.purpose = purpose
        self._crash_error = crash_error
        self._phase = ""
        self._buffer = b""
        self._closed = False
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        to_child, self._write_fd = os.pipe()
        self._read_fd, from_child = os.pipe()
        # Held by nobody but this process: its end is how the child's guard learns that this process is gone.
        guarded, self._life_fd = os.pipe()
        handed = (to_child, from_child, guarded)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "modelwright.core.process.child", *map(str, handed)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=handed,
                # A session of its own: Ctrl-C reaches the parent only, which then ends the whole group.
                start_new_session=True,
                env={**_NO_TELEMETRY, **os.environ, **_thread_limits(threads), **(environment or {})},
            )
        except OSError:
            for fd in (self._write_fd, self._read_fd, self._life_fd):
                os.close(fd)
            self._log.close()
            raise
        finally:
            for fd in handed:
                os.close(fd)

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(
        self,
        function: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Calls `module:function(**params)` in the child and returns its JSON result.

        A function whose module was called before finds that module's state as it left it. Called with a `progress`
        parameter declared, it gets a function to report phases with.

        Raises:
            ModelwrightError: What the function raised, rebuilt; or `crash_error` when the child crashed, hung past
                `timeout_s`, or raised something that is not ours.
        """
        self._phase = ""
        with contextlib.suppress(BrokenPipeError):  # a dead child is reported by the read below
            _write_line(self._write_fd, {"function": function, "params": dict(params or {})})
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            line = self._read_line(deadline, timeout_s)
            message = json.loads(line)
            if "progress" in message:
                self._phase = message["progress"]
                if progress is not None:
                    progress(self._phase)
            elif "error" in message:
                error = message["error"]
                if "traceback" in error:
                    raise self._crash_error(f"{self.purpose} failed: {error['summary']}", detail=error["traceback"])
                raise ModelwrightError.from_dict(error)
            else:
                return message["result"]

    def close(self) -> None:
        """Ends the child and everything that it started; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.close(self._write_fd)  # end of input: the child leaves by itself
                self._write_fd = -1
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                pass
            except BaseException:
                self._kill()
                raise
        self._kill()
        for name in ("_write_fd", "_read_fd", "_life_fd"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)
        self._log.close()

    def kill(self) -> None:
        """Ends the child at once, without waiting for what it is doing."""
        self._kill()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._kill()  # Ctrl-C: do not wait for a build that nobody wants any more
        self.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.poll() is None:
            self._process.wait()

    def _read_line(self, deadline: float | None, timeout_s: float | None) -> bytes:
        while b"\n" not in self._buffer:
            wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not _wait_readable(self._read_fd, wait_s):
                self._kill()
                raise self._crash_error(
                    f"{self.purpose} did not answer within {timeout_s:g} s{self._during()} and was stopped",
                    detail=self._log_tail(),
                )
            block = os.read(self._read_fd, 1 << 16)
            if not block:
                code = self._process.wait()
                raise self._crash_error(
                    f"{self.purpose} crashed{self._during()}: the process {_describe_exit(code)}",
                    hint=_hint_for_exit(code),
                    detail=self._log_tail(),
                )
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _during(self) -> str:
        return f" during {self._phase}" if self._phase else ""

    def _log_tail(self) -> str | None:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:]) or None


def run_in_child(
    function: str,
    params: Mapping[str, Any],
    *,
    purpose: str,
    crash_error: type[ModelwrightError] = BuildFailedError,
    timeout_s: float | None = None,
    progress: Progress | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Runs one call in a child process of its own; see `Child` and `Child.call`."""
    with Child(purpose, crash_error=crash_error, environment=environment) as child:
        return child.call(function, params, timeout_s=timeout_s, progress=progress)


def _thread_limits(threads: int | None) -> dict[str, str]:
    if threads is None:
        return {}
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))


def _describe_exit(code: int) -> str:
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"left with exit code {code}"


def _hint_for_exit(code: int) -> str | None:
    if code == -signal.SIGKILL:
        return "SIGKILL is mostly the kernel running out of memory: free some, or use fewer samples"
    return None


def _wait_readable(fd: int, timeout_s: float | None) -> bool:
    """Blocks until there is something to read or the other side is gone; False after the timeout."""
    poll = select.poll()  # unlike `select`, it takes file descriptors above 1023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1e3))


def _write_line(fd: int, message: Mapping[str, Any]) -> None:
    data = json.dumps(message, allow_nan=True).encode() + b"\n"
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read_calls(fd: int) -> Iterator[dict[str, Any]]:
    with os.fdopen(fd, "rb", closefd=False) as stream:
        for line in stream:
            yield json.loads(line)


def _answer(call: Mapping[str, Any], reply_fd: int) -> dict[str, Any]:
    """Runs one call; every error becomes a message, because the border knows nothing but JSON."""
    try:
        module, _, name = call["function"].partition(":")
        function = getattr(importlib.import_module(module), name)
        params = dict(call["params"])
        if "progress" in function.__code__.co_varnames[: _count_parameters(function)]:
            params["progress"] = lambda text: _write_line(reply_fd, {"progress": text})
        return {"result": function(**params)}
    except ModelwrightError as error:
        cause = error.__cause__
        if error.detail is None and cause is not None:
            error.detail = f"{type(cause).__name__}: {cause}"
        return {"error": error.to_dict()}
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "modelwright"):
            return _describe_foreign(error)
        missing = ToolchainMissingError(f"Python package {package} is not installed", hint=f"pip install '{package}'")
        return {"error": missing.to_dict()}
    except OSError as error:
        explained = describe_os_error(error)
        return _describe_foreign(error) if explained is None else {"error": explained.to_dict()}
    except Exception as error:  # anything a vendor raises has to reach the parent as text
        return _describe_foreign(error)


def _describe_foreign(error: Exception) -> dict[str, Any]:
    summary = f"{type(error).__name__}: {str(error).strip()[:400]}"
    return {"error": {"summary": summary, "traceback": traceback.format_exc()}}


def _count_parameters(function: Any) -> int:
    code = function.__code__
    return int(code.co_argcount + code.co_kwonlyargcount)


def _serve(call_fd: int, reply_fd: int, guarded_fd: int) -> None:
    if sys.platform == "linux":
        # The child must not outlive a parent that was killed.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Nor must what vendors start: a shell waits for the end of the parent and then ends the whole group. A thread
    # would not do, for it dies with the child, and waits for the interpreter's lock while a vendor holds it.
    with contextlib.suppress(OSError):
        subprocess.Popen(["/bin/sh", "-c", "read _; kill -9 0"], stdin=guarded_fd)
    os.close(guarded_fd)
    for call in _read_calls(call_fd):
        _write_line(reply_fd, _answer(call, reply_fd))
    # Some runtimes crash or hang in their destructors at exit; all results are out, nothing is left to save.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    # The guard stays: the end of the calls may be the death of the parent, and then the guard has yet to act.
    os._exit(0)


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:4]))
