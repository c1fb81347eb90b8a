"""Many samples through one session: one thread each, as many at a time as there are cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from modelwright.core.cores import available_cores
from modelwright.core.errors import BuildFailedError
from modelwright.targets.contract import Array, Feeds
from modelwright.targets.graphs.run import open_session

T = TypeVar("T")
Run = Callable[[Feeds], list[Array]]


def open_runner(model: Any, names: list[str], scratch: Path) -> Run:
    """Returns what runs a graph on one sample, from any thread.

    One thread an inference: networks that are simulated are small, and two threads spend as much in waiting for each
    other as they save.

    Raises:
        BuildFailedError: ONNX Runtime refuses the graph; what is returned raises it where it cannot run it.
    """
    session = open_session(model, scratch, threads=1)

    def run(feeds: Feeds) -> list[Array]:
        try:
            found: list[Array] = session.run(names, dict(feeds))
        except Exception as error:  # onnxruntime raises a class of its own for every status code
            raise BuildFailedError("ONNX Runtime cannot run the simulation", detail=str(error)) from error
        return found

    return run


def map_samples(function: Callable[[Feeds], T], feeds: Iterable[Feeds]) -> Iterator[T]:
    """Yields what a function makes of each sample, in their order; few samples are held at a time."""
    workers = available_cores()
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for sample in feeds:
            waiting.append(pool.submit(function, sample))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
