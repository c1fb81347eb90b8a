"""What can be set of a TFLite interpreter when a file is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.targets.options import RunOption, Value, resolve_options

SETTINGS = (
    RunOption(
        name="xnnpack",
        kind="boolean",
        default=True,
        vendor_name="Interpreter(experimental_op_resolver_type=...)",
        changes_answers=True,
        help="Whether XNNPACK computes what it has kernels for. Off, TFLite's own kernels do.",
    ),
    RunOption(
        name="latest-features",
        kind="boolean",
        default=False,
        needs=("xnnpack", True),
        vendor_name="Interpreter(experimental_default_delegate_latest_features=...)",
        changes_answers=True,
        help="Whether XNNPACK may use what the vendor still holds back; with xnnpack=true only.",
    ),
)


def list_arguments(chosen: Mapping[str, Value], runtime: Any) -> dict[str, Any]:
    """Returns the arguments of the interpreter that say what was chosen; none for defaults.

    Args:
        chosen: Setting -> value.
        runtime: The vendor's module that has the interpreter.

    Raises:
        BadInputError: The runtime has no such setting, or it takes no such value.
    """
    resolve_options(SETTINGS, chosen)
    arguments: dict[str, Any] = {}
    if chosen.get("xnnpack") is False:
        arguments["experimental_op_resolver_type"] = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    if chosen.get("latest-features"):
        arguments["experimental_default_delegate_latest_features"] = True
    return arguments
