"""A network that is trained: the module, how it is called, and what it costs. For child processes only."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelwright.compression.layers import iterate_layers
from modelwright.core.errors import BadInputError
from modelwright.core.records.compressed import Size
from modelwright.exporters.torch.source import TorchSource, import_torch

_ZLIB_LEVEL = 6
_BLOCK_BYTES = 16 * 2**20
_NAMED = 3


@dataclass(kw_only=True)
class Network:
    """A module with its inputs by name.

    Attributes:
        name: For messages.
        module: What is called; methods change or replace it.
        examples: Input name -> tensor of a few rows, in the order of the call.
        positional: How many of them are handed over by position.
        output_names: Names that the source gives to its outputs, if it does.
        is_program: Whether it is a saved program: captured for inference, so that training cannot change its mode.
    """

    name: str
    module: Any
    examples: dict[str, Any]
    positional: int = 0
    output_names: tuple[str, ...] | None = None
    is_program: bool = False
    notes: list[str] = field(default_factory=list)
    masks: dict[str, Any] = field(default_factory=dict)
    """Layer -> 1 where a weight is trained, 0 where it stays 0."""

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """Returns what the module returns for a batch: input name -> tensor; what else is in it is left alone."""
        values = [batch[name] for name in self.examples]
        named = dict(zip(list(self.examples)[self.positional :], values[self.positional :], strict=True))
        return self.module(*values[: self.positional], **named)

    def set_training(self, *, training: bool) -> None:
        """Puts the module into the mode of training or of inference, where it has two."""
        if not self.is_program:
            self.module.train(training)

    def list_weights(self) -> dict[str, Any]:
        """Returns layer name -> weight, of convolutions and linear layers, each tensor once."""
        found: dict[str, Any] = {}
        seen: set[int] = set()
        for name, module in iterate_layers(self.module):
            if id(module.weight) not in seen:
                seen.add(id(module.weight))
                found[name] = module.weight
        if not found:  # a saved program has no layers, only what they were
            found = {
                name.removesuffix(".weight"): value
                for name, value in self.module.named_parameters()
                if value.dim() > 1 and name.endswith("weight")
            }
        return found

    def keep_zeros(self) -> None:
        """Lets every weight that is 0 now stay 0."""
        self.masks = {name: (weight != 0).to(weight.dtype) for name, weight in self.list_weights().items()}

    def apply_masks(self) -> None:
        """Takes back to 0 what is to stay 0."""
        with import_torch().no_grad():
            for name, mask in self.masks.items():
                self.module.get_parameter(f"{name}.weight").mul_(mask)

    def copy_state(self) -> dict[str, Any]:
        """Returns the state dict as tensors of its own, as safetensors can write them."""
        return copy_state(self.module)


def make_network(source: TorchSource) -> Network:
    """Makes a source trainable.

    Raises:
        BadInputError: Its inputs are nested, or one is no batch.
    """
    torch = import_torch()
    if source.program is None:
        names = [*_name_positional(source), *source.kwargs]
        positional = len(source.args)
    else:
        kinds = torch.export.graph_signature.InputKind
        names = [s.arg.name for s in source.program.graph_signature.input_specs if s.kind == kinds.USER_INPUT]
        positional = len(source.args)
    values = [*source.args, *source.kwargs.values()]
    if len(names) != len(values) or not all(isinstance(value, torch.Tensor) for value in values):
        raise BadInputError(
            f"{source.name} takes inputs that are no tensors, or tensors in lists, which make no batch",
            hint="give a factory whose module takes each tensor as an argument of its own",
        )
    if source.whole or any(not value.dim() or len(value) != len(values[0]) for value in values):
        raise BadInputError(
            f"{source.name} has inputs whose first axis is no batch, such as a state: it is not trained here",
            hint="give a factory of a module that makes its first state itself",
        )
    for tensor in [*source.module.parameters()]:
        tensor.requires_grad_(tensor.is_floating_point())
    _fold_parametrizations(source)  # those of what needs no gradient would become tensors that are no parameters
    return Network(
        name=source.name,
        module=source.module,
        examples=dict(zip(names, values, strict=True)),
        positional=positional,
        output_names=source.output_names,
        is_program=source.program is not None,
        notes=source.notes,
    )


def _fold_parametrizations(source: TorchSource) -> None:
    """Lets weights that are computed of others, such as by weight_norm, be weights: these are what is made smaller."""
    parametrize = import_torch().nn.utils.parametrize
    folded = []
    for name, module in source.module.named_modules():
        for weight in list(module.parametrizations) if parametrize.is_parametrized(module) else []:
            parametrize.remove_parametrizations(module, weight, leave_parametrized=True)
            folded.append(f"{name}.{weight}".lstrip("."))
    if folded:
        more = f" and {len(folded) - _NAMED} more" if len(folded) > _NAMED else ""
        source.notes.append(
            f"{', '.join(folded[:_NAMED])}{more} of {source.name} were computed of other weights, such as by "
            "weight_norm; their values are what is trained from here on"
        )


def _name_positional(source: TorchSource) -> list[str]:
    import inspect

    return list(inspect.signature(source.module.forward).parameters)[: len(source.args)]


def copy_state(module: Any) -> dict[str, Any]:
    """Returns a state dict whose tensors share no memory, as safetensors wants them."""
    torch = import_torch()
    return {
        name: value.detach().clone().contiguous()
        for name, value in module.state_dict().items()
        if isinstance(value, torch.Tensor)
    }


def measure_size(network: Network) -> Size:
    """Counts what a network costs."""
    weights = list(network.list_weights().values())
    total = sum(weight.numel() for weight in weights)
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return Size(
        parameters=sum(parameter.numel() for parameter in network.module.parameters()),
        macs=count_macs(network),
        **weigh(network),
        zero_share=zeros / total if total else 0.0,
    )


def weigh(network: Network) -> dict[str, int]:
    """Returns the bytes of the state dict, and of the same after compression, as fields of `Size`."""
    state = list(network.copy_state().values())
    size = sum(value.numel() * value.element_size() for value in state)
    return {"weights_bytes": size, "deflated_bytes": deflate(state)}


def measure_sparsity(network: Network) -> dict[str, float]:
    """Returns layer -> share of its weights that are exactly 0."""
    return {
        name: float((weight == 0).sum()) / weight.numel()
        for name, weight in network.list_weights().items()
        if weight.numel()
    }


def count_macs(network: Network) -> int:
    """Counts multiplications with an addition for one sample, in convolutions and products of matrices.

    torch counts both operations of each, on the example inputs.
    """
    torch = import_torch()
    from torch.utils.flop_counter import FlopCounterMode

    rows = len(next(iter(network.examples.values())))
    network.set_training(training=False)
    with _spell_out(torch), FlopCounterMode(display=False) as counter, torch.no_grad():
        network(network.examples)
    return int(counter.get_total_flops() // 2 // rows)


@contextlib.contextmanager
def _spell_out(torch: Any) -> Iterator[None]:
    """Lets attention and recurrent layers run product by product: as one operator they would count as none."""
    fast, fused = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.mkldnn.set_flags(_enabled=False, _fp32_precision=None)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=fused, _fp32_precision=None)
        torch.backends.mha.set_fastpath_enabled(fast)


def deflate(tensors: Sequence[Any]) -> int:
    """Returns the bytes of tensors after compression by zlib."""
    torch = import_torch()
    packer, size = zlib.compressobj(_ZLIB_LEVEL), 0
    for tensor in tensors:
        data = memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
        for start in range(0, len(data), _BLOCK_BYTES):
            size += len(packer.compress(data[start : start + _BLOCK_BYTES]))
    return size + len(packer.flush())
