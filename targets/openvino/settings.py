"""What can be set of OpenVINO's CPU plugin when a model is compiled, and the properties that say it.

Names and meanings: https://docs.openvino.ai (CPU device, supported properties).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.targets.options import RunOption, RunSettings, Value, resolve_options

SETTINGS = (
    RunOption(
        name="hint",
        kind="choice",
        choices=("latency", "throughput"),
        default="latency",
        vendor_name="PERFORMANCE_HINT",
        help="What OpenVINO plans its threads and memory for.",
    ),
    RunOption(
        name="pinning",
        kind="boolean",
        default=False,
        vendor_name="ENABLE_CPU_PINNING",
        help="Whether threads stay on their cores. The vendor's default is on; here it is off, as artifacts that are "
        "measured in turns would all be pinned to the same core.",
    ),
    RunOption(
        name="hyper-threading",
        kind="boolean",
        default=True,
        vendor_name="ENABLE_HYPER_THREADING",
        help="Whether two threads may share a physical core.",
    ),
    RunOption(
        name="core-type",
        kind="choice",
        choices=("any", "performance", "efficient"),
        default="any",
        vendor_name="SCHEDULING_CORE_TYPE",
        help="Which cores are used, on CPUs that have two kinds.",
    ),
    RunOption(
        name="denormals-as-zero",
        kind="boolean",
        default=False,
        vendor_name="CPU_DENORMALS_OPTIMIZATION",
        changes_answers=True,
        help="Whether numbers below 1e-38, on which many CPUs are slow, are taken for 0.",
    ),
)
_WORDS: Mapping[str, str] = {
    "latency": "LATENCY",
    "throughput": "THROUGHPUT",
    "any": "ANY_CORE",
    "performance": "PCORE_ONLY",
    "efficient": "ECORE_ONLY",
}


def list_properties(settings: RunSettings) -> dict[str, Any]:
    """Returns the properties that a model is compiled with, besides its precision: as many streams as requests.

    Not pinned: every artifact of a comparison would be pinned to the same first core, and could not move away from a
    busy neighbour on a shared machine.

    Raises:
        BadInputError: The runtime has no such setting, or it takes no such value.
    """
    chosen = resolve_options(SETTINGS, settings.options)
    told = {option.vendor_name: _spell(chosen[option.name]) for option in SETTINGS}
    always = {"PERFORMANCE_HINT", "ENABLE_CPU_PINNING"}
    asked = {option.vendor_name for option in SETTINGS if option.name in settings.options}
    properties = {name: value for name, value in told.items() if name in always | asked}
    streams = settings.requests
    return {**properties, "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": settings.threads * streams}


def _spell(value: Value | None) -> Any:
    return _WORDS[value] if isinstance(value, str) else value


def read_properties_in_force(compiled: Any, chosen: Mapping[str, Value]) -> dict[str, str]:
    """Returns what a compiled model says of what was chosen, by the vendor's names."""
    names = [option.vendor_name for option in SETTINGS if option.name in chosen]
    return {name: _name(compiled.get_property(name)) for name in names}


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))
