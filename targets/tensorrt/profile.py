"""What each layer of an engine took, as TensorRT's own profiler tells, with the types that the inspector lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from modelwright.core.records.operators import Kind, OperatorProfile
from modelwright.targets.profiling import TimedOperator, make_profile, run_inferences
from modelwright.targets.tensorrt.layers import Layer

_COMPUTE = re.compile(r"conv|gemm|matmul|matrix|correlation|attention|mha|lstm|rnn", re.IGNORECASE)
"""In TensorRT's words for kinds of layers: `CaskConvolution`, `gemm`, `correlation`, ..."""
_CONVERSION = re.compile(r"reformat|shuffle|quantize|cast", re.IGNORECASE)


def make_layer_timer(trt: Any) -> Any:
    """Returns a profiler for an execution context: `times_us` holds layer -> time since it was cleared."""

    class LayerTimer(trt.IProfiler):  # type: ignore[misc]  # the vendor's module comes as an argument
        """Sums up what TensorRT reports after each inference."""

        def __init__(self) -> None:
            super().__init__()
            self.times_us: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times_us[layer_name] = self.times_us.get(layer_name, 0.0) + float(ms) * 1e3

    return LayerTimer()


def profile_layers(timer: Any, call: Callable[[], object], layers: Sequence[Layer], source: str) -> OperatorProfile:
    """Runs a few inferences and returns what each layer took.

    Args:
        timer: Of `make_layer_timer`, that the execution context reports to.
        call: Runs one inference and waits for it.
        layers: As the inspector lists them; empty where the engine has no details.
        source: How the profile is named.
    """

    def run() -> None:
        timer.times_us.clear()
        call()

    runs: list[Mapping[str, float]] = []
    walls_us = run_inferences(run, lambda: runs.append(dict(timer.times_us)))
    return make_profile(source, read_runs(runs, layers), walls_us, {})


def read_runs(runs: Iterable[Mapping[str, float]], layers: Sequence[Layer]) -> list[TimedOperator]:
    """Returns the layers that ran, each with its time in every inference."""
    listed = list(runs)
    known = {layer.name: layer for layer in layers}
    operators = []
    for name in dict.fromkeys(name for run in listed for name in run):
        layer = known.get(name)
        kind, precision = ("other", None) if layer is None else classify(layer)
        operators.append(
            TimedOperator(
                name=name,
                type=name if layer is None else layer.kind,
                kind=kind,
                precision=precision,
                nodes=() if layer is None else layer.nodes,
                times_us=[run.get(name, 0.0) for run in listed],
            )
        )
    return operators


def classify(layer: Layer) -> tuple[Kind, str | None]:
    """Returns what a layer does, and the precision that its kernel computes in."""
    if layer.precision is None or _CONVERSION.search(layer.kind):
        return "conversion", None
    return "compute" if _COMPUTE.search(layer.kind) else "other", layer.precision
