"""Layers of a module, and the tensors that it returns. For child processes only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from modelwright.exporters.torch.source import import_torch

_STOPPING = re.compile(r"(Convolution|Addmm|Mm|Bmm|Baddbmm|Embedding|Linear)\w*Backward\d*")


def iterate_layers(module: Any) -> Iterator[tuple[str, Any]]:
    """Yields (name, layer) for convolutions and linear layers."""
    torch = import_torch()
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.modules.conv._ConvNd):  # noqa: SLF001 - their common class
            yield name, layer


def flatten(outputs: Any) -> list[Any]:
    """Returns the tensors among a module's outputs, in order."""
    torch = import_torch()
    leaves = torch.utils._pytree.tree_leaves(outputs)  # noqa: SLF001 - torch has no public name for it
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def find_last_layers(module: Any, outputs: Sequence[Any]) -> list[Any]:
    """Returns the layers that give the outputs: the last ones on every way to one, as autograd saw it."""
    owners = {id(layer.weight): layer for _, layer in iterate_layers(module)}
    waiting = [tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None]
    seen, found = set(waiting), dict[int, Any]()
    while waiting:
        node = waiting.pop()
        layers = [owners[key] for key in map(id, _list_leaves(node)) if key in owners]
        if layers:
            found |= {id(layer): layer for layer in layers}
        elif not _STOPPING.fullmatch(node.name()):
            following = [following for following, _ in node.next_functions if following is not None]
            waiting += [each for each in following if each not in seen]
            seen.update(following)
    return list(found.values())


def _list_leaves(node: Any) -> Iterator[Any]:
    """Yields the parameters that a node of autograd takes, transposed ones too."""
    for following, _ in node.next_functions:
        if following is not None and following.name() in ("TBackward0", "TransposeBackward0", "PermuteBackward0"):
            following = following.next_functions[0][0]
        if hasattr(following, "variable"):
            yield following.variable
