"""What can be set of ONNX Runtime on the CPU when a model is run, and how a session's options are set so.

Names and meanings: https://onnxruntime.ai/docs/performance/tune-performance/threading.html and
`onnxruntime_session_options_config_keys.h`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.targets.options import RunOption, Value, resolve_options
from modelwright.targets.readiness import require_import

LEVELS: Mapping[str, str] = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
MODES: Mapping[str, str] = {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"}
ENTRIES: Mapping[str, str] = {
    "spinning": "session.intra_op.allow_spinning",
    "denormals-as-zero": "session.set_denormal_as_zero",
    "gelu-approximation": "optimization.enable_gelu_approximation",
    "dynamic-block": "session.dynamic_block_base",
}
"""Setting -> the session's configuration entry; the other settings are attributes of `SessionOptions`."""

SETTINGS = (
    RunOption(
        name="graph-level",
        kind="choice",
        choices=tuple(LEVELS),
        default="all",
        vendor_name="SessionOptions.graph_optimization_level",
        changes_answers=True,
        help="How far the graph is rewritten when it is loaded. Less than `all` leaves out fusions, which now and "
        "then cost more than they save.",
    ),
    RunOption(
        name="execution",
        kind="choice",
        choices=tuple(MODES),
        default="sequential",
        vendor_name="SessionOptions.execution_mode",
        help="Whether branches of the graph that do not depend on each other run at the same time.",
    ),
    RunOption(
        name="inter-threads",
        kind="integer",
        minimum=1,
        maximum=256,
        default=1,
        tried=(2,),
        needs=("execution", "parallel"),
        vendor_name="SessionOptions.inter_op_num_threads",
        help="Threads for branches that run at the same time; of use with execution=parallel only. ONNX Runtime alone "
        "would take as many as there are cores.",
    ),
    RunOption(
        name="spinning",
        kind="boolean",
        default=True,
        needs_threads=True,
        vendor_name=ENTRIES["spinning"],
        help="Whether threads that wait for work keep their cores busy meanwhile. Off, each step starts later and the "
        "cores are free for others; of use with more than one thread only.",
    ),
    RunOption(
        name="arena",
        kind="boolean",
        default=True,
        vendor_name="SessionOptions.enable_cpu_mem_arena",
        help="Whether memory is kept for the next inference instead of being given back.",
    ),
    RunOption(
        name="memory-pattern",
        kind="boolean",
        default=True,
        vendor_name="SessionOptions.enable_mem_pattern",
        help="Whether the memory of an inference is planned as one block from the inference before.",
    ),
    RunOption(
        name="denormals-as-zero",
        kind="boolean",
        default=False,
        vendor_name=ENTRIES["denormals-as-zero"],
        changes_answers=True,
        help="Whether numbers below 1e-38, on which many CPUs are slow, are taken for 0.",
    ),
    RunOption(
        name="gelu-approximation",
        kind="boolean",
        default=False,
        vendor_name=ENTRIES["gelu-approximation"],
        changes_answers=True,
        help="Whether GELU is computed by its approximation with tanh.",
    ),
    RunOption(
        name="dynamic-block",
        kind="integer",
        minimum=0,
        maximum=64,
        default=0,
        tried=(4,),
        needs_threads=True,
        vendor_name=ENTRIES["dynamic-block"],
        help="Cuts the work of several threads into smaller pieces towards its end, so that one that is held up holds "
        "up the others less; 4 is the vendor's advice, 0 is off.",
    ),
)


def apply_settings(options: Any, chosen: Mapping[str, Value]) -> None:
    """Sets a session's options as chosen; what was not chosen stays as it is.

    Raises:
        BadInputError: The runtime has no such setting, or it takes no such value.
    """
    resolve_options(SETTINGS, chosen)
    ort = require_import("onnxruntime", "ort-run")
    for name, value in chosen.items():
        if name in ENTRIES:
            options.add_session_config_entry(ENTRIES[name], str(int(value)))
        elif name == "graph-level":
            options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[str(value)])
        elif name == "execution":
            options.execution_mode = getattr(ort.ExecutionMode, MODES[str(value)])
        else:
            setattr(options, find_attribute(name), value)


def find_attribute(name: str) -> str:
    """Returns the attribute of `SessionOptions` that a setting is."""
    return next(option.vendor_name for option in SETTINGS if option.name == name).rpartition(".")[2]


def read_settings(options: Any, chosen: Mapping[str, Value]) -> dict[str, str]:
    """Returns what the session says of what was chosen, by the vendor's names."""
    told = {}
    for option in SETTINGS:
        if option.name not in chosen:
            continue
        if option.name in ENTRIES:
            told[option.vendor_name] = str(options.get_session_config_entry(option.vendor_name))
        else:
            told[option.vendor_name] = str(getattr(options, find_attribute(option.name)))
    return told
