"""Work in child processes: nothing heavy, hostile or crash-prone runs in the parent.

The parent starts a small server (`serve.py`) by a transport, sends it one JSON line a call and blocks until the answer
comes: it steals no core from what the child measures. Arrays cross by file, never by pickle. What vendors print lands
in a log, whose end is shown when the child dies.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from modelwright.core.errors import BuildFailedError, ModelwrightError
from modelwright.core.process.transport import LocalTransport, Process, Program, Transport

LASTING = "* "
"""Begins lines of progress that tell what is over, and are worth keeping: nothing crashes during them."""
Progress = Callable[[str], None]

SERVER = ("-m", "modelwright.core.process.serve")
CALL_TIMEOUT_S = 24 * 3600.0
"""Longer than any build that works; what hangs ends all the same."""
REPLY_BYTES = 64 * 2**20
"""No answer of ours comes near; a longer line would only fill the memory."""
_LOG_TAIL_LINES = 25
_NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
"""What no vendor is told: onnxruntime 1.31 writes a session file for its telemetry unless this is set."""
_ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy's threads spin while they wait for each other: beside other work a factorization took four times as long with
two of them as with one. The runtimes have pools of their own."""
_SLEEPING_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""torch's threads spin likewise, where one waits for another that has no core: beside other work, small layers took a
hundred times as long with two as with one. Asleep they take a third longer. What is measured is left as it comes."""
_LOOK_S = 1.0
"""Between two looks at whether the child still lives: its end is seen at once, unless something it started holds its
pipe open."""
_LEAVE_S = 2.0
"""For a child to leave by itself."""
_SIGKILL = 9  # Windows' `signal` lacks the name
_SIGBUS = getattr(signal, "SIGBUS", 7)


class Child:
    """A child process that answers calls, one at a time, from any thread.

    Args:
        purpose: What the child is for, as it reads in an error: `building ort-int8`.
        crash_error: The error to raise when the child dies or hangs.
        environment: Variables set in the child on top of the parent's.
        threads: What the OpenMP and BLAS pools of the child are limited to, where it measures; None leaves their sizes
            alone.
        transport: Where it runs; None for this machine.
    """

    def __init__(
        self,
        purpose: str,
        *,
        crash_error: type[ModelwrightError] = BuildFailedError,
        environment: Mapping[str, str] | None = None,
        threads: int | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.purpose = purpose
        self._crash_error = crash_error
        self._phase = ""
        self._inbox = bytearray()
        self._turn = threading.Lock()
        self._closed = False
        self._stopped = ""
        usual = {**_NO_TELEMETRY, **_ONE_BLAS_THREAD, **({} if threads else _SLEEPING_THREADS)}
        unset = {name: value for name, value in usual.items() if name not in os.environ}
        variables = {**unset, **_thread_limits(threads), **(environment or {})}
        self._process: Process = (transport or LocalTransport()).start(
            Program(arguments=SERVER, environment=variables),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(
        self,
        function: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        progress: Progress | None = None,
    ) -> Any:
        """Calls `module:function(**params)` in the child and returns its JSON result.

        A function whose module was called before finds that module's state as it left it. Called with a `progress`
        parameter declared, it gets a function to report phases with.

        Raises:
            ModelwrightError: What the function raised, rebuilt; or `crash_error` when the child crashed, hung past
                `timeout_s`, or raised or returned something that cannot cross.
        """
        request = json.dumps({"function": function, "params": dict(params or {})}).encode() + b"\n"
        with self._turn:
            if self._stopped:
                raise self._crash_error(f"{self.purpose} cannot go on: {self._stopped}")
            self._phase = ""
            try:
                reply = self._exchange(request, _Deadline(timeout_s), progress)
            except BaseException as error:  # whatever it was: the answer to this call must not become that to the next
                self._stopped = str(error) or "it was interrupted"
                self._process.kill()
                raise
        fault = reply.get("error")
        if fault is None:
            return reply["result"]
        if "summary" in fault:
            raise self._crash_error(f"{self.purpose} failed: {fault['summary']}", detail=fault.get("traceback"))
        raise ModelwrightError.from_dict(fault)

    def close(self) -> None:
        """Ends the child and everything that it started; a second call does nothing."""
        self._end(_LEAVE_S)

    def kill(self) -> None:
        """Ends the child at once, without waiting for what it is doing."""
        self._end(0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self.kill()  # Ctrl-C: do not wait for a build that nobody wants any more
        self.close()

    def _end(self, patience_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            # Where nobody waits for an answer, the child may leave by itself.
            if patience_s > 0 and self._turn.acquire(blocking=False):
                try:
                    self._process.end_input()
                    self._process.wait(patience_s)
                finally:
                    self._turn.release()
        finally:
            self._process.kill()
            with self._turn:
                self._stopped = self._stopped or "it was closed"
                self._process.close()

    def _exchange(self, request: bytes, deadline: _Deadline, progress: Progress | None) -> dict[str, Any]:
        """Sends a call and returns the message that ends it."""
        self._send(request, deadline)
        while True:
            line = self._read_line(deadline)
            try:
                message: dict[str, Any] = json.loads(line)
                phase = message.get("progress")
            except (ValueError, AttributeError, RecursionError) as error:
                raise self._fail("answered with something that is no message of ours") from error
            if phase is None:
                return message
            if not phase.startswith(LASTING):
                self._phase = phase
            if progress is not None:
                progress(phase)

    def _send(self, request: bytes, deadline: _Deadline) -> None:
        rest = memoryview(request)
        try:
            while rest and self._process.poll() is None:  # a dead child is reported by the read that follows
                rest = rest[self._process.write(rest, deadline.limit(_LOOK_S)) :]
                if rest and deadline.passed:
                    raise self._fail(f"did not take its parameters within {deadline.timeout_s:g} s and was stopped")
        except BrokenPipeError:
            pass

    def _read_line(self, deadline: _Deadline) -> bytes:
        searched = 0
        while (end := self._inbox.find(b"\n", searched)) < 0:
            searched = len(self._inbox)
            if searched > REPLY_BYTES:
                raise self._fail(f"answered with more than {REPLY_BYTES / 2**20:.0f} MiB and was stopped")
            if deadline.passed:
                raise self._fail(f"did not answer within {deadline.timeout_s:g} s{self._during()} and was stopped")
            ended = self._process.poll() is not None  # asked before reading, so that its last words are not missed
            block = self._process.read(0.0 if ended else deadline.limit(_LOOK_S))
            if block:
                self._inbox += block
            elif ended or block is not None:
                raise self._explain_end()
        line = bytes(self._inbox[:end])
        del self._inbox[: end + 1]
        return line

    def _explain_end(self) -> ModelwrightError:
        """Words the end of the answers, which mostly is that of the process."""
        code = self._process.wait(_LEAVE_S)
        if self._closed:
            return self._fail(f"was closed{self._during()}, before it had answered")
        if code is None:
            return self._fail(f"closed the pipe that it answers on{self._during()} and was stopped")
        return self._fail(f"crashed{self._during()}: the process {describe_exit(code)}", hint=_hint_for_exit(code))

    def _fail(self, what: str, *, hint: str | None = None) -> ModelwrightError:
        lines = self._process.read_log().splitlines()
        detail = "\n".join(lines[-_LOG_TAIL_LINES:]) or None
        return self._crash_error(f"{self.purpose} {what}", hint=hint, detail=detail)

    def _during(self) -> str:
        return f" during {self._phase}" if self._phase else ""


class _Deadline:
    """When to stop waiting."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._at_s = time.monotonic() + timeout_s

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._at_s

    def limit(self, wait_s: float) -> float:
        """Returns what of a waiting time still lies before the deadline."""
        return max(0.0, min(wait_s, self._at_s - time.monotonic()))


def run_in_child(
    function: str,
    params: Mapping[str, Any],
    *,
    purpose: str,
    crash_error: type[ModelwrightError] = BuildFailedError,
    timeout_s: float = CALL_TIMEOUT_S,
    progress: Progress | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Runs one call in a child process of its own; see `Child` and `Child.call`."""
    with Child(purpose, crash_error=crash_error, environment=environment) as child:
        return child.call(function, params, timeout_s=timeout_s, progress=progress)


def describe_exit(code: int) -> str:
    """Says how a process ended, as it reads after `the process`."""
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"left with exit code {code}"


def _thread_limits(threads: int | None) -> dict[str, str]:
    if threads is None:
        return {}
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))


def _hint_for_exit(code: int) -> str | None:
    if code == -_SIGKILL:
        return "SIGKILL is mostly the kernel running out of memory: free some, or use fewer samples"
    if code == -_SIGBUS:
        return "SIGBUS is mostly a file that was changed while it was read, or a full disk: leave the samples alone"
    return None
