"""Running saved PyTorch programs, eager or compiled, on the CPU and on CUDA, and reading back what ran."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from modelwright.core.errors import MeasurementInvalidError, ToolchainMissingError
from modelwright.core.records.device_memory import DeviceMemory
from modelwright.core.records.operators import OperatorProfile
from modelwright.core.records.signature import Signature
from modelwright.targets.contract import Array, Computation, Feeds, RunSettings, Session
from modelwright.targets.pytorch.precision import COMPUTE, count_bytes, name_dtype, name_operator
from modelwright.targets.pytorch.profile import profile_program
from modelwright.targets.pytorch.settings import apply_chosen, place_inputs, read_chosen

PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_WARM_UPS = 3
"""Inferences before a CUDA graph is captured: libraries allocate and choose kernels in their first calls."""
_FUSED_COMPUTE = ("_scaled_dot_product", "_cudnn_rnn", "_thnn_fused", "cudnn_convolution", "mkldnn_rnn_layer")
"""How names of operators begin that ATen puts in the place of those in `COMPUTE`."""


class TorchSession(Session):
    """A program on the CPU.

    Args:
        torch: The package.
        module: The program; takes the signature's inputs and returns its outputs, in order.
        signature: Of the ONNX model.
        settings: How to run.
        compiled: Whether to run it through `torch.compile`.
        calls: Through what an eager program calls its operators; see `restore_eager_speed`.
    """

    def __init__(
        self,
        torch: Any,
        module: Any,
        signature: Signature,
        settings: RunSettings,
        *,
        compiled: bool,
        calls: str | None = None,
    ) -> None:
        self._torch, self._module, self._signature, self._settings = torch, module, signature, settings
        self._compiled, self._calls = compiled, calls
        self._call = place_inputs(torch, torch.compile(module) if compiled else module, settings.options)
        self._compiler_before = read_compiler(torch) if compiled else {}
        self._feeds: Feeds | None = None

    def run(self, feeds: Feeds) -> dict[str, Array]:
        self._feeds = feeds
        with self._explained("the inference"):
            outputs = self._call(*self._to_tensors(feeds))
            # Copies: an output may be a view of an input or of a weight.
            arrays = [np.array(output.cpu().numpy()) for output in outputs]
        return {spec.name: array for spec, array in zip(self._signature.outputs, arrays, strict=True)}

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        self._feeds = feeds
        call, tensors = self._call, self._to_tensors(feeds)
        return lambda: call(*tensors)

    def compile_for(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Compiles for these input shapes, so that the time that it takes counts as loading."""
        feeds = {
            spec.name: np.zeros(tuple(shapes[spec.name]), spec.dtype)
            for spec in self._signature.inputs
            if spec.name in shapes
        }
        if self._compiled and len(feeds) == len(self._signature.inputs):
            with self._explained("torch.compile"):
                self._call(*self._to_tensors(feeds))
                self._wait()

    def profile_operators(self, feeds: Feeds) -> OperatorProfile:
        return profile_program(self._torch, self.bind(feeds), on_gpu=self.device == "cuda")

    def describe_execution(self) -> dict[str, Any]:
        """Returns the dtypes of one more inference's operators, and the settings in force."""
        if self._feeds is None:
            return {"precision": None, "reason": "nothing has run yet"}
        torch = self._torch
        computed, others = trace_operators(torch, self._module, self._to_tensors(self._feeds))
        dominant = computed.most_common(1)[0][0] if computed else None
        described: dict[str, Any] = {
            "precision": PRECISIONS.get(dominant or "", dominant),
            "compute_operators": dict(computed),
            "other_operators": dict(others),
            "weight_bytes": count_bytes([*self._module.parameters(), *self._module.buffers()]),
            "execution": "torch.compile" if self._compiled else "eager",
            "operators_called_through": self._calls,
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
            "mkldnn": bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "device": self.device,
            "source": f"operators of one inference as torch {torch.__version__} dispatched them",
        }
        if self._settings.options:
            described["settings"] = read_chosen(torch, self._module, self._settings.options)
        if self._compiled:
            described["compiler"] = self._describe_compiler()
            described["source"] += ", before the compiler fused them"
        return described | self._describe_device()

    def close(self) -> None:
        """Frees the program."""
        self._call = self._module = None  # type: ignore[assignment]

    def _to_tensors(self, feeds: Feeds) -> list[Any]:
        # torch shares memory with an array and warns about one that is read-only.
        return [
            self._torch.from_numpy(np.require(feeds[spec.name], requirements=["C", "A", "W"]))
            for spec in self._signature.inputs
        ]

    def _describe_compiler(self) -> dict[str, Any]:
        after = read_compiler(self._torch)
        return {"mode": "default", **{name: count - self._compiler_before[name] for name, count in after.items()}}

    def _describe_device(self) -> dict[str, Any]:
        return {}

    def _wait(self) -> None:
        """Waits for what was put on the device."""

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turns what torch raises, which can be anything, into an error of ours; keeps its warnings to itself."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its compiler uses parts of its own that it has deprecated
                yield
        except Exception as error:
            if type(error).__name__ == "OutOfMemoryError":
                raise MeasurementInvalidError(
                    "the GPU's memory does not suffice for this program",
                    hint="use a smaller batch, or measure fewer artifacts together",
                    detail=str(error)[:2000],
                ) from error
            hint = None
            if what == "torch.compile":
                hint = "measure the eager target of the same precision; see the compiler's message"
            raise MeasurementInvalidError(
                f"{what} failed in torch {self._torch.__version__}: {_first_line(error)}",
                hint=hint,
                detail=str(error)[-4000:],
            ) from error


class TorchCudaSession(TorchSession):
    """A program on an NVIDIA GPU; works on streams of its own, the first of which is torch's current one."""

    device = "cuda"

    def __init__(
        self,
        torch: Any,
        module: Any,
        signature: Signature,
        settings: RunSettings,
        *,
        compiled: bool,
        calls: str | None = None,
    ) -> None:
        super().__init__(torch, module, signature, settings, compiled=compiled, calls=calls)
        self._streams = [torch.cuda.Stream() for _ in range(max(1, settings.streams))]
        torch.cuda.synchronize()  # the weights were copied on the default stream
        torch.cuda.set_stream(self._streams[0])
        self._uses_graph = False

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        self._feeds = feeds
        with self._explained("binding the inputs"):
            hosts = [tensor.pin_memory() for tensor in self._host_tensors(feeds)]
            inputs = [tensor.to("cuda") for tensor in hosts]
            forward = self._prepare(inputs, 0)
            results = [self._torch.empty_like(output, device="cpu", pin_memory=True) for output in forward()]
            self._wait()
        stream = self._streams[0]
        done = self._torch.cuda.Event(blocking=not self._settings.spin)

        def infer() -> object:
            for on_device, on_host in zip(inputs, hosts, strict=True):
                on_device.copy_(on_host, non_blocking=True)
            for result, output in zip(results, forward(), strict=True):
                result.copy_(output, non_blocking=True)
            done.record(stream)
            done.synchronize()
            return results

        return infer

    def bind_computation(self, feeds: Feeds, stream_index: int = 0) -> Computation:
        self._feeds = feeds
        with self._explained("binding the inputs"):
            inputs = [tensor.to("cuda") for tensor in self._host_tensors(feeds)]
            forward = self._prepare(inputs, stream_index)
            self._wait()
        return _TorchComputation(self._torch, self._streams[stream_index], forward, uses_graph=self._uses_graph)

    def read_device_memory(self) -> DeviceMemory:
        cuda = self._torch.cuda
        return DeviceMemory(
            allocated_bytes=cuda.memory_allocated(),
            peak_bytes=cuda.max_memory_allocated(),
            reserved_bytes=cuda.memory_reserved(),
        )

    def close(self) -> None:
        # After a fault on the device every call fails; the first error is the one to see.
        with contextlib.suppress(RuntimeError):
            self._wait()
        super().close()
        with contextlib.suppress(RuntimeError):
            self._torch.cuda.set_stream(self._torch.cuda.default_stream())
            self._torch.cuda.empty_cache()

    def _prepare(self, inputs: Sequence[Any], stream_index: int) -> Callable[[], Sequence[Any]]:
        """Warms up on a stream and returns the call on these inputs: eager, or the launch of a CUDA graph."""
        torch, stream, call = self._torch, self._streams[stream_index], self._call
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                call(*inputs)
        stream.synchronize()
        if not self._settings.cuda_graph:
            return lambda: call(*inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as a monitor of the GPU, may call CUDA meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                outputs = call(*inputs)
        except Exception as error:  # any operator may do what a graph cannot hold
            raise MeasurementInvalidError(
                f"the program cannot be captured as a CUDA graph: {_first_line(error)}",
                hint="measure it without a CUDA graph",
                detail=str(error)[-4000:],
            ) from error
        self._uses_graph = True

        def launch() -> Sequence[Any]:
            graph.replay()
            return outputs

        return launch

    def _host_tensors(self, feeds: Feeds) -> list[Any]:
        return super()._to_tensors(feeds)

    def _to_tensors(self, feeds: Feeds) -> list[Any]:
        return [tensor.to("cuda") for tensor in self._host_tensors(feeds)]

    def _wait(self) -> None:
        self._torch.cuda.synchronize()

    def _describe_device(self) -> dict[str, Any]:
        cuda, cudnn = self._torch.cuda, self._torch.backends.cudnn
        return {
            "device": "cuda",
            "device_name": cuda.get_device_name(),
            "compute_capability": ".".join(map(str, cuda.get_device_capability())),
            "cuda": self._torch.version.cuda,
            "cudnn": cudnn.version() if cudnn.is_available() else None,
            "cudnn_benchmark": bool(cudnn.benchmark),
            "tf32": {"matmul": bool(self._torch.backends.cuda.matmul.allow_tf32), "cudnn": bool(cudnn.allow_tf32)},
            "cuda_graph": self._uses_graph,
            "streams": len(self._streams),
        }


class _TorchComputation(Computation):
    """One inference on inputs that lie on the GPU."""

    def __init__(self, torch: Any, stream: Any, forward: Callable[[], object], *, uses_graph: bool) -> None:
        self._torch, self._own_stream, self._forward = torch, stream, forward
        self.stream = int(stream.cuda_stream)
        self.uses_graph = uses_graph

    def enqueue(self) -> None:
        with self._torch.cuda.stream(self._own_stream):
            self._forward()


def apply_settings(torch: Any, settings: RunSettings, *, compiled: bool) -> None:
    """Sets what torch keeps for a whole process: threads, TF32, the choice of kernels, what the user chose.

    Raises:
        BadInputError: The runtime has no such setting, or it takes no such value.
        ToolchainMissingError: This torch sees no GPU, or lacks what compiling for one needs.
    """
    torch.set_num_threads(settings.threads)
    with contextlib.suppress(RuntimeError):  # can be set once; `describe_execution` tells what is in force
        torch.set_num_interop_threads(1)
    # cuDNN's TF32 is on by default. The older of torch's two interfaces, as its own compiler still reads it.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # Timing the kernels at load would let chance choose between two identical artifacts.
    torch.backends.cudnn.benchmark = False
    apply_chosen(torch, settings.options, compiled=compiled)
    if compiled:
        import_module("torch._dynamo.utils")
        inductor: Any = import_module("torch._inductor.config")
        inductor.compile_threads = 1  # a pool of compiling processes would outlive the compilation
    if settings.device == "cuda":
        _require_cuda(torch, compiled=compiled)


def _require_cuda(torch: Any, *, compiled: bool) -> None:
    if torch.version.cuda is None:
        raise ToolchainMissingError(
            f"torch {torch.__version__} was built without CUDA",
            hint="install a CUDA build of torch (https://pytorch.org/get-started/locally), or measure on the CPU",
        )
    with warnings.catch_warnings(record=True) as told:  # why not, such as a driver that is too old
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if not usable:
        raise ToolchainMissingError(
            f"torch {torch.__version__} sees no GPU that it can use",
            hint=f"it needs a driver for CUDA {torch.version.cuda} (nvidia-smi), and a GPU that is not hidden from it",
            detail="\n".join(str(warning.message) for warning in told) or None,
        )
    if compiled and importlib.util.find_spec("triton") is None:
        raise ToolchainMissingError("torch.compile on a GPU needs Python package triton", hint="pip install triton")


def trace_operators(torch: Any, module: Any, tensors: Sequence[Any]) -> tuple[Counter[str], Counter[str]]:
    """Runs one inference and returns how many operators gave which dtype: those that multiply, and all others."""
    from torch.utils._python_dispatch import TorchDispatchMode

    computed: Counter[str] = Counter()
    others: Counter[str] = Counter()

    class Tracer(TorchDispatchMode):  # type: ignore[misc]  # torch is imported here only
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            first = result[0] if isinstance(result, tuple | list) and result else result
            if isinstance(first, torch.Tensor) and first.is_floating_point():
                name = name_operator(func)
                computes = name in COMPUTE or name.startswith(_FUSED_COMPUTE)
                (computed if computes else others)[name_dtype(first.dtype)] += 1
            return result

    with torch.inference_mode(), Tracer():
        module(*tensors)
    return computed, others


def read_compiler(torch: Any) -> dict[str, int]:
    """Returns what the compiler counted in this process so far; `graph_breaks` split a program into several graphs."""
    counters = torch._dynamo.utils.counters  # noqa: SLF001 - torch has no public name for it
    # Its count of frames that went well has every Python function in it that ran meanwhile, such as an audit hook.
    compiled = torch._dynamo.convert_frame.FRAME_COMPILE_COUNTER  # noqa: SLF001
    return {
        "recompilations": sum(times - 1 for times in compiled.values()),
        "graphs": int(counters["stats"]["unique_graphs"]),
        "graph_breaks": int(sum(counters["graph_break"].values())),
        "cache_hits": int(counters["inductor"]["fxgraph_cache_hit"]),
        "cache_misses": int(counters["inductor"]["fxgraph_cache_miss"]),
    }


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
