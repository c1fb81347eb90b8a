"""What the tests of ONNX Runtime on CUDA run in child processes: on a GPU, and on stand-ins where there is none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from modelwright.core.nvidia.cuda import CudaDevice
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.contract import RunSettings
from modelwright.targets.ort.cuda_session import OrtCudaSession
from modelwright.targets.ort.cuda_target import OrtCudaFp16, OrtCudaFp32

CNN = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 3, 12, 12)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 5)),),
)


class BindingOnCpu:
    """Binds what is said to lie on the GPU as host memory, which it is with the fake driver."""

    def __init__(self, session: Any) -> None:
        self.binding = session.io_binding()

    def bind_input(self, name: str, device: str, *rest: Any) -> None:
        assert device == "cuda"
        self.binding.bind_input(name, "cpu", *rest)

    def bind_output(self, name: str, device: str, *rest: Any) -> None:
        assert device == "cuda"
        self.binding.bind_output(name, "cpu", *rest)


class SessionOnCpu:
    """ONNX Runtime's CPU provider under the name of CUDA's; a stand-in for onnxruntime-gpu with a fake driver."""

    def __init__(self, path: str, options: Any, providers: list[Any], enable_fallback: int) -> None:
        import onnxruntime

        (name, self.options), cpu = providers
        assert (name, cpu, enable_fallback) == ("CUDAExecutionProvider", "CPUExecutionProvider", 0)
        self.session = onnxruntime.InferenceSession(path, options, providers=[cpu])
        self.graphs: list[str] = []

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_provider_options(self) -> dict[str, Any]:
        return {"CUDAExecutionProvider": self.options}

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            SimpleNamespace(ep_name="CUDAExecutionProvider", get_nodes=subgraph.get_nodes)
            for subgraph in self.session.get_provider_graph_assignment_info()
        ]

    def run(self, names: list[str], feeds: dict[str, Any], options: Any) -> Any:
        assert options.get_run_config_entry("gpu_graph_id") == "-1"
        return self.session.run(names, feeds, options)

    def io_binding(self) -> BindingOnCpu:
        return BindingOnCpu(self.session)

    def run_with_iobinding(self, binding: BindingOnCpu, options: Any) -> None:
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        self.graphs.append(options.get_run_config_entry("gpu_graph_id"))
        self.session.run_with_iobinding(binding.binding, options)


def run_on_stand_in(
    directory: str, model_file: str, recipe: dict[str, Any], cuda_graph: bool, x: list[Any]
) -> dict[str, Any]:
    """Runs a session on a fake driver and the stand-in above; returns what it gave and what it asked for."""
    import onnxruntime

    ort = SimpleNamespace(
        InferenceSession=SessionOnCpu, RunOptions=onnxruntime.RunOptions, __version__=onnxruntime.__version__
    )
    first, second = (np.asarray(x, np.float32)[:1], np.asarray(x, np.float32))
    settings = RunSettings(device="cuda", cuda_graph=cuda_graph)
    with CudaDevice() as gpu:
        session = OrtCudaSession(ort, Path(directory) / model_file, CNN, settings, recipe, gpu)
        calls = [session.bind({"x": first}), session.bind({"x": second})]
        bound: list[Any] = [call() for call in calls * 2]
        computation = session.bind_computation({"x": second})
        computation.enqueue()
        told = {
            "plain": [session.run({"x": feeds})["y"].tolist() for feeds in (first, second)],
            "bound": [outputs["y"].tolist() for outputs in bound],
            "stream": computation.stream,
            "uses_graph": computation.uses_graph,
            "graphs": sorted(set(session._session.graphs)),
            "options": session._session.options,
            "executed": session.describe_execution(),
        }
        session.close()
    return told


def run_on_gpu(
    target: str, directory: str, model_file: str, recipe: dict[str, Any], cuda_graph: bool, x: list[Any]
) -> dict[str, Any]:
    """Runs one input plainly, bound end to end, and plainly again behind computations; returns these outputs."""
    kind = OrtCudaFp16 if target == OrtCudaFp16.record.name else OrtCudaFp32
    feeds = {"x": np.asarray(x, np.float32)}
    settings = RunSettings(device="cuda", cuda_graph=cuda_graph)
    with kind().load(Path(directory), model_file, recipe, CNN, settings) as session:
        outputs = [session.run(feeds)["y"].tolist()]
        call = session.bind(feeds)
        for _ in range(3):
            call()
        bound: Any = call()
        outputs.append(bound["y"].tolist())
        other = session.bind_computation({"x": feeds["x"][:1]})
        computation = session.bind_computation(feeds)
        assert other is not None
        assert computation is not None
        for _ in range(5):
            other.enqueue()
            computation.enqueue()
        # In the stream's order behind them: also proves that nothing is left of another shape.
        outputs.append(session.run(feeds)["y"].tolist())
        return {
            "outputs": outputs,
            "stream": computation.stream,
            "uses_graph": computation.uses_graph,
            "executed": session.describe_execution(),
        }
