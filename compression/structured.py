"""`prune:structured:R`: channels, neurons and heads are removed, and what depends on them with them.

torch-pruning finds what belongs together (Fang et al. 2023, DepGraph, arXiv 2301.12900): the layers are dense
afterwards, and smaller.
"""

from __future__ import annotations

import copy
import re
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
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
_NAMED = 3
_SIZES_FIXED = (
    "sizes that forward computes from fixed numbers are the usual reason: take them from the tensors, such as "
    "x.flatten(1) in the place of x.view(-1, 512); or use prune:magnitude"
)
_CHANNELS_LOST = (
    "torch-pruning loses track of channels that are parted and mixed, such as by chunk, split and a shuffle: use "
    "prune:magnitude or low-rank, or distil a network with fewer channels"
)
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
        original, before = network.module, _count(network.module)
        self._shapes = [list(tensor.shape) for tensor in flatten(network(network.examples))]
        fault = self._attempt(pruning, network, original)
        if fault is not None:
            attention = _name_attention(original)
            if attention and self._attempt(pruning, network, original, attention) is None:
                self.notes.append(
                    f"attention stays as it is, since without some of its heads {network.name} fails: {fault}"
                )
            else:
                self._spare_fragile(pruning, network, original, fault)
        after = _count(network.module)
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

    def _spare_fragile(self, pruning: Any, network: Network, original: Any, fault: Exception) -> None:
        """Prunes all groups of layers but those without whose channels the module fails.

        Raises:
            BadInputError: It fails without any of them.
        """
        fragile = self._find_fragile(pruning, network, original)
        if self._attempt(pruning, network, original, fragile) is None and _count(network.module) < _count(original):
            named = sorted(fragile)
            more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
            self.notes.append(
                f"{', '.join(named[:_NAMED])}{more} keep their channels, without some of which {network.name} fails: "
                f"{fault}"
            )
            return
        network.module = original
        raise BadInputError(
            f"{network.name} cannot be pruned by channels: {type(fault).__name__}: {fault}",
            hint=_CHANNELS_LOST if _is_raised_by(fault, pruning) else _SIZES_FIXED,
            detail=shorten_traceback(fault),
        ) from fault

    def _find_fragile(self, pruning: Any, network: Network, original: Any) -> frozenset[str]:
        """Returns the layers of all groups that cannot even be pruned each by itself; none where nothing is traced."""
        try:
            network.module = copy.deepcopy(original)
            groups = _list_groups(self._make_pruner(pruning, network, {}, []), network.module)
        except Exception:  # as in an attempt
            return frozenset()
        everything = frozenset[str]().union(*groups)
        fragile = [group for group in groups if self._attempt(pruning, network, original, everything - group)]
        return frozenset[str]().union(*fragile)

    def _attempt(
        self, pruning: Any, network: Network, original: Any, spared: frozenset[str] = frozenset()
    ) -> Exception | None:
        """Prunes a copy of a module but for some layers; returns why that does not work, None where it does."""
        try:
            network.module = copy.deepcopy(original)
            self._prune(pruning, network, spared)
            found = [list(tensor.shape) for tensor in flatten(network(network.examples))]
        except Exception as error:  # torch-pruning, and the module itself, copied or called, raise whatever they like
            return error
        return (
            None
            if found == self._shapes
            else ValueError(f"its outputs would be {found}, and not {self._shapes} any more")
        )

    def _prune(self, pruning: Any, network: Network, spared: frozenset[str]) -> None:
        layers = dict(network.module.named_modules())
        kept = {id(layers[name]) for name in spared}
        cut = [
            (module, projections)
            for module, projections in _find_attention(network.module)
            if not any(id(layer) in kept for _, layer in iterate_layers(module))
        ]
        heads = {layer: _read(module, _HEAD_COUNTS) for module, projections in cut for layer in projections}
        pruner = self._make_pruner(pruning, network, heads, [layers[name] for name in spared])
        pruner.step()
        for module, projections in cut:
            _tell_heads(module, projections, pruner.num_heads)
        network.module.zero_grad(set_to_none=True)

    def _make_pruner(self, pruning: Any, network: Network, heads: Mapping[Any, Any], spared: list[Any]) -> Any:
        network.set_training(training=False)
        return pruning.pruner.BasePruner(
            network.module,
            network.examples,
            importance=self._make_importance(pruning, network),
            pruning_ratio=self.method.ratio,
            ignored_layers=[*find_last_layers(network.module, flatten(network(network.examples))), *spared],
            round_to=ROUND_TO,
            num_heads=dict(heads),
            prune_num_heads=True,
            prune_head_dims=False,
            head_pruning_ratio=self.method.ratio,
            in_channel_groups={},
            out_channel_groups={},
            forward_fn=lambda _module, examples: flatten(network(examples)),
        )

    def _make_importance(self, pruning: Any, network: Network) -> Any:
        """Returns how channels are ranked; for Taylor's expansion gradients are taken on training data first."""
        if self.task.settings.importance == "magnitude":
            return pruning.importance.GroupMagnitudeImportance(p=2)
        batches = self.task.train.batches(self.task.chosen, self.task.settings.batch)
        for _, batch in zip(range(_TAYLOR_BATCHES), batches, strict=False):
            self.task.objective.loss(network(batch), batch).backward()
        return pruning.importance.GroupTaylorImportance()


def _is_raised_by(fault: BaseException, package: Any) -> bool:
    """Whether a package's own code failed, rather than what it called."""
    frames = traceback.extract_tb(fault.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(package.__file__).parent)


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _list_groups(pruner: Any, module: Any) -> list[frozenset[str]]:
    """Returns the layers of each group whose channels go together, by their names."""
    names = {id(layer): name for name, layer in module.named_modules()}
    graph = pruner.DG
    groups = graph.get_all_groups(ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types)
    found = [
        frozenset(
            names[id(dependency.target.module)]
            for dependency, _ in group
            if graph.is_out_channel_pruning_fn(dependency.handler) and id(dependency.target.module) in names
        )
        for group in groups
    ]
    return [group for group in found if group]


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


def _name_attention(module: Any) -> frozenset[str]:
    """Returns the names of all layers of attention."""
    inside = {id(layer) for each, _ in _find_attention(module) for _, layer in iterate_layers(each)}
    return frozenset(name for name, layer in module.named_modules() if id(layer) in inside)


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
