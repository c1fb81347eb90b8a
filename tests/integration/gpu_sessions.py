"""A runtime that computes y = 2 x on the device through the CUDA driver alone, and how the tests load it in a child.

The work is a host function of the stream (`cuLaunchHostFunc`), which reads and writes device memory: that is only
possible with the fake driver, whose device memory is the host's.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.nvidia.cuda import CudaDevice
from modelwright.core.nvidia.driver import LIBRARY
from modelwright.core.records.signature import Signature
from modelwright.harness.run import worker
from modelwright.harness.run.loaded import loaded
from modelwright.harness.run.windows import run_energy_window, run_window
from modelwright.targets.contract import (
    Array,
    BuildRequest,
    BuildResult,
    Computation,
    Feeds,
    RunSettings,
    Session,
    Target,
    TargetRecord,
)

_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
ALLOCATED_AT_LOAD = 1 << 20


class DoublingComputation(Computation):
    def __init__(self, device: CudaDevice, feeds: Feeds, stream: Any, use_graph: bool) -> None:
        x = np.ascontiguousarray(feeds["x"])
        self.stream = stream.handle
        self.uses_graph = use_graph
        self.input, self.output = device.allocate(x.nbytes), device.allocate(x.nbytes)
        device.copy_to_device(self.input, x, x.nbytes, stream)
        stream.synchronize()
        self._size = x.size
        self._function = _HOST_FUNCTION(self._double)
        self._driver = ctypes.CDLL(LIBRARY)
        self._graph = device.capture(stream, self._launch) if use_graph else None

    def enqueue(self) -> None:
        if self._graph is None:
            self._launch()
        else:
            self._graph.launch(self.stream)

    def _launch(self) -> None:
        assert self._driver.cuLaunchHostFunc(ctypes.c_void_p(self.stream), self._function, None) == 0

    def _double(self, _: Any) -> None:
        views = [
            np.ctypeslib.as_array((ctypes.c_float * self._size).from_address(buffer.pointer))
            for buffer in (self.input, self.output)
        ]
        np.multiply(views[0], 2.0, out=views[1])


class DoublingSession(Session):
    """What the recipe says decides how it misbehaves."""

    def __init__(self, device: CudaDevice, recipe: Mapping[str, Any], settings: RunSettings) -> None:
        self.device = recipe.get("device", "cuda")
        self._gpu = device
        self._recipe = recipe
        self._settings = settings
        self._weights = device.allocate(recipe.get("weights_bytes", ALLOCATED_AT_LOAD))
        self._streams = [device.create_stream() for _ in range(settings.streams)]
        self.runs = 0
        self.computations: list[DoublingComputation] = []

    def run(self, feeds: Feeds) -> dict[str, Array]:
        self.runs += 1
        if self.runs > self._recipe.get("runs_until_out_of_memory", 1 << 30):
            raise RuntimeError("CUDA error: out of memory")
        computation = DoublingComputation(self._gpu, feeds, self._streams[0], use_graph=False)
        computation.enqueue()
        y = np.empty_like(feeds["x"])
        self._gpu.copy_to_host(y, computation.output, y.nbytes, self._streams[0])
        self._streams[0].synchronize()
        for buffer in (computation.input, computation.output):
            buffer.close()
        return {"y": y}

    def bind_computation(self, feeds: Feeds, stream_index: int = 0) -> Computation | None:
        if stream_index >= self._recipe.get("most_streams", 1 << 30):
            return None
        use_graph = self._settings.cuda_graph and self._recipe.get("graph", True)
        self.computations.append(DoublingComputation(self._gpu, feeds, self._streams[stream_index], use_graph))
        return self.computations[-1]


class DoublingTarget(Target):
    record = TargetRecord(
        name="doubling-fp32",
        runtime="doubling",
        precision="fp32",
        title="Doubling",
        is_float=True,
        needs_calibration=False,
        build_packages={},
        run_packages={},
        build_extra="",
        run_extra="",
        devices=("cuda",),
    )

    def build(self, request: BuildRequest) -> BuildResult:
        raise NotImplementedError

    @contextlib.contextmanager
    def load(
        self,
        directory: Path,
        model_file: str,
        recipe: Mapping[str, Any],
        signature: Signature,
        settings: RunSettings,
    ) -> Iterator[Session]:
        with CudaDevice(spin=settings.spin) as device:
            yield DoublingSession(device, recipe, settings)


def open_doubling(**params: Any) -> dict[str, Any]:
    """Calls `worker.open_in_child`, which finds the doubling runtime under every name."""
    find: Callable[[str], Target] = lambda _name: DoublingTarget()  # noqa: E731
    worker.get_target = find  # type: ignore[assignment]
    return worker.open_in_child(**params)


def clear_computed() -> None:
    """Overwrites the outputs of all computations with zeros."""
    session = loaded.session
    assert isinstance(session, DoublingSession)
    for computation in session.computations:
        zeros = np.zeros(computation._size, np.float32)
        session._gpu.copy_to_device(computation.output, zeros, zeros.nbytes, 0)


def read_computed() -> list[list[float]]:
    """Returns what lies in the outputs of all computations, which only `enqueue` writes."""
    session = loaded.session
    assert isinstance(session, DoublingSession)
    computed = []
    for computation in session.computations:
        y = np.zeros(computation._size, np.float32)
        session._gpu.copy_to_host(y, computation.output, y.nbytes, 0)
        computed.append(y.tolist())
    return computed


def run_window_for(window_s: float) -> dict[str, Any]:
    """Runs a window and adds how often the session ran end to end, and how long the call took."""
    session = loaded.session
    assert isinstance(session, DoublingSession)
    before, started = session.runs, time.perf_counter()
    result = run_window(window_s)
    return {**result, "runs": session.runs - before, "wall_s": time.perf_counter() - started}


def run_energy_window_for(duration_s: float, computation: bool) -> dict[str, Any]:
    """Runs a window for its energy and adds how often the session ran end to end, inputs and outputs copied."""
    session = loaded.session
    assert isinstance(session, DoublingSession)
    before = session.runs
    result = run_energy_window(duration_s, computation)
    return {**result, "runs": session.runs - before}
