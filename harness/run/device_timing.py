"""Times computations on a GPU by events that the device itself stamps.

What is timed is what `trtexec` calls GPU compute time: from the moment the device reaches the inference in its stream
to the moment it is through with it, inputs and outputs staying on the device. As `trtexec` does, the next inference is
queued while one runs (https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/command-line-programs.html): work
in a stream is done in order, so the start event of the next is stamped when the one before is done, and its time holds
neither that wait nor the time that the host took to queue it. Waiting for each inference before queuing the next would
stamp the start on an idle device and count the host's launching as computation.

Only where the host takes longer to queue an inference than the device to compute it does the device run dry, and the
gaps between kernels count. The host's time is returned for that: a CUDA graph cures it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from modelwright.core.nvidia.cuda import CudaDevice, Event
from modelwright.targets.contract import Computation

QUEUE_DEPTH = 2
"""Inferences in a stream at a time: one that runs, one that waits."""


class Stopwatch(Protocol):
    """Times one stretch of a stream; used again once it was read."""

    def start(self, stream: int) -> None:
        """Puts the start on a stream (`CUstream`), behind what is queued there."""

    def stop(self, stream: int) -> None:
        """Puts the end on the stream."""

    def wait_ns(self) -> int:
        """Waits until the device is past the end; returns the nanoseconds in between."""


class EventStopwatch:
    """A pair of CUDA events. Their resolution is about 500 ns."""

    def __init__(self, device: CudaDevice) -> None:
        self._start, self._end = device.create_event(), device.create_event()

    def start(self, stream: int) -> None:
        self._start.record(stream)

    def stop(self, stream: int) -> None:
        self._end.record(stream)

    def wait_ns(self) -> int:
        self._end.synchronize()
        return round(Event.elapsed_ms(self._start, self._end) * 1e6)


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A stream and what is put on it in turn.

    Attributes:
        computations: One for each rotated input, all on one stream.
        stopwatches: As many as inferences are to be queued at a time: `QUEUE_DEPTH`.
    """

    computations: Sequence[Computation]
    stopwatches: Sequence[Stopwatch]

    @classmethod
    def on_device(cls, computations: Sequence[Computation], device: CudaDevice) -> Self:
        return cls(computations=computations, stopwatches=[EventStopwatch(device) for _ in range(QUEUE_DEPTH)])


@dataclass(frozen=True, kw_only=True)
class ComputeTimes:
    """What a window of computations told.

    Attributes:
        latencies_ns: Time on the device of every measured inference. With several lanes they share the device, and
            each takes longer than alone.
        enqueue_ns: What the host took to queue each of them.
        inferences: All that ran, warm-up included.
        elapsed_s: Wall time over all of them, until the last one was done.
    """

    latencies_ns: list[int]
    enqueue_ns: list[int]
    inferences: int
    elapsed_s: float


def time_computations(
    lanes: Sequence[Lane],
    window_s: float,
    *,
    warm_up_s: float = 0.0,
    turn: int = 0,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> ComputeTimes:
    """Keeps every lane filled for about `window_s` seconds; measures at least one inference.

    Args:
        lanes: The streams.
        window_s: How long inferences are queued that count.
        warm_up_s: How long inferences are queued before that do not.
        turn: The rotated input to begin with.
        clock_ns: The host's clock.
    """
    times: list[int] = []
    enqueue_ns: list[int] = []
    queues: list[deque[tuple[Stopwatch, bool]]] = [deque() for _ in lanes]
    inferences = 0
    begin = clock_ns()
    counts_from = begin + int(warm_up_s * 1e9)
    end = counts_from + int(window_s * 1e9)
    while True:
        place, cycle = inferences % len(lanes), inferences // len(lanes)
        lane, queue = lanes[place], queues[place]
        if len(queue) == len(lane.stopwatches):
            _finish(queue, times)
        now = clock_ns()
        if now >= end and enqueue_ns:
            break
        computation = lane.computations[(turn + cycle) % len(lane.computations)]
        stopwatch = lane.stopwatches[cycle % len(lane.stopwatches)]
        counts = now >= counts_from
        stopwatch.start(computation.stream)
        queuing = clock_ns()
        computation.enqueue()
        queued = clock_ns()
        stopwatch.stop(computation.stream)
        queue.append((stopwatch, counts))
        if counts:
            enqueue_ns.append(queued - queuing)
        inferences += 1
    for queue in queues:
        while queue:
            _finish(queue, times)
    return ComputeTimes(
        latencies_ns=times, enqueue_ns=enqueue_ns, inferences=inferences, elapsed_s=(clock_ns() - begin) / 1e9
    )


def _finish(queue: deque[tuple[Stopwatch, bool]], times: list[int]) -> None:
    """Waits for the oldest inference of a lane and keeps its time if it counts."""
    stopwatch, counts = queue.popleft()
    latency_ns = stopwatch.wait_ns()
    if counts:
        times.append(latency_ns)
