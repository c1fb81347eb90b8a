"""`prune:structured:R`: channels, neurons and heads are removed, and what depends on them with them.

torch-pruning finds what belongs together (Fang et al. 2023, DepGraph, arXiv 2301.12900): the layers are dense
afterwards, and smaller.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from modelwright.compression.layers import find_last_layers, flatten, iterate_layers
from modelwright.compression.network import Network
from modelwright.compression.step import Step
from modelwright.core.errors import BadInputError, ToolchainMissingError
from modelwright.core.samples.python_source import shorten_traceback
from modelwright.exporters.torch.source import import_torch

ROUND_TO = 8
"""Channels that are left come in so many: kernels of the runtimes compute whole vectors."""
_TAYLOR_BATCHES = 16
_HEAD_COUNTS = ("num_heads", "n_heads", "num_attention_heads", "n_head", "heads")
_HEAD_SIZES = ("head_dim", "head_size", "attention_head_size", "dim_head")
_PROJECTION = re.compile(r"(to_|c_)?(q|k|v|qkv|query|key|value|attn)(_proj|_lin|_linear)?")


class StructuredPruning(Step):
    """Prunes once, the same share of every group of layers, and trains what is left."""

    def prepare(self, network: Network) -> None:
        pruning = _import_pruning()
        if network.is_program:
            raise BadInputError(
                f"{network.name} is a saved program: its layers are gone, and nothing can be removed from them",
                hint="give the factory that it was made from, FILE.py:FUNCTION; methods in a row go into one command",
            )
        before = sum(parameter.numel() for parameter in network.module.parameters())
        shapes = [list(tensor.shape) for tensor in flatten(network(network.examples))]
        attention = dict(_find_attention(network.module))
        original, faults = network.module, list[BaseException]()
        for spares_attention in (False, True) if attention else (True,):
            network.module = copy.deepcopy(original)
            try:
                self._prune(pruning, network, spares_attention=spares_attention)
                found = [list(tensor.shape) for tensor in flatten(network(network.examples))]
            except Exception as error:  # torch-pruning and the module itself raise whatever they like
                faults.append(error)
                continue
            if found == shapes:
                break
            faults.append(ValueError(f"its outputs would be {found}, and not {shapes} any more"))
        else:
            network.module = original
            raise BadInputError(
                f"{network.name} cannot be traced for pruning: {type(faults[-1]).__name__}: {faults[-1]}",
                hint="sizes that forward computes from fixed numbers are the usual reason: take them from the tensors, "
                "such as x.flatten(1) in the place of x.view(-1, 512); or use prune:magnitude",
                detail=shorten_traceback(faults[-1]),
            ) from faults[-1]
        if attention and faults:
            self.notes.append(
                f"attention stays as it is, since without some of its heads {network.name} fails: {faults[0]}"
            )
        after = sum(parameter.numel() for parameter in network.module.parameters())
        if after == before:
            raise BadInputError(
                f"nothing can be removed from {network.name} at {self.method.ratio:g}: of every group of channels a "
                f"multiple of {ROUND_TO} is left, and layers that give the outputs stay",
                hint="try another ratio, or prune:magnitude, or distil a smaller network",
            )
        self.notes.append(f"{before - after:,} of {before:,} parameters were removed")

    def describe(self) -> dict[str, str]:
        return {
            "importance": self.task.settings.importance,
            "channels": f"the same share of every group of layers, rounded to {ROUND_TO}",
        }

    def _prune(self, pruning: Any, network: Network, *, spares_attention: bool) -> None:
        network.set_training(training=False)
        ignored = find_last_layers(network.module, flatten(network(network.examples)))
        heads: dict[Any, int] = {}
        attention = list(_find_attention(network.module))
        for module, projections in attention:
            if spares_attention:
                ignored += [layer for _, layer in iterate_layers(module)]
            else:
                heads |= dict.fromkeys(projections, _read(module, _HEAD_COUNTS))
        pruner = pruning.pruner.BasePruner(
            network.module,
            network.examples,
            importance=self._make_importance(pruning, network),
            pruning_ratio=self.method.ratio,
            ignored_layers=ignored,
            round_to=ROUND_TO,
            num_heads=heads,
            prune_num_heads=True,
            prune_head_dims=False,
            head_pruning_ratio=self.method.ratio,
            in_channel_groups={},
            out_channel_groups={},
            forward_fn=lambda _module, examples: flatten(network(examples)),
        )
        pruner.step()
        for module, projections in attention:
            if not spares_attention:
                _tell_heads(module, projections, pruner.num_heads)
        network.module.zero_grad(set_to_none=True)

    def _make_importance(self, pruning: Any, network: Network) -> Any:
        """Returns how channels are ranked; for Taylor's expansion gradients are taken on training data first."""
        if self.task.settings.importance == "magnitude":
            return pruning.importance.GroupMagnitudeImportance(p=2)
        batches = self.task.train.batches(self.task.chosen, self.task.settings.batch)
        for _, batch in zip(range(_TAYLOR_BATCHES), batches, strict=False):
            self.task.objective.loss(network(batch), batch).backward()
        return pruning.importance.GroupTaylorImportance()


def _import_pruning() -> Any:
    try:
        import torch_pruning
    except ModuleNotFoundError as error:
        raise ToolchainMissingError(
            f"Python package {error.name} is not installed; prune:structured needs it",
            hint="pip install 'modelwright[compress]'",
        ) from error
    return torch_pruning


def _find_attention(module: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Yields (module, projections to queries, keys and values) for attention that says how many heads it has."""
    torch = import_torch()
    for each in module.modules():
        if isinstance(each, torch.nn.MultiheadAttention):
            yield each, []
        elif _read(each, _HEAD_COUNTS) is not None:
            linear = [
                layer
                for name, layer in each.named_children()
                if isinstance(layer, torch.nn.Linear) and _PROJECTION.fullmatch(name.lower())
            ]
            if linear:
                yield each, linear


def _tell_heads(module: Any, projections: list[Any], heads: Mapping[Any, int]) -> None:
    """Writes into an attention how many heads it has now; their size stays."""
    if not projections:
        return
    old, new = _read(module, _HEAD_COUNTS), heads[projections[0]]
    for name, value in list(vars(module).items()):
        if name in _HEAD_COUNTS:
            setattr(module, name, new)
        elif (
            isinstance(value, int)
            and not isinstance(value, bool)
            and name not in _HEAD_SIZES
            and old
            and not value % old
        ):
            # A width that counts all heads, such as all_head_size.
            size = _read(module, _HEAD_SIZES)
            if size is not None and value == old * size:
                setattr(module, name, new * size)


def _read(module: Any, names: tuple[str, ...]) -> int | None:
    return next((value for name in names if isinstance(value := getattr(module, name, None), int)), None)
