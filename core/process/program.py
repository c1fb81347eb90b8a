"""A program run to its end: one that is no child of ours to call, such as pip or a script in another environment."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modelwright.core.errors import ModelwrightError
from modelwright.core.process.transport import LocalTransport, Process, Program, Transport

_LINE_BYTES = 2**16
"""Of a line without an end, what is kept."""
_TAIL_LINES = 20
_LOOK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a program ended.

    Attributes:
        code: Its exit code, negative for the signal that ended it.
        tail: The last lines that it printed: of standard output, then of standard error.
    """

    code: int
    tail: tuple[str, ...]


def run_program(
    program: Program,
    *,
    purpose: str,
    timeout_s: float,
    error: type[ModelwrightError],
    on_line: Callable[[str], None] | None = None,
    transport: Transport | None = None,
) -> Finished:
    """Runs a program with nothing to read, and gives what it prints on standard output away line by line.

    It ends with this call, however that ends, and so does all that it started.

    Args:
        program: What to run.
        purpose: What for, as it reads in an error: `pip`.
        timeout_s: After which it is ended.
        error: Raised then.
        on_line: Takes a line without its end.
        transport: Where to run it; None for this machine.

    Raises:
        OSError: It cannot be started.
    """
    process = (transport or LocalTransport()).start(program)
    try:
        process.end_input()
        lines: deque[str] = deque(maxlen=_TAIL_LINES)
        for line in _read_lines(process, time.monotonic() + timeout_s):
            lines.append(line)
            if on_line is not None:
                on_line(line)
        code = process.poll()
        tail = (*lines, *process.read_log().splitlines())[-_TAIL_LINES:]
        if code is None:
            raise error(f"{purpose} took longer than {timeout_s:g} s and was stopped", detail="\n".join(tail) or None)
        return Finished(code=code, tail=tail)
    finally:
        process.kill()
        process.close()


def _read_lines(process: Process, until_s: float) -> Iterator[str]:
    """Yields what a process prints, until it has ended or its time is over."""
    rest, block = b"", None
    while (left_s := until_s - time.monotonic()) > 0:
        if block == b"":  # it closed its output, but may live on
            if process.wait(min(_LOOK_S, left_s)) is not None:
                break
            continue
        ended = process.poll() is not None  # asked before reading, so that its last words are not missed
        block = process.read(0.0 if ended else min(_LOOK_S, left_s))
        if block is None and ended:
            break
        *lines, rest = (rest + (block or b"")).split(b"\n")
        rest = rest[-_LINE_BYTES:]
        yield from (line.decode(errors="replace").rstrip() for line in lines)
    if rest:
        yield rest.decode(errors="replace").rstrip()
