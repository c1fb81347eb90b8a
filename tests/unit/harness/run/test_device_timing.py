"""Timing on a device whose clock, stream order and host are scripted: nothing here waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelwright.harness.run.device_timing import QUEUE_DEPTH, Lane, time_computations
from modelwright.targets.contract import Computation


class Gpu:
    """Does the work of each stream in order, and of different streams side by side, in scripted nanoseconds."""

    def __init__(self, *, compute_ns: int, host_ns: int) -> None:
        self.now_ns = 0
        self.compute_ns = compute_ns
        self.host_ns = host_ns
        self.busy_until_ns: dict[int, int] = {}
        self.order: list[tuple[int, int]] = []
        self.queued: dict[int, int] = {}
        self.most_queued = 0

    def clock_ns(self) -> int:
        return self.now_ns

    def stamp_ns(self, stream: int) -> int:
        """When the device reaches what is put on a stream at this moment."""
        return max(self.now_ns, self.busy_until_ns.get(stream, 0))

    def lane(self, stream: int, inputs: int, depth: int = QUEUE_DEPTH) -> Lane:
        return Lane(
            computations=[ScriptedComputation(self, stream, index) for index in range(inputs)],
            stopwatches=[ScriptedStopwatch(self) for _ in range(depth)],
        )


class ScriptedComputation(Computation):
    def __init__(self, gpu: Gpu, stream: int, index: int) -> None:
        self.stream = stream
        self._gpu = gpu
        self._index = index

    def enqueue(self) -> None:
        gpu = self._gpu
        gpu.now_ns += gpu.host_ns
        gpu.busy_until_ns[self.stream] = gpu.stamp_ns(self.stream) + gpu.compute_ns
        gpu.order.append((self.stream, self._index))


class ScriptedStopwatch:
    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._start_ns = self._end_ns = -1
        self._stream = 0
        self.running = False

    def start(self, stream: int) -> None:
        assert not self.running, "used again before it was read"
        self.running = True
        self._stream = stream
        self._start_ns = self._gpu.stamp_ns(stream)
        queued = self._gpu.queued[stream] = self._gpu.queued.get(stream, 0) + 1
        self._gpu.most_queued = max(self._gpu.most_queued, queued)

    def stop(self, stream: int) -> None:
        assert stream == self._stream
        self._end_ns = self._gpu.stamp_ns(stream)

    def wait_ns(self) -> int:
        assert self.running, "read twice"
        self.running = False
        self._gpu.queued[self._stream] -= 1
        self._gpu.now_ns = max(self._gpu.now_ns, self._end_ns)
        return self._end_ns - self._start_ns


def test_neither_waiting_nor_the_host_is_in_the_latency() -> None:
    gpu = Gpu(compute_ns=1000, host_ns=100)
    times = time_computations([gpu.lane(7, inputs=1)], 20e-6, clock_ns=gpu.clock_ns)
    # The first finds an idle device, whose clock runs while the host queues it; all others are queued ahead.
    assert times.latencies_ns == [1100] + [1000] * (len(times.latencies_ns) - 1)
    assert len(times.latencies_ns) == times.inferences == 21
    assert times.enqueue_ns == [100] * 21
    assert times.elapsed_s == pytest.approx((21 * 1000 + 100) / 1e9)
    assert gpu.most_queued == QUEUE_DEPTH


def test_waiting_for_each_inference_would_count_the_host() -> None:
    gpu = Gpu(compute_ns=1000, host_ns=100)
    times = time_computations([gpu.lane(7, inputs=1, depth=1)], 20e-6, clock_ns=gpu.clock_ns)
    assert set(times.latencies_ns) == {1100}


def test_a_host_that_is_slower_than_the_device_shows_in_the_time_to_queue() -> None:
    gpu = Gpu(compute_ns=100, host_ns=1000)
    times = time_computations([gpu.lane(7, inputs=1)], 20e-6, clock_ns=gpu.clock_ns)
    assert set(times.enqueue_ns) == {1000}
    # The device runs dry and the gaps count: ten times its work, which only the time to queue explains.
    assert set(times.latencies_ns) <= {1000, 1100}


def test_the_warm_up_runs_but_does_not_count() -> None:
    gpu = Gpu(compute_ns=1000, host_ns=0)
    times = time_computations([gpu.lane(7, inputs=1)], 10e-6, warm_up_s=5e-6, clock_ns=gpu.clock_ns)
    # Queued at 0, 0, 1000, 2000, ...: six before 5000 ns, ten more before 15000 ns; the last ends at 16000 ns.
    assert times.inferences == 16
    assert len(times.latencies_ns) == len(times.enqueue_ns) == 10
    assert times.elapsed_s == pytest.approx(16e-6)


def test_inputs_rotate_on_every_stream_and_go_on_where_the_last_window_ended() -> None:
    gpu = Gpu(compute_ns=1000, host_ns=0)
    lanes = [gpu.lane(1, inputs=3), gpu.lane(2, inputs=3)]
    time_computations(lanes, 3e-6, turn=1, clock_ns=gpu.clock_ns)
    assert gpu.order[:8] == [(1, 1), (2, 1), (1, 2), (2, 2), (1, 0), (2, 0), (1, 1), (2, 1)]
    assert gpu.most_queued == QUEUE_DEPTH


def test_streams_side_by_side_raise_the_throughput() -> None:
    elapsed = {}
    for streams in (1, 2):
        gpu = Gpu(compute_ns=1000, host_ns=10)
        times = time_computations(
            [gpu.lane(stream, inputs=2) for stream in range(streams)], 100e-6, clock_ns=gpu.clock_ns
        )
        elapsed[streams] = times.elapsed_s / times.inferences
    assert elapsed[1] == pytest.approx(1000e-9, rel=0.01)
    assert elapsed[2] == pytest.approx(500e-9, rel=0.02)


def test_a_window_without_length_still_measures_one() -> None:
    gpu = Gpu(compute_ns=10**9, host_ns=0)
    times = time_computations([gpu.lane(7, inputs=1)], 0.0, clock_ns=gpu.clock_ns)
    assert times.latencies_ns == [10**9]


def test_one_inference_longer_than_warm_up_and_window_is_measured() -> None:
    gpu = Gpu(compute_ns=10**9, host_ns=0)
    times = time_computations([gpu.lane(7, inputs=1)], 1e-3, warm_up_s=1e-3, clock_ns=gpu.clock_ns)
    assert times.latencies_ns == [10**9]
    assert times.inferences == 3


@pytest.mark.parametrize("where", ["enqueue", "wait_ns"])
def test_an_error_of_the_device_comes_out(where: str) -> None:
    gpu = Gpu(compute_ns=1000, host_ns=0)
    lane = gpu.lane(7, inputs=1)

    def fail(*_: object) -> int:
        raise RuntimeError("an illegal memory access was encountered")

    broken: Callable[..., int] = fail
    setattr(lane.computations[0] if where == "enqueue" else lane.stopwatches[1], where, broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        time_computations([lane], 20e-6, clock_ns=gpu.clock_ns)
