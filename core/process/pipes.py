"""The two pipes to a process, read and written for a bounded time: nobody blocks on a process that has stopped."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from typing import IO, Protocol

_BLOCK_BYTES = 1 << 16
_BLOCKS_AHEAD = 16
"""Read before they are asked for, where a thread reads: what a process may cost in memory."""


class Pipes(Protocol):
    """What a process reads from and writes to, seen from the other side."""

    def read(self, wait_s: float) -> bytes | None:
        """Returns what has come, waiting for it as long as given; None for nothing, empty at the end."""

    def write(self, data: memoryview, wait_s: float) -> int:
        """Returns how many bytes were taken from the beginning of `data`, possibly none.

        Raises:
            BrokenPipeError: The other side does not read any more.
        """

    def end_input(self) -> None:
        """Tells the process that nothing more comes."""

    def close(self) -> None:
        """Lets go of both ends."""


def open_pipes(to_process: IO[bytes], from_process: IO[bytes]) -> Pipes:
    """Returns the pipes in the way that this system can wait for them."""
    return PolledPipes(to_process, from_process) if hasattr(select, "poll") else PumpedPipes(to_process, from_process)


class PolledPipes:
    """Pipes that the kernel waits for: no thread, no limit on their numbers."""

    def __init__(self, to_process: IO[bytes], from_process: IO[bytes]) -> None:
        self._to, self._from = to_process, from_process
        os.set_blocking(to_process.fileno(), False)

    def read(self, wait_s: float) -> bytes | None:
        fd = self._from.fileno()
        return os.read(fd, _BLOCK_BYTES) if _wait(fd, select.POLLIN, wait_s) else None

    def write(self, data: memoryview, wait_s: float) -> int:
        fd = self._to.fileno()
        if not _wait(fd, select.POLLOUT, wait_s):
            return 0
        with contextlib.suppress(BlockingIOError):  # some room, but less than what must be written in one piece
            return os.write(fd, data)
        return 0

    def end_input(self) -> None:
        self._to.close()

    def close(self) -> None:
        self._to.close()
        self._from.close()


def _wait(fd: int, event: int, wait_s: float) -> bool:
    poll = select.poll()  # unlike `select`, it takes file descriptors above 1023
    poll.register(fd, event)
    return bool(poll.poll(wait_s * 1e3))


class PumpedPipes:
    """Pipes that threads wait for, where the system cannot poll one (Windows)."""

    def __init__(self, to_process: IO[bytes], from_process: IO[bytes]) -> None:
        self._to, self._from = to_process, from_process
        self._blocks: queue.Queue[bytes] = queue.Queue(_BLOCKS_AHEAD)
        self._closed = False
        self._reader = threading.Thread(target=self._pump, daemon=True)
        self._reader.start()
        self._writer: threading.Thread | None = None
        self._refusal: OSError | None = None

    def read(self, wait_s: float) -> bytes | None:
        with contextlib.suppress(queue.Empty):
            return self._blocks.get(timeout=wait_s) if wait_s > 0 else self._blocks.get_nowait()
        return None

    def write(self, data: memoryview, wait_s: float) -> int:
        # All or nothing: a later call with the same bytes asks again for the thread that an earlier one started.
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_all, args=(data,), daemon=True)
            self._writer.start()
        self._writer.join(wait_s)
        if self._writer.is_alive():
            return 0
        self._writer = None
        if self._refusal is not None:
            raise BrokenPipeError(str(self._refusal))
        return len(data)

    def end_input(self) -> None:
        if self._writer is None or not self._writer.is_alive():  # else it ends with the process
            self._to.close()

    def close(self) -> None:
        """Lets go of what no thread waits for; one that waits on what the process left behind keeps its end."""
        self._closed = True
        if self._writer is not None:
            self._writer.join(timeout=1)
        self.end_input()
        self._reader.join(timeout=1)
        if not self._reader.is_alive():
            self._from.close()

    def _pump(self) -> None:
        block = b"first"
        while block and not self._closed:
            block = os.read(self._from.fileno(), _BLOCK_BYTES)
            while not self._closed:
                with contextlib.suppress(queue.Full):
                    self._blocks.put(block, timeout=0.2)
                    break

    def _write_all(self, data: memoryview) -> None:
        try:
            while data:
                data = data[os.write(self._to.fileno(), data) :]
        except OSError as error:
            self._refusal = error
