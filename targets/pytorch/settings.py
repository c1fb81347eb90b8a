"""What can be set of PyTorch when a program is run, for the whole process or for the program's tensors.

Names and meanings: https://docs.pytorch.org/docs/stable (`torch.backends.mkldnn`, `torch.set_flush_denormal`, the
tutorial on channels last) and the comments of `torch._inductor.config`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelwright.targets.options import RunOption, Value, resolve_options
from modelwright.targets.readiness import require_import

SETTINGS = (
    RunOption(
        name="channels-last",
        kind="boolean",
        default=False,
        vendor_name="Tensor.to(memory_format=torch.channels_last)",
        changes_answers=True,
        help="Whether weights and inputs of 4 dimensions lie in memory with their channels last, which some "
        "convolutions are faster with. Inputs are turned round in each inference, and that counts.",
    ),
    RunOption(
        name="onednn",
        kind="boolean",
        default=True,
        vendor_name="torch.backends.mkldnn.set_flags",
        changes_answers=True,
        help="Whether oneDNN computes what it has kernels for on a CPU. Off, PyTorch's own kernels do, which very "
        "small models are now and then faster with.",
    ),
    RunOption(
        name="denormals-as-zero",
        kind="boolean",
        default=False,
        vendor_name="torch.set_flush_denormal",
        changes_answers=True,
        help="Whether numbers below 1e-38, on which many CPUs are slow, are taken for 0.",
    ),
)
COMPILED_SETTINGS = (
    *SETTINGS,
    RunOption(
        name="freezing",
        kind="boolean",
        default=False,
        vendor_name="torch._inductor.config.freezing",
        changes_answers=True,
        help="Whether the compiler takes weights for constants: it folds them into each other and packs them for "
        "oneDNN.",
    ),
)


def apply_chosen(torch: Any, chosen: Mapping[str, Value], *, compiled: bool) -> None:
    """Sets what torch keeps of it for the process: as chosen, else the defaults, whatever was set before.

    Raises:
        BadInputError: The runtime has no such setting, or it takes no such value.
    """
    values = resolve_options(COMPILED_SETTINGS if compiled else SETTINGS, chosen)
    torch.backends.mkldnn.set_flags(bool(values["onednn"]))
    torch.set_flush_denormal(bool(values["denormals-as-zero"]))
    if compiled:
        inductor: Any = require_import("torch._inductor.config", "torch-run")
        inductor.freezing = bool(values["freezing"])


def place_weights(torch: Any, module: Any, chosen: Mapping[str, Value]) -> Any:
    """Returns a module with its weights in memory as chosen."""
    return module.to(memory_format=torch.channels_last) if chosen.get("channels-last") else module


def place_inputs(
    torch: Any, call: Callable[..., Sequence[Any]], chosen: Mapping[str, Value]
) -> Callable[..., Sequence[Any]]:
    """Returns a call that lays its inputs in memory as chosen."""
    if not chosen.get("channels-last"):
        return call

    def infer(*tensors: Any) -> Sequence[Any]:
        return call(
            *(each.contiguous(memory_format=torch.channels_last) if each.dim() == 4 else each for each in tensors)
        )

    return infer


def read_chosen(torch: Any, module: Any, chosen: Mapping[str, Value]) -> dict[str, str]:
    """Returns what torch says of what was chosen, by the vendor's names."""
    options = {option.name: option.vendor_name for option in COMPILED_SETTINGS}
    readers: dict[str, Callable[[], object]] = {
        "channels-last": lambda: f"{_count_channels_last(torch, module)} weights",
        "onednn": lambda: torch.backends.mkldnn.enabled,
        "denormals-as-zero": lambda: bool((torch.tensor([1e-40]) * 1 == 0).all()),
        "freezing": lambda: require_import("torch._inductor.config", "torch-run").freezing,
    }
    return {options[name]: str(readers[name]()) for name in chosen}


def _count_channels_last(torch: Any, module: Any) -> int:
    weights = [each for each in (*module.parameters(), *module.buffers()) if each.dim() == 4]
    return sum(each.is_contiguous(memory_format=torch.channels_last) for each in weights)
