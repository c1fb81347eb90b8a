"""`prune:magnitude:R`: the smallest weights of the whole network become 0, a few more every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.compression.network import Network
from modelwright.compression.step import Step
from modelwright.compression.wording import ZEROS_BRING_NOTHING
from modelwright.core.errors import BadInputError
from modelwright.exporters.torch.source import import_torch

_RAMP_SHARE = 0.5
"""Of the epochs, in which the share of zeros grows; the rest heals."""


class MagnitudePruning(Step):
    """Prunes by absolute value, with one threshold for all layers (global L1, unstructured).

    The share of zeros grows with the cube of the epochs that are left (Zhu and Gupta 2017, arXiv 1710.01878): much
    while weights are plenty, little at the end. Which weights are 0 is found anew at the start of every epoch and kept
    during it; what is 0 already is the smallest there is, and stays.
    """

    def prepare(self, network: Network) -> None:
        total = sum(weight.numel() for weight in network.list_weights().values())
        zeros = round(self.method.ratio * total)
        if not 0 < zeros < total:
            raise BadInputError(
                f"{self.method.text} of the {total} weights of {network.name} in convolutions and linear layers makes "
                f"{zeros} zeros",
                hint="give a ratio that takes some of them and leaves some" if total else "there is nothing to prune",
            )
        self.notes.append(ZEROS_BRING_NOTHING)

    def begin_epoch(self, network: Network, epoch: int) -> None:
        self._prune(network, self._share_at(epoch))

    def may_ship(self, epoch: int) -> bool:
        return self._share_at(epoch) == self.method.ratio

    def finish(self, network: Network) -> None:
        self._prune(network, self.method.ratio)
        network.keep_zeros()

    def describe(self) -> dict[str, str]:
        return {
            "schedule": f"cubic over {self._ramp_epochs} epochs",
            "importance": "absolute value, all layers at once",
        }

    def _prune(self, network: Network, share: float) -> None:
        network.masks = find_masks(network.list_weights(), share)
        network.apply_masks()

    @property
    def _ramp_epochs(self) -> int:
        return max(1, round(_RAMP_SHARE * self.task.settings.epochs))

    def _share_at(self, epoch: int) -> float:
        if epoch >= self._ramp_epochs:
            return self.method.ratio
        return self.method.ratio * (1 - (1 - epoch / self._ramp_epochs) ** 3)


def find_masks(weights: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Returns layer -> mask: of all weights together exactly that share becomes 0, the smallest first.

    Of equal weights those of earlier layers go first.
    """
    torch = import_torch()
    everything = torch.cat([weight.detach().abs().reshape(-1) for weight in weights.values()])
    kept = torch.ones_like(everything)
    kept[torch.sort(everything, stable=True).indices[: round(share * len(everything))]] = 0
    parts = kept.split([weight.numel() for weight in weights.values()])
    return {name: part.reshape(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)}
