"""Running ONNX models in ONNX Runtime's CUDA provider, on a stream of ours, and reading back what ran where."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError, ToolchainMissingError
from modelwright.core.nvidia.cuda import CudaDevice, DeviceBuffer, PinnedBuffer, Stream
from modelwright.core.records.signature import Signature
from modelwright.core.versions import is_at_least
from modelwright.targets.contract import Array, Computation, Feeds, RunSettings, Session
from modelwright.targets.graphs.run import blame, session_options
from modelwright.targets.ort.cuda_placement import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    RECORD_ENTRY,
    PlacedNode,
    describe_placement,
    find_fallbacks,
    read_placement,
    word_fallbacks,
)
from modelwright.targets.readiness import require_import

LEAST_ORT = "1.24"
"""The first that tells which node it assigned to which provider."""
_COLOR = re.compile(r"\x1b\[[\d;]*m")
_PRINTED_LINES = 10
_NO_GRAPH = "-1"
"""A run with this `gpu_graph_id` neither captures nor replays a CUDA graph."""
_WARM_UPS = 3
"""Inferences before timing: one chooses cuDNN's algorithms, the next captures the CUDA graph where there is one."""


class OrtCudaSession(Session):
    """A model on the GPU.

    Args:
        ort: The package.
        path: The ONNX file.
        signature: Of it.
        settings: How to run; one stream only.
        recipe: Of the artifact: `precision`, `shape_nodes`, `lookalikes`, `allow_cpu_fallback`.
        gpu: The device, its context current.

    Raises:
        MeasurementInvalidError: The provider does not start, or a node falls back to the CPU.
    """

    device = "cuda"

    def __init__(
        self,
        ort: Any,
        path: Path,
        signature: Signature,
        settings: RunSettings,
        recipe: Mapping[str, Any],
        gpu: CudaDevice,
    ) -> None:
        if settings.streams > 1:
            raise MeasurementInvalidError(
                "ONNX Runtime keeps one inference a session in flight: it cannot use several streams",
                hint="measure it with --streams 1",
            )
        self._ort, self._signature, self._settings, self._gpu = ort, signature, settings, gpu
        self._stream: Stream = gpu.create_stream()
        self._session = open_on_gpu(ort, path, settings, self._stream.handle)
        self.placement, self.fallbacks = judge_placement(self._session, recipe)
        self._names = [spec.name for spec in signature.outputs]
        self._bound: list[BoundBuffers] = []
        self._path, self._precision = path, recipe.get("precision")

    def run(self, feeds: Feeds) -> dict[str, Array]:
        with self._explained():
            outputs = self._session.run(self._names, dict(feeds), self._options(_NO_GRAPH, wait=True))
        return {name: np.array(value) for name, value in zip(self._names, outputs, strict=True)}

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        bound, enqueue = self._prepare(feeds)
        stream = self._stream

        outputs = bound.read_outputs()

        def infer() -> object:
            bound.upload(stream)
            enqueue()
            bound.download(stream)
            stream.synchronize()
            return outputs

        return infer

    def bind_computation(self, feeds: Feeds, stream_index: int = 0) -> Computation:  # noqa: ARG002 - there is one
        _, enqueue = self._prepare(feeds)
        return _OrtComputation(self._stream.handle, enqueue, uses_graph=self._settings.cuda_graph)

    def describe_execution(self) -> dict[str, Any]:
        """Returns where nodes run, as ONNX Runtime assigned them, and the provider's options in force."""
        options = self._session.get_provider_options().get(CUDA_PROVIDER, {})
        return {
            "precision": self._precision,
            **describe_placement(self.placement, self.fallbacks),
            "device": "cuda",
            "device_name": self._gpu.name,
            "compute_capability": self._gpu.compute_capability,
            "tf32": options.get("use_tf32") == "1",
            "cudnn_conv_algo_search": options.get("cudnn_conv_algo_search"),
            "cuda_graph": self._settings.cuda_graph,
            "cuda": getattr(self._ort, "cuda_version", None),
            "threads": self._settings.threads,
            # ONNX Runtime runs a node in the types that the graph gives it, which the build has read.
            "source": f"node assignment of onnxruntime-gpu {self._ort.__version__}, types of the graph",
        }

    def close(self) -> None:
        """Frees the model, then the memory that it was bound to."""
        self._session = None
        for bound in self._bound:
            bound.close()
        self._stream.close()

    def _prepare(self, feeds: Feeds) -> tuple[BoundBuffers, Callable[[], object]]:
        """Copies the inputs to the device, binds buffers for the outputs, and runs once or twice."""
        shapes = [value.shape for value in self.run(feeds).values()]
        bound = BoundBuffers(self._gpu, self._signature, feeds, shapes)
        self._bound.append(bound)
        binding = self._session.io_binding()
        bound.bind(binding)
        graph = str(len(self._bound)) if self._settings.cuda_graph else _NO_GRAPH
        options = self._options(graph, wait=False)
        execute = self._session.run_with_iobinding
        bound.upload(self._stream)
        self._stream.synchronize()
        with self._explained():
            for _ in range(_WARM_UPS):
                execute(binding, options)
        self._stream.synchronize()
        return bound, lambda: execute(binding, options)

    def _options(self, graph: str, *, wait: bool) -> Any:
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", graph)
        options.add_run_config_entry("disable_synchronize_execution_providers", "0" if wait else "1")
        return options

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ModelwrightError:
            raise
        except Exception as error:  # onnxruntime raises a class of its own for every status code
            raise MeasurementInvalidError(
                f"{self._path.name} failed in ONNX Runtime on the GPU{blame(error)}", detail=str(error)[:4000]
            ) from error


@dataclass(frozen=True, kw_only=True)
class _BoundTensor:
    """An input or output in page-locked memory of the host and on the device."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    host: PinnedBuffer
    buffer: DeviceBuffer

    @staticmethod
    def allocate(gpu: CudaDevice, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> _BoundTensor:
        size_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        host, buffer = gpu.allocate_pinned(size_bytes), gpu.allocate(size_bytes)
        return _BoundTensor(name=name, dtype=dtype, shape=shape, host=host, buffer=buffer)


class BoundBuffers:
    """Memory on the host and on the device for one inference's inputs and outputs."""

    def __init__(
        self, gpu: CudaDevice, signature: Signature, feeds: Feeds, output_shapes: Sequence[tuple[int, ...]]
    ) -> None:
        self._gpu = gpu
        self._inputs: list[_BoundTensor] = []
        for spec in signature.inputs:
            array = np.asarray(feeds[spec.name], order="C")
            bound = _BoundTensor.allocate(gpu, spec.name, array.dtype, feeds[spec.name].shape)
            bound.host.array[:] = array.reshape(-1).view(np.uint8)
            self._inputs.append(bound)
        self._outputs = [
            _BoundTensor.allocate(gpu, spec.name, np.dtype(spec.dtype), shape)
            for spec, shape in zip(signature.outputs, output_shapes, strict=True)
        ]

    def bind(self, binding: Any) -> None:
        """Tells ONNX Runtime where inputs and outputs lie."""
        for tensors, tell in ((self._inputs, binding.bind_input), (self._outputs, binding.bind_output)):
            for bound in tensors:
                tell(bound.name, "cuda", self._gpu.index, bound.dtype, bound.shape, bound.buffer.pointer)

    def upload(self, stream: Stream) -> None:
        """Queues the copies of the inputs to the device."""
        for bound in self._inputs:
            self._gpu.copy_to_device(bound.buffer, bound.host, bound.host.size_bytes, stream)

    def download(self, stream: Stream) -> None:
        """Queues the copies of the outputs to the host."""
        for bound in self._outputs:
            self._gpu.copy_to_host(bound.host, bound.buffer, bound.host.size_bytes, stream)

    def read_outputs(self) -> dict[str, Array]:
        """Returns the outputs that were copied to the host, as views of that memory."""
        return {bound.name: bound.host.array.view(bound.dtype).reshape(bound.shape) for bound in self._outputs}

    def close(self) -> None:
        for bound in (*self._inputs, *self._outputs):
            bound.host.close()
            bound.buffer.close()


class _OrtComputation(Computation):
    """One inference on inputs that lie on the GPU."""

    def __init__(self, stream: int, enqueue: Callable[[], object], *, uses_graph: bool) -> None:
        self.stream, self.uses_graph = stream, uses_graph
        self._enqueue = enqueue

    def enqueue(self) -> None:
        self._enqueue()


def import_ort() -> Any:
    """Imports onnxruntime-gpu and the CUDA libraries that come as Python packages.

    Raises:
        ToolchainMissingError: Absent, broken, the CPU package, or too old.
    """
    ort = require_import("onnxruntime", "ort-cuda-run")
    if CUDA_PROVIDER not in ort.get_available_providers():
        raise ToolchainMissingError(
            f"the onnxruntime {ort.__version__} that is installed has no CUDA provider: it is the CPU package",
            hint=INSTALL_HINT,
        )
    if not is_at_least(ort.__version__, LEAST_ORT):
        raise ToolchainMissingError(
            f"onnxruntime-gpu {ort.__version__} does not tell where nodes run",
            hint=f"pip install 'onnxruntime-gpu>={LEAST_ORT}'",
        )
    ort.preload_dlls()
    return ort


INSTALL_HINT = (
    "in an environment without the package onnxruntime, which overwrites its files: "
    "pip install 'onnxruntime-gpu[cuda,cudnn]>=1.24'"
)


def open_on_gpu(ort: Any, path: Path, settings: RunSettings, stream: int) -> Any:
    """Opens a model in the CUDA provider, its work on the given stream, TF32 off.

    Raises:
        ToolchainMissingError: The provider does not start.
        MeasurementInvalidError: The model cannot be opened in it.
    """
    options = session_options(settings)
    options.add_session_config_entry(RECORD_ENTRY, "1")
    provider = {
        "user_compute_stream": str(stream),
        "use_tf32": "0",
        "enable_cuda_graph": "1" if settings.cuda_graph else "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
    }
    with captured_stderr() as printed:
        try:
            # Its wrapper would otherwise try again on the CPU.
            session = ort.InferenceSession(
                str(path), options, providers=[(CUDA_PROVIDER, provider), CPU_PROVIDER], enable_fallback=0
            )
        except Exception as error:  # onnxruntime raises a class of its own for every status code
            hint = "measure it without a CUDA graph" if "graph capture" in str(error) else None
            raise MeasurementInvalidError(
                f"ONNX Runtime cannot load {path.name} on the GPU{blame(error)}", hint=hint, detail=str(error)[:4000]
            ) from error
    if CUDA_PROVIDER not in session.get_providers():
        raise ToolchainMissingError(
            f"onnxruntime-gpu {ort.__version__} cannot start its CUDA provider, and would run on the CPU instead",
            hint=f"it needs CUDA {getattr(ort, 'cuda_version', '') or '12 or later'} and cuDNN 9 libraries: "
            "pip install 'onnxruntime-gpu[cuda,cudnn]'",
            detail=printed(),
        )
    return session


def judge_placement(session: Any, recipe: Mapping[str, Any]) -> tuple[list[PlacedNode], list[PlacedNode]]:
    """Returns all nodes as placed, and those that fell back to the CPU.

    Raises:
        MeasurementInvalidError: One did, and the artifact does not allow it.
    """
    nodes = read_placement(session)
    fallbacks = find_fallbacks(nodes, dict(recipe.get("shape_nodes", {})), set(recipe.get("lookalikes", ())))
    if fallbacks and not recipe.get("allow_cpu_fallback", False):
        raise MeasurementInvalidError(
            f"{len(fallbacks)} of {len(nodes)} nodes fall back to the CPU, for CUDA has no kernel for them: "
            f"{word_fallbacks(fallbacks)}",
            hint="replace these operators, or build it with --option allow-cpu-fallback=true to measure it as it is",
        )
    return nodes, fallbacks


@contextlib.contextmanager
def captured_stderr() -> Iterator[Callable[[], str | None]]:
    """Captures what native code prints to standard error; yields a function that returns the end of it afterwards."""
    sys.stderr.flush()
    text: list[str] = []
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            yield lambda: "\n".join(text) or None
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines = _COLOR.sub("", file.read().decode(errors="replace")).splitlines()
            text.extend([line for line in lines if line][-_PRINTED_LINES:])
