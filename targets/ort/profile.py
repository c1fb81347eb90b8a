"""What each operator took, read from ONNX Runtime's own profile of a session."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from modelwright.core.records.operators import OperatorProfile
from modelwright.targets.graphs.files import load_model
from modelwright.targets.ort.kernels import REMEDIES, classify
from modelwright.targets.ort.layer_names import name_layers
from modelwright.targets.profiling import WARM_UPS, TimedOperator, make_profile, run_inferences
from modelwright.targets.readiness import require_import

_KERNEL = "_kernel_time"
_ADDED = re.compile(r"(_nchwc|_token_\d+|_quant|/(MatMul|Transpose)?\w*Fusion\w*|/DuplicateQDQ)+$")
"""What ONNX Runtime's optimizers write behind the name of a node whose place another one takes."""
_FUSED = "fused "
"""What they write before the name of one that took an activation in."""
_OF_TENSOR = re.compile(r"_output_\d+$")
"""Layouts of its own name a node by the tensor that it makes, which exporters name so by the node that made it."""


def profile_session(session: Any, call: Callable[[], object], path: Path, *, is_float: bool) -> OperatorProfile:
    """Runs a few inferences in a session that was opened with profiling on, and ends its profile.

    Args:
        session: The vendor's.
        call: Runs one inference.
        path: The model's file, whose layers the operators are named by where onnx is installed.
        is_float: Whether the artifact is a float one: then nothing stays out of integers that should be there.
    """
    operators, walls_us = time_operators(session, call)
    if find_spec("onnx") is not None:
        operators = name_layers(operators, load_model(path, weights=False))
    return make_profile(describe_profiler(), operators, walls_us, {} if is_float else REMEDIES)


def time_operators(session: Any, call: Callable[[], object]) -> tuple[list[TimedOperator], list[float]]:
    """Runs a few inferences in such a session, and ends its profile: returns all operators, and what inferences took.

    Args:
        session: The vendor's.
        call: Runs one inference.
    """
    walls_us = run_inferences(call)
    path = Path(session.end_profiling())
    try:
        return read_events(json.loads(path.read_text())), walls_us
    finally:
        path.unlink()


def describe_profiler() -> str:
    """Returns which profiler tells."""
    return f"profile of onnxruntime {require_import('onnxruntime', 'ort-run').__version__}"


def read_events(events: Sequence[Mapping[str, Any]]) -> list[TimedOperator]:
    """Returns the nodes that ran, each with its time in every inference but the first `WARM_UPS`.

    A node that ran several times in an inference, as in a loop, took the sum. What holds a branch or a loop took what
    its nodes did not.

    Args:
        events: Of the profile, as ONNX Runtime writes them.
    """
    runs = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == "model_run")
    runs = runs[WARM_UPS:]
    begins = [begin for begin, _ in runs]
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)]
    times: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0] * len(runs))
    types: dict[tuple[str, str], list[str]] = {}
    for event, own_us in _take_out_inner(kernels):
        run = bisect_right(begins, event["ts"]) - 1
        if run < 0 or event["ts"] > runs[run][1]:
            continue
        key = event["name"].removesuffix(_KERNEL), event["args"]["op_name"]
        times[key][run] += own_us
        types.setdefault(key, _read_types(event["args"]))
    found = []
    for (name, operator), own in times.items():
        kind, precision = classify(operator, types[name, operator])
        nodes = () if kind == "conversion" else find_nodes(name)
        found.append(TimedOperator(name=name, type=operator, kind=kind, precision=precision, nodes=nodes, times_us=own))
    return found


def find_nodes(name: str) -> tuple[str, ...]:
    """Returns the node of the model that a node after optimization stands for, by its name."""
    stem = _ADDED.sub("", name.removeprefix(_FUSED))
    if name.endswith("_nchwc"):
        stem = _OF_TENSOR.sub("", stem)
    return (stem,) if stem else ()


def _take_out_inner(kernels: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Yields each event with its time without those that ran inside of it, on the same thread."""
    open_events: dict[Any, list[tuple[Mapping[str, Any], list[float]]]] = defaultdict(list)
    for event in sorted(kernels, key=lambda one: (one["ts"], -one["dur"])):
        stack = open_events[event["tid"]]
        while stack and stack[-1][0]["ts"] + stack[-1][0]["dur"] <= event["ts"]:
            yield _close(stack)
        if stack:
            stack[-1][1].append(event["dur"])
        stack.append((event, []))
    for stack in open_events.values():
        while stack:
            yield _close(stack)


def _close(stack: list[tuple[Mapping[str, Any], list[float]]]) -> tuple[Mapping[str, Any], float]:
    event, inner = stack.pop()
    return event, max(0.0, event["dur"] - sum(inner))


def _read_types(facts: Mapping[str, Any]) -> list[str]:
    for key in ("input_type_shape", "output_type_shape"):
        types = [name for entry in facts.get(key, ()) for name in entry]
        if types:
            return types
    return []
