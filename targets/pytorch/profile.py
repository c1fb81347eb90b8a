"""What each operator of an eager program took, as PyTorch's own profiler tells."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelwright.core.records.operators import Kind, OperatorProfile
from modelwright.targets.profiling import TimedOperator, make_profile, run_inferences

_COMPUTE = re.compile(r"conv|linear|matmul|mm$|mm_|einsum|attention|lstm|gru|rnn")
_CONVERSION = re.compile(r"^(to|_to_copy|contiguous|clone|permute|transpose|t)$")
_PRECISIONS: Mapping[str, str] = {
    "c10::BFloat16": "bf16",
    "c10::Half": "fp16",
    "double": "fp64",
    "float": "fp32",
    "signed char": "int8",
    "unsigned char": "int8",
}
"""As the profiler spells dtypes."""
Told = tuple[str, tuple[str, ...], float]
"""An operator's name, the dtypes of its inputs, and its time in µs."""


def profile_program(torch: Any, call: Callable[[], object], *, on_gpu: bool) -> OperatorProfile:
    """Runs a few inferences, each under a profiler of its own.

    Args:
        torch: The package.
        call: Runs one inference and waits for it.
        on_gpu: Whether the time on the device counts; else the time of the call.
    """
    profiler = torch.profiler
    activities = [profiler.ProfilerActivity.CPU, *([profiler.ProfilerActivity.CUDA] if on_gpu else [])]
    last: list[Any] = []

    def run() -> None:
        with profiler.profile(activities=activities, record_shapes=True) as profile:
            started = time.perf_counter()
            call()
            took_us = (time.perf_counter() - started) * 1e6
        last[:] = [profile, took_us]

    runs: list[list[Told]] = []
    walls_us: list[float] = []  # without what it takes to start and to stop a profiler

    def read() -> None:
        runs.append(_read_events(last[0].events(), on_gpu=on_gpu))
        walls_us.append(last[1])

    run_inferences(run, read)
    return make_profile(f"profiler of torch {torch.__version__}", read_runs(runs), walls_us, {})


def read_runs(runs: Sequence[Sequence[Told]]) -> list[TimedOperator]:
    """Returns the operators of those inferences that consist of the same ones as the last."""
    names = [name for name, _, _ in runs[-1]]
    alike = [run for run in runs if [name for name, _, _ in run] == names]
    operators = []
    for place, (name, dtypes, _) in enumerate(runs[-1]):
        kind, precision = classify(name, dtypes)
        operators.append(
            TimedOperator(
                name=f"{name} #{place}",
                type=name,
                kind=kind,
                precision=precision,
                times_us=[run[place][2] for run in alike],
            )
        )
    return operators


def classify(name: str, dtypes: Sequence[str]) -> tuple[Kind, str | None]:
    """Returns what an operator does, and the precision that it executes in: of its first input that has one."""
    if _CONVERSION.match(name):
        return "conversion", None
    precision = next((_PRECISIONS[dtype] for dtype in dtypes if dtype in _PRECISIONS), None)
    return "compute" if _COMPUTE.search(name) else "other", precision


def _read_events(events: Any, *, on_gpu: bool) -> list[Told]:
    """Returns the operators that the program called itself; what they call in turn is in their times."""
    return [
        (
            event.name.removeprefix("aten::"),
            tuple(event.input_dtypes or ()),
            float(event.device_time_total if on_gpu else event.cpu_time_total),
        )
        for event in events
        if event.name.startswith("aten::") and event.cpu_parent is None
    ]
