"""Running TensorRT engines on the CUDA driver API alone: neither PyTorch nor CUDA's Python packages are needed.

An execution context holds the engine's scratch memory, so there is one for each stream, and one more only where a CUDA
graph has fixed the shapes of another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError
from modelwright.core.nvidia.cuda import CudaDevice, CudaGraph, DeviceBuffer, PinnedBuffer
from modelwright.core.nvidia.driver import explain_out_of_memory
from modelwright.core.nvidia.nvml import Nvml
from modelwright.core.records.operators import OperatorProfile
from modelwright.core.records.shapes import ShapeRange
from modelwright.core.records.signature import Signature
from modelwright.targets.contract import Array, Computation, Feeds, RunSettings, Session
from modelwright.targets.tensorrt.engine import describe_inspector, inspect_layers, load_engine
from modelwright.targets.tensorrt.execution import (
    EngineComputation,
    Execution,
    Lane,
    Shapes,
    describe_shape,
    read_ports,
)
from modelwright.targets.tensorrt.flavours import (
    Flavour,
    describe_capabilities,
    fits_capability,
    fits_version,
    import_flavour,
    make_version_rule,
)
from modelwright.targets.tensorrt.layers import count_precisions
from modelwright.targets.tensorrt.profile import make_layer_timer, profile_layers
from modelwright.targets.tensorrt.refusals import explain_refusal, make_logger

_NARROWEST_FIRST = ("int8", "fp8", "fp16", "bf16", "fp32")


@contextlib.contextmanager
def open_session(
    flavour: Flavour, path: Path, recipe: Mapping[str, Any], signature: Signature, settings: RunSettings
) -> Iterator[TensorrtSession]:
    """Loads an engine, whose hash the caller has verified, on the first visible GPU.

    Raises:
        ToolchainMissingError: The package, the driver or the GPU is absent or too old.
        MeasurementInvalidError: Another version of TensorRT, too little GPU memory, or TensorRT refuses the engine.
    """
    trt = import_flavour(flavour)
    built = recipe.get("engine", {})
    _require_version(flavour, str(trt.__version__), built)
    with CudaDevice(spin=settings.spin) as device:
        _require_capability(device, built)
        _require_memory(f"{flavour.title} cannot load the engine", device, built.get("memory_bytes") or 0)
        session = TensorrtSession(trt, flavour, device, path.read_bytes(), recipe, signature, settings)
        try:
            yield session
        finally:
            session.close()


def _require_version(flavour: Flavour, version: str, built: Mapping[str, Any]) -> None:
    """Refuses an engine of another version: TensorRT itself may crash on one."""
    rule = make_version_rule(
        flavour, str(built.get("version")), version_compatible=bool(built.get("version_compatible"))
    )
    if not fits_version(rule, version):
        raise MeasurementInvalidError(
            f"the engine was built with {flavour.title} {built.get('version')}, and {version} is installed",
            hint=f"build it again: modelwright build ... --target {flavour.runtime}-... --profile host",
        )


def _require_capability(device: CudaDevice, built: Mapping[str, Any]) -> None:
    """Refuses an engine for other GPUs: on a machine with several, CUDA's first may not be the one that was checked."""
    runs_on = built.get("runs_on")
    rule = runs_on if isinstance(runs_on, str) else tuple(map(str, runs_on or ()))
    if rule and not fits_capability(rule, device.compute_capability):
        raise MeasurementInvalidError(
            f"the engine runs on compute capability {describe_capabilities(rule)}, and CUDA's first visible GPU, "
            f"{device.name}, has {device.compute_capability}",
            hint="build it again with --profile host, or choose another GPU with CUDA_VISIBLE_DEVICES",
        )


def _require_memory(failure: str, device: CudaDevice, needed_bytes: int) -> None:
    memory = device.memory_info()
    if needed_bytes > memory[0]:
        raise explain_out_of_memory(f"{failure}, which takes {needed_bytes / 2**20:,.0f} MiB", memory)


class TensorrtSession(Session):
    """An engine on a GPU.

    Args:
        trt: The flavour's module.
        flavour: Which.
        gpu: The device, its context current.
        plan: The serialized engine.
        recipe: The manifest's.
        signature: Of the model.
        settings: How to run.
    """

    device = "cuda"

    def __init__(
        self,
        trt: Any,
        flavour: Flavour,
        gpu: CudaDevice,
        plan: bytes,
        recipe: Mapping[str, Any],
        signature: Signature,
        settings: RunSettings,
    ) -> None:
        self._trt, self._flavour, self._gpu, self._recipe, self._settings = trt, flavour, gpu, recipe, settings
        logger, self._log = make_logger(trt)
        self._engine = load_engine(
            trt,
            flavour,
            plan,
            logger,
            self._log,
            runs_own_code=bool(recipe.get("engine", {}).get("version_compatible")),
            kind=MeasurementInvalidError,
        )
        self._inputs, self._outputs = read_ports(trt, self._engine, signature)
        self._lanes: dict[int, Lane] = {}
        self._closing: list[Callable[[], None]] = []
        self._graph_fault: str | None = None
        self._timer = make_layer_timer(trt) if settings.profiled else None
        self._runtime_config: Any = None  # of a flavour that compiles at load; contexts point to it

    def run(self, feeds: Feeds) -> dict[str, Array]:
        shapes = self._check_shapes(feeds)
        execution = self._find_execution(0, shapes)
        execution.use(shapes)
        arrays = {port.name: np.asarray(feeds[port.name], port.dtype, order="C") for port in self._inputs}
        for name, array in arrays.items():
            self._gpu.copy_to_device(execution.inputs[name], array, array.nbytes, execution.stream)
        execution.enqueue()
        execution.fetch_outputs()
        execution.stream.synchronize()
        return execution.read_outputs()

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        """Returns the whole way from inputs in host memory to outputs in host memory, page-locked on both sides."""
        shapes = self._check_shapes(feeds)
        execution = self._find_execution(0, shapes)
        execution.use(shapes)
        gpu, stream, staged = self._gpu, execution.stream, []
        for port in self._inputs:
            array = np.asarray(feeds[port.name], port.dtype, order="C")
            pinned: PinnedBuffer = self._keep(gpu.allocate_pinned(array.nbytes))
            pinned.array[:] = array.reshape(-1).view(np.uint8)
            staged.append((port.name, pinned, array.nbytes))
        graph = self._capture(execution, shapes) if self._settings.cuda_graph else None

        def call() -> None:
            execution.use(shapes)
            for name, source, size_bytes in staged:
                gpu.copy_to_device(execution.inputs[name], source, size_bytes, stream)
            if graph is None:
                execution.enqueue()
            else:
                graph.launch(stream.handle)
            execution.fetch_outputs()
            stream.synchronize()

        return call

    def bind_computation(self, feeds: Feeds, stream_index: int = 0) -> Computation:
        """Copies inputs to the GPU and returns the computation on them; see `Session.bind_computation`."""
        shapes = self._check_shapes(feeds)
        execution = self._find_execution(stream_index, shapes)
        addresses: dict[str, int] = {}
        for port in self._inputs:
            array = np.asarray(feeds[port.name], port.dtype, order="C")
            buffer: DeviceBuffer = self._keep(self._gpu.allocate(array.nbytes))
            self._gpu.copy_to_device(buffer, array, array.nbytes, execution.stream)
            execution.stream.synchronize()  # the array may go before the copy is done
            addresses[port.name] = buffer.pointer
        execution.use(shapes, addresses)
        graph = self._capture(execution, shapes, addresses) if self._settings.cuda_graph else None
        return EngineComputation(execution, shapes, addresses, graph)

    def profile_operators(self, feeds: Feeds) -> OperatorProfile:
        source = f"layer times of {self._flavour.title} {self._trt.__version__}"
        return profile_layers(self._timer, self.bind(feeds), inspect_layers(self._trt, self._engine), source)

    def describe_execution(self) -> dict[str, Any]:
        """Returns the types of the engine's layers, read by its inspector, and what it ran on."""
        layers = count_precisions(inspect_layers(self._trt, self._engine))
        source = describe_inspector(self._trt, self._flavour)
        proof = self._recipe.get("precision_proof", {})
        if not layers and proof.get("layers"):
            layers, source = dict(proof["layers"]), f"{proof['source']} (the inspector lists no details)"
        described = {
            "precision": next((name for name in _NARROWEST_FIRST if layers.get(name)), None),
            "layers": layers,
            "work": proof.get("work"),
            "tf32": bool(self._recipe.get("engine", {}).get("tf32")),
            "device": self._gpu.name,
            "compute_capability": self._gpu.compute_capability,
            "driver_version": _read_driver_version(),
            "version": str(self._trt.__version__),
            "source": source,
        }
        if self._settings.cuda_graph:
            described["cuda_graph"] = "used" if self._graph_fault is None else f"not used: {self._graph_fault}"
        if self._flavour.compiles_at_load:
            described["kernels"] = "compiled for each shape before it runs"
        return described

    def close(self) -> None:
        """Frees what lies on the GPU: graphs and buffers, then contexts, then the engine."""
        for close in reversed(self._closing):
            close()
        for lane in self._lanes.values():
            lane.close()
        self._closing, self._lanes = [], {}
        self._runtime_config = self._engine = None

    def _keep(self, resource: Any) -> Any:
        """Has something closed with the session."""
        self._closing.append(resource.close)
        return resource

    def _check_shapes(self, feeds: Feeds) -> Shapes:
        """Returns the inputs' shapes, which must lie in the engine's ranges."""
        shapes = {}
        for port in self._inputs:
            shape = tuple(np.shape(feeds[port.name]))
            assert port.shapes is not None
            if not port.shapes.admits(shape):
                raise _refuse_shape(port.name, shape, port.shapes)
            shapes[port.name] = shape
        return shapes

    def _find_execution(self, stream_index: int, shapes: Shapes) -> Execution:
        """Returns an execution context on a stream that can take these shapes; makes one where there is none."""
        lane = self._lanes.get(stream_index)
        if lane is None:
            lane = self._lanes[stream_index] = Lane(stream=self._gpu.create_stream(), executions=[])
        for execution in lane.executions:
            if execution.takes(shapes):
                return execution
        needed_bytes = int(self._engine.device_memory_size_v2)
        _require_memory(f"{self._flavour.title} cannot make an execution context", self._gpu, needed_bytes)
        execution = Execution(self._create_context(), lane.stream, self._gpu, self._inputs, self._outputs, self._fail)
        lane.executions.append(execution)
        return execution

    def _create_context(self) -> Any:
        engine = self._engine
        if not self._flavour.compiles_at_load:
            context = engine.create_execution_context()
        else:
            # By default a general kernel runs until one for the shape was compiled in the background, sometime later.
            if self._runtime_config is None:
                self._runtime_config = engine.create_runtime_config()
                self._runtime_config.dynamic_shapes_kernel_specialization_strategy = (
                    self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
                )
            context = engine.create_execution_context(self._runtime_config)
        if context is None:
            raise self._fail("make an execution context")
        if self._timer is not None:
            context.profiler = self._timer
        return context

    def _fail(self, purpose: str) -> ModelwrightError:
        return explain_refusal(self._flavour, self._log, purpose, MeasurementInvalidError)

    def _capture(
        self, execution: Execution, shapes: Shapes, addresses: Mapping[str, int] | None = None
    ) -> CudaGraph | None:
        """Captures the enqueuing of one inference in a CUDA graph; None, with the reason kept, where that fails."""
        execution.use(shapes, addresses)
        execution.enqueue()  # what TensorRT puts off to the first run after a change cannot be captured
        execution.stream.synchronize()
        if not execution.is_capturable():
            self._graph_fault = "the engine allocates or synchronizes while it runs"
            return None
        try:
            graph = self._gpu.capture(execution.stream, execution.enqueue)
        except MeasurementInvalidError as error:
            self._graph_fault = error.message
            return None
        execution.freeze()
        self._keep(graph)
        return graph


def _refuse_shape(name: str, shape: tuple[int, ...], shapes: ShapeRange) -> MeasurementInvalidError:
    hint = "the number of dimensions is the model's own"
    if len(shape) == len(shapes.minimum) and 0 not in shape:
        wider = ShapeRange(
            minimum=tuple(map(min, shape, shapes.minimum)),
            optimum=shapes.optimum,
            maximum=tuple(map(max, shape, shapes.maximum)),
        )
        hint = f"build the engine for it: modelwright build ... --shapes '{name}={wider.describe()}'"
    return MeasurementInvalidError(
        f"the input {name} has the shape {describe_shape(shape)}, and the engine takes {shapes.describe()} "
        "(smallest:tuned for:largest)",
        hint=hint,
    )


def _read_driver_version() -> str | None:
    try:
        with Nvml() as nvml:
            return nvml.driver_version()
    except ModelwrightError:
        return None
