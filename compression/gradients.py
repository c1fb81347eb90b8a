"""The loss of a batch as it is trained with, and whether any weight decides it. For child processes only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.compression.network import Network
from modelwright.compression.step import Step
from modelwright.core.errors import BadInputError, ModelwrightError
from modelwright.core.samples.python_source import shorten_traceback

_HINT = (
    "what cuts a gradient off is .detach(), .numpy(), torch.no_grad() or argmax, in forward or in a loss of your own: "
    "leave them away there"
)


def compute_loss(network: Network, step: Step, batch: Mapping[str, Any]) -> Any:
    """Returns the loss of a batch, in the mode of training.

    Raises:
        BadInputError: The module fails in that mode, or no gradient of the loss reaches it.
    """
    try:
        loss = step.loss(network, batch)
    except ModelwrightError:
        raise
    except Exception as error:  # what a module raises while it is trained is its own affair
        rows = len(next(iter(batch.values())))
        raise BadInputError(
            f"{network.name} fails while it is trained, on {rows} sample{'' if rows == 1 else 's'}: "
            f"{type(error).__name__}: {error}",
            hint="give --batch 2 or more: statistics of a batch need two samples"
            if rows == 1
            else "forward has to run in the mode of training as well: try module.train() and such a batch",
            detail=shorten_traceback(error),
        ) from error
    if not loss.requires_grad:
        raise BadInputError(f"no weight of {network.name} decides the loss", hint=_HINT)
    return loss


def require_gradients(network: Network, optimizer: Any) -> None:
    """Refuses a loss whose gradient reached no weight."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if all(weight.grad is None for weight in weights):
        raise BadInputError(f"no weight of {network.name} decides the loss", hint=_HINT)
