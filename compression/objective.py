"""What training works towards: a loss of a batch, and how good all answers are. For child processes only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modelwright.compression.data import Data, Indices
from modelwright.compression.layers import flatten
from modelwright.compression.network import Network
from modelwright.core.errors import BadInputError
from modelwright.core.records.compressed import Quality
from modelwright.core.samples.python_source import load_function, shorten_traceback, split_function
from modelwright.core.samples.sample_set import LABELS, TARGET
from modelwright.exporters.torch.source import import_torch

_EVALUATED_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss, and the metric that belongs to it.

    Attributes:
        metric: As in `Quality`.
        loss: Outputs and batch -> scalar tensor.
        count: Outputs and batch -> what the metric is computed of, summed over batches; empty for a loss alone.
    """

    metric: Literal["accuracy", "r2", "loss"]
    loss: Callable[[Any, Mapping[str, Any]], Any]
    count: Callable[[Any, Mapping[str, Any]], dict[str, Any]]

    def measure(self, network: Network, data: Data, indices: Indices) -> Quality:
        """Runs a network in the mode of inference and says how good its answers are."""
        torch = import_torch()
        network.set_training(training=False)
        total, samples, sums = 0.0, 0, dict[str, Any]()
        with torch.no_grad():
            for start in range(0, len(indices), _EVALUATED_AT_ONCE):
                batch = data.take(indices[start : start + _EVALUATED_AT_ONCE])
                outputs = network(batch)
                rows = len(next(iter(batch.values())))
                total += float(self.loss(outputs, batch)) * rows
                samples += rows
                for name, value in self.count(outputs, batch).items():
                    sums[name] = sums.get(name, 0) + value
        loss = total / samples
        if not math.isfinite(loss):
            raise BadInputError(
                f"the loss of {network.name} is {loss} on {samples} samples of {data.name}",
                hint="look for values that are far from all others there, or give a lower --lr where it was trained",
            )
        value = {"accuracy": _share_right, "r2": _explain_variance}.get(self.metric, lambda _sums: loss)(sums)
        return Quality(metric=self.metric, value=value, loss=loss, samples=samples)


def make_objective(loss: str, answers: Mapping[str, Any]) -> Objective:
    """Makes an objective of what the user calls a loss.

    Args:
        loss: `cross-entropy`, `mse`, or `file.py:function`.
        answers: Of the training data: name -> array.

    Raises:
        BadInputError: The data lack what the loss needs, or the user's function cannot be loaded.
    """
    if loss == "cross-entropy":
        if LABELS not in answers:
            raise BadInputError(
                f"the training data have no `labels`, which cross-entropy needs (there are: {', '.join(answers)})",
                hint="add `labels` with class numbers, or train with --loss mse",
            )
        return Objective(metric="accuracy", loss=_cross_entropy, count=_count_right)
    if loss == "mse":
        names = [name for name in answers if name.startswith(TARGET)]
        if not names:
            raise BadInputError(
                "the training data have no `target_...`, which mse needs",
                hint="add arrays target_... [samples, ...], in the order of the outputs; or train with cross-entropy",
            )
        return Objective(
            metric="r2",
            loss=lambda outputs, batch: _squares(names, outputs, batch),
            count=lambda outputs, batch: _count_variance(names, outputs, batch),
        )
    path, function = split_function(loss)
    assert function is not None
    return Objective(metric="loss", loss=_wrap(loss, load_function(Path(path), function)), count=lambda *_: {})


def check_first_batch(network: Network, objective: Objective, data: Data) -> None:
    """Runs a network on two samples: what does not fit is found before anything is trained.

    Raises:
        BadInputError: The network fails on them, the loss does, or labels are no classes.
    """
    torch = import_torch()
    import numpy as np

    if objective.metric == "accuracy" and data.answers[LABELS].dtype.kind not in "iu":
        raise BadInputError(
            f"{data.name}: labels are {data.answers[LABELS].dtype}, and classes are whole numbers from 0",
            hint="save labels.astype('int64'), or name them target_... and train with --loss mse",
        )
    batch = data.take(np.arange(min(2, data.count), dtype=np.int64))
    network.set_training(training=False)
    shapes = ", ".join(f"{name} {list(batch[name].shape)}" for name in network.examples)
    with torch.no_grad():
        try:
            outputs = network(batch)
        except Exception as error:  # what a module raises for a wrong shape is its own affair
            wanted = ", ".join(f"{name} {list(value.shape)}" for name, value in network.examples.items())
            raise BadInputError(
                f"{network.name} fails on the first samples of {data.name} ({shapes}): {type(error).__name__}: {error}",
                hint=f"its own example inputs are {wanted}: save samples of those shapes, any number of rows",
                detail=shorten_traceback(error),
            ) from error
        value = objective.loss(outputs, batch)
    if not torch.isfinite(value):
        raise BadInputError(
            f"the loss of {network.name} on the first samples of {data.name} is {float(value)}",
            hint="scale inputs and targets as the network was trained on",
        )


def _cross_entropy(outputs: Any, batch: Mapping[str, Any]) -> Any:
    torch = import_torch()
    return torch.nn.functional.cross_entropy(_find_logits(outputs, batch), batch[LABELS])


def _count_right(outputs: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    right = _find_logits(outputs, batch).argmax(1) == batch[LABELS]
    return {"right": int(right.sum()), "answers": right.numel()}


def _share_right(sums: Mapping[str, Any]) -> float:
    return float(sums["right"] / sums["answers"])


def _find_logits(outputs: Any, batch: Mapping[str, Any]) -> Any:
    """Returns the output [batch, classes, ...] that labels [batch, ...] belong to."""
    labels, tensors = batch[LABELS], flatten(outputs)
    for tensor in tensors:
        if tensor.dim() == labels.dim() + 1 and (tensor.shape[0], *tensor.shape[2:]) == tuple(labels.shape):
            if int(labels.max()) < tensor.shape[1] and int(labels.min()) >= 0:
                return tensor
            raise BadInputError(
                f"labels go from {int(labels.min())} to {int(labels.max())}, and the network has the classes 0 to "
                f"{tensor.shape[1] - 1}",
                hint="count classes from 0, in the order of the network's output",
            )
    shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
    raise BadInputError(
        f"no output [batch, classes, ...] belongs to labels {list(labels.shape)}: the outputs are {shapes}",
        hint="give labels [samples], or train with --loss FILE.py:FUNCTION, which takes outputs and batch",
    )


def _pair(names: list[str], outputs: Any, batch: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Returns (output, target) for every target, in their order."""
    tensors = [tensor for tensor in flatten(outputs) if tensor.is_floating_point()]
    if len(names) <= len(tensors):
        pairs = list(zip(tensors, (batch[name].float() for name in names), strict=False))
        if all(output.shape == target.shape for output, target in pairs):
            return pairs
    found = ", ".join(str(list(tensor.shape)) for tensor in tensors)
    wanted = ", ".join(f"{name} {list(batch[name].shape)}" for name in names)
    raise BadInputError(
        f"the targets ({wanted}) do not have the shapes of the outputs ({found}), in their order",
        hint="save target_... with the shape of the output that it belongs to; names are sorted as they were saved",
    )


def _squares(names: list[str], outputs: Any, batch: Mapping[str, Any]) -> Any:
    torch = import_torch()
    losses = [torch.nn.functional.mse_loss(output, target) for output, target in _pair(names, outputs, batch)]
    return torch.stack(losses).mean()


def _count_variance(names: list[str], outputs: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Returns, for each number of each target, what R2 is made of; in double precision."""
    counts: dict[str, Any] = {}
    for name, (output, target) in zip(names, _pair(names, outputs, batch), strict=True):
        target, output = target.double(), output.double()
        counts[f"{name} error"] = ((target - output) ** 2).sum(0)
        counts[f"{name} sum"] = target.sum(0)
        counts[f"{name} squares"] = (target**2).sum(0)
        counts[f"{name} rows"] = len(target)
    return counts


def _explain_variance(sums: Mapping[str, Any]) -> float:
    """Returns the mean of R2 over all numbers of all targets that vary."""
    torch = import_torch()
    shares = []
    for name in (key.removesuffix(" error") for key in sums if key.endswith(" error")):
        spread = sums[f"{name} squares"] - sums[f"{name} sum"] ** 2 / sums[f"{name} rows"]
        varies = spread > 1e-9 * sums[f"{name} squares"].clamp(min=1e-30)
        shares.append((1 - sums[f"{name} error"] / spread)[varies].reshape(-1))
    if not sum(len(share) for share in shares):
        raise BadInputError("no target varies over the samples: nothing can be learnt from them")
    return float(torch.cat(shares).mean())


def _wrap(spec: str, function: Callable[..., Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
    torch = import_torch()

    def loss(outputs: Any, batch: Mapping[str, Any]) -> Any:
        try:
            value = function(outputs, dict(batch))
        except Exception as error:
            raise BadInputError(
                f"the loss {spec} failed: {type(error).__name__}: {error}",
                hint="it is called with what the module returns, and a dict of tensors: inputs, labels, target_...",
                detail=shorten_traceback(error),
            ) from error
        if not isinstance(value, torch.Tensor) or value.dim() or not value.is_floating_point():
            found = f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise BadInputError(
                f"the loss {spec} returned {found}, not one floating-point number as a tensor",
                hint="return the mean over the batch, such as ((outputs - batch['target_y']) ** 2).mean()",
            )
        return value

    return loss
