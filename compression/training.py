"""Training a network, epoch after epoch, with the best one kept. For child processes only."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace

from modelwright.compression.batch_norm import settle_batch_norms
from modelwright.compression.checkpoint import BEST, LAST, Checkpoint, Progress
from modelwright.compression.gradients import compute_loss, require_gradients
from modelwright.compression.network import Network, copy_state
from modelwright.compression.step import Step
from modelwright.core.errors import BadInputError
from modelwright.core.records.compressed import Epoch, Quality
from modelwright.exporters.torch.source import import_torch

_LAST_LR_SHARE = 0.01
"""Of the learning rate, at the end of its cosine."""
_SAY_EVERY_S = 2.0
_NETWORK, _EXTRA, _OPTIMIZER = "network.", "extra.", "optimizer."

Say = Callable[[str], None]


def train(
    network: Network, step: Step, checkpoint: Checkpoint, progress: Progress, seconds: float | None, say: Say, tell: Say
) -> Progress:
    """Trains a network that a method has prepared, and leaves it with the weights of its best epoch.

    Every epoch begins with a seed of its own, so that a run that goes on gives the numbers of one that was never
    interrupted.

    Args:
        network: The network.
        step: The method.
        checkpoint: Where whole epochs are kept.
        progress: How far it is.
        seconds: What all runs of this method may take together; None for as long as it takes.
        say: Takes what is going on at this moment.
        tell: Takes a line that stays.

    Raises:
        BadInputError: The loss is not finite.
    """
    task, settings = step.task, step.task.settings
    seed(settings.seed, len(progress.done), 0)
    if progress.stopped is not None and (seconds is None or progress.seconds < seconds):
        progress = replace(progress, is_trained=False, stopped=None)  # there is a larger budget now
    optimizer = _make_optimizer(network, step)
    if LAST in progress.files:
        _load(network, step, optimizer, checkpoint.load(LAST))
    else:
        settle_batch_norms(network, task.train, task.chosen)
        held = task.objective.measure(network, task.train, task.held)
        tell(f"{step.method.text}: before training, held-back {held.describe()}")
        progress = _keep(network, step, optimizer, checkpoint, progress, Epoch(number=0, loss=None, held=held))
    while len(progress.epochs) <= settings.epochs and not progress.is_trained:
        number = len(progress.epochs)
        began_s = time.monotonic()
        until_s = math.inf if seconds is None else began_s + seconds - progress.seconds
        seed(settings.seed, len(progress.done), number)
        say(f"{step.method.text}: epoch {number} of {settings.epochs}")
        step.begin_epoch(network, number)
        loss, is_whole = _train_epoch(network, step, optimizer, number, until_s, say)
        settle_batch_norms(network, task.train, task.chosen)
        held = task.objective.measure(network, task.train, task.held)
        progress = replace(progress, seconds=progress.seconds + time.monotonic() - began_s)
        if not is_whole:
            progress = replace(progress, is_trained=True, stopped=f"the budget was spent in epoch {number}")
        progress = _keep(network, step, optimizer, checkpoint, progress, Epoch(number=number, loss=loss, held=held))
        tell(f"{step.method.text}: epoch {number} of {settings.epochs}: loss {loss:.4g}, held-back {held.describe()}")
    if BEST in progress.files:
        _load_state(network.module, checkpoint.load(BEST))
    return progress


def seed(number: int, stage: int, epoch: int) -> None:
    """Seeds all chance there is, for an epoch of a method."""
    mixed = int(np.random.SeedSequence([number, stage, epoch]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)  # modules and losses of the user's may draw from it
    import_torch().manual_seed(mixed)


def list_parameters(network: Network, step: Step) -> Iterator[Any]:
    """Yields what is trained, in an order that stays."""
    for module in (network.module, step.extra):
        if module is not None:
            yield from (parameter for _, parameter in module.named_parameters() if parameter.requires_grad)


def _make_optimizer(network: Network, step: Step) -> Any:
    torch = import_torch()
    parameters = list(list_parameters(network, step))
    if not parameters:
        raise BadInputError(
            f"{network.name} has no weights to train", hint="give a network with weights: it gives its answers without"
        )
    return torch.optim.Adam(parameters, lr=step.task.settings.lr or step.lr)


def _train_epoch(
    network: Network, step: Step, optimizer: Any, number: int, until_s: float, say: Say
) -> tuple[float, bool]:
    """Returns the mean loss, and whether the epoch came to its end before the time was over."""
    task, settings = step.task, step.task.settings
    order = task.chosen[np.random.default_rng([settings.seed, number]).permutation(len(task.chosen))]
    per_epoch = math.ceil(len(order) / settings.batch)
    total, rows, said_s = 0.0, 0, time.monotonic()
    network.set_training(training=True)
    for position, batch in enumerate(task.train.batches(order, settings.batch)):
        share = (number - 1 + position / per_epoch) / settings.epochs
        scale = _LAST_LR_SHARE + (1 - _LAST_LR_SHARE) * (1 + math.cos(math.pi * share)) / 2
        for group in optimizer.param_groups:
            group["lr"] = (settings.lr or step.lr) * scale
        if task.augment is not None:
            batch = task.augment(batch)
        optimizer.zero_grad(set_to_none=True)
        loss = compute_loss(network, step, batch)
        value = float(loss.detach())
        _require_finite(value, number, settings.lr or step.lr, position)
        loss.backward()
        if not position:
            require_gradients(network, optimizer)
        optimizer.step()
        network.apply_masks()
        size = len(next(iter(batch.values())))
        total, rows = total + value * size, rows + size
        if time.monotonic() >= until_s:
            return total / rows, position + 1 == per_epoch
        if time.monotonic() - said_s > _SAY_EVERY_S:
            said_s = time.monotonic()
            done = f"epoch {number} of {settings.epochs}, {rows / len(order):.0%}"
            say(f"{step.method.text}: {done}, loss {total / rows:.4g}")
    return total / rows, True


def _require_finite(value: float, epoch: int, lr: float, position: int) -> None:
    if not math.isfinite(value):
        raise BadInputError(
            f"the loss is {value} in epoch {epoch}, batch {position}: training has run away",
            hint=f"give a lower --lr than {lr:g}, or look for outliers in the training data",
        )


def _keep(
    network: Network, step: Step, optimizer: Any, checkpoint: Checkpoint, progress: Progress, epoch: Epoch
) -> Progress:
    """Keeps a whole epoch, and its weights as the best ones where they are."""
    epochs = (*progress.epochs, epoch)
    tensors = {LAST: _dump(network, step, optimizer)}
    if step.may_ship(epoch.number) and is_as_good(
        epoch.held, [each.held for each in progress.epochs if step.may_ship(each.number)]
    ):
        progress = replace(progress, chosen=epoch.number)
        tensors[BEST] = copy_state(network.module)
    if epoch.number >= step.task.settings.epochs:
        progress = replace(progress, is_trained=True)
    return checkpoint.save(replace(progress, epochs=epochs), tensors)


def is_as_good(new: Quality, earlier: Sequence[Quality]) -> bool:
    """Whether an epoch is taken in the place of earlier ones: it is not worse than the best of them, beyond chance.

    The learning rate falls to the end, so that later epochs are the better ones; on few held-back samples an early one
    looks best by luck. Chance is a standard error of a share of right answers; other metrics are compared as they are.
    """
    if not earlier:
        return True
    best = max(earlier, key=lambda quality: quality.score)
    chance = math.sqrt(best.value * (1 - best.value) / best.samples) if best.metric == "accuracy" else 0.0
    return new.score >= best.score - chance


def _dump(network: Network, step: Step, optimizer: Any) -> dict[str, Any]:
    """Returns all that an epoch begins with, as tensors by name."""
    torch = import_torch()
    state = {_NETWORK + name: value for name, value in copy_state(network.module).items()}
    if step.extra is not None:
        state |= {_EXTRA + name: value for name, value in copy_state(step.extra).items()}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                state[f"{_OPTIMIZER}{index}.{name}"] = value.detach().clone().contiguous()
    return state


def _load(network: Network, step: Step, optimizer: Any, state: dict[str, Any]) -> None:
    """Undoes `_dump`."""
    _load_state(network.module, _cut(state, _NETWORK))
    if step.extra is not None:
        _load_state(step.extra, _cut(state, _EXTRA))
    values: dict[int, dict[str, Any]] = {}
    for name, value in _cut(state, _OPTIMIZER).items():
        index, _, field = name.partition(".")
        values.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": values})


def _load_state(module: Any, state: dict[str, Any]) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise BadInputError(
            "the weights in the checkpoint do not fit the network: its code has changed since",
            hint="add --overwrite to begin the compression anew",
            detail=str(error),
        ) from error


def _cut(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
