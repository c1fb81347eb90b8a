"""`low-rank:R`: a large layer becomes two thin ones, the best that so few numbers can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from modelwright.compression.layers import find_last_layers, flatten, iterate_layers
from modelwright.compression.network import Network
from modelwright.compression.step import Step
from modelwright.core.errors import BadInputError
from modelwright.exporters.torch.source import import_torch

ROUND_TO = 8
"""Ranks come in so many: kernels compute whole vectors."""
_NAMED = 3


class LowRank(Step):
    """Cuts the singular values of weights: of linear layers [out, in], of convolutions [out, in * kernel].

    The share R of a layer's weights goes. Layers that give the outputs stay, and so do those that would have no
    rank of 8 left, whose weight is used elsewhere too, and convolutions in groups.
    """

    def prepare(self, network: Network) -> None:
        if network.is_program:
            raise BadInputError(
                f"{network.name} is a saved program: its layers are gone, and none can become two",
                hint="give the factory that it was made from, FILE.py:FUNCTION; methods in a row go into one command",
            )
        spared = {id(layer) for layer in find_last_layers(network.module, flatten(network(network.examples)))} | set(
            _list_tied(network.module)
        )
        told, read = list[str](), list[str]()
        for parent, name, layer in list(_iterate_places(network.module)):
            rank = find_rank(layer, self.method.ratio)
            if id(layer) not in spared and rank:
                setattr(parent, name, split_layer(layer, rank))
                if not _runs(network):  # what calls it reads its weight as well, as torch's encoder layers do
                    setattr(parent, name, layer)
                    read.append(name)
                    continue
                told.append(f"{name} to rank {rank} of {min(layer.weight.shape[0], layer.weight[0].numel())}")
        if not told:
            raise BadInputError(
                f"no layer of {network.name} is large enough for low-rank at {self.method.ratio:g}: a rank of "
                f"{ROUND_TO} at least has to be left, and the layers that give the outputs stay",
                hint="take less away, or use prune:structured",
            )
        more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        self.notes.append(f"cut {', '.join(told[:_NAMED])}{more}")
        if read:
            more = f" and {len(read) - _NAMED} more" if len(read) > _NAMED else ""
            self.notes.append(f"{', '.join(read[:_NAMED])}{more} stay as they are: forward reads their weights itself")

    def describe(self) -> dict[str, str]:
        return {"ranks": f"by the share of weights, multiples of {ROUND_TO}", "method": "singular values"}


def _runs(network: Network) -> bool:
    network.set_training(training=False)
    try:
        with import_torch().no_grad():
            network(network.examples)
    except Exception:  # what a module raises that reads a weight where there is none any more is its own affair
        return False
    return True


def find_rank(layer: Any, ratio: float) -> int:
    """Returns the rank at which at least a share of a layer's weights is gone; 0 where none is left."""
    torch = import_torch()
    if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) or getattr(layer, "groups", 1) != 1:
        return 0
    rows, columns = layer.weight.shape[0], layer.weight[0].numel()
    return int((1 - ratio) * rows * columns / (rows + columns)) // ROUND_TO * ROUND_TO


def split_layer(layer: Any, rank: int) -> Any:
    """Returns two layers in a row that do nearly what one did."""
    torch = import_torch()
    weight = layer.weight.detach()
    left, values, right = torch.linalg.svd(weight.reshape(len(weight), -1), full_matrices=False)
    root = values[:rank].sqrt()
    first, second = root[:, None] * right[:rank], left[:, :rank] * root
    has_bias = layer.bias is not None
    if isinstance(layer, torch.nn.Linear):
        pair = (
            torch.nn.Linear(layer.in_features, rank, bias=False),
            torch.nn.Linear(rank, layer.out_features, bias=has_bias),
        )
    else:
        pair = (
            torch.nn.Conv2d(
                layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=False,
                padding_mode=layer.padding_mode,
            ),
            torch.nn.Conv2d(rank, layer.out_channels, 1, bias=has_bias),
        )  # fmt: skip
    with torch.no_grad():
        for made, found in zip(pair, (first, second), strict=True):
            made.weight.copy_(found.reshape(made.weight.shape))
        if has_bias:
            pair[1].bias.copy_(layer.bias)
    return torch.nn.Sequential(*pair)


def _iterate_places(module: Any) -> Iterator[tuple[Any, str, Any]]:
    """Yields (parent, name, layer); attention of torch's own uses the weights of its layers without calling them."""
    torch = import_torch()
    for parent in module.modules():
        if isinstance(parent, torch.nn.MultiheadAttention):
            continue
        for name, layer in parent.named_children():
            if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                yield parent, name, layer


def _list_tied(module: Any) -> Iterator[int]:
    """Yields the identities of layers whose weight belongs to another module too."""
    weights = Counter(
        id(value) for each in module.modules() for value in vars(each)["_parameters"].values() if value is not None
    )
    for _, layer in iterate_layers(module):
        if weights[id(layer.weight)] > 1:
            yield id(layer)
