"""`prune:2:4`: of every four weights along the input channels, the two smallest become 0."""

from __future__ import annotations

from typing import Any

from modelwright.compression.network import Network
from modelwright.compression.step import Step
from modelwright.compression.wording import TWO_FOUR_BRINGS
from modelwright.core.errors import BadInputError
from modelwright.exporters.torch.source import import_torch

_GROUP = 4
_KEPT = 2


class TwoFourPruning(Step):
    """Prunes to the pattern that sparse tensor cores take (Mishra et al. 2021, arXiv 2104.08378)."""

    def prepare(self, network: Network) -> None:
        weights = network.list_weights()
        fits = {name: weight for name, weight in weights.items() if not weight.shape[1] % _GROUP}
        if not fits:
            raise BadInputError(
                f"{network.name} has no layer whose input channels come in fours: 2:4 prunes nothing in it",
                hint="prune:magnitude:0.5 makes as many zeros, anywhere",
            )
        left = [name for name in weights if name not in fits]
        if left:
            shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
            self.notes.append(f"2:4 leaves {shown} as they are: their input channels do not come in fours")
        self.notes.append(TWO_FOUR_BRINGS)
        network.masks = {name: find_two_four_mask(weight) for name, weight in fits.items()}
        network.apply_masks()

    def finish(self, network: Network) -> None:
        network.keep_zeros()

    def describe(self) -> dict[str, str]:
        return {"pattern": "2 of 4 along input channels", "importance": "absolute value"}


def find_two_four_mask(weight: Any) -> Any:
    """Returns 1 for the two largest of every four weights along axis 1, else 0; the first two where all are equal."""
    torch = import_torch()
    rows = weight.detach().abs().movedim(1, -1)
    groups = rows.reshape(*rows.shape[:-1], -1, _GROUP)
    kept = torch.sort(groups, dim=-1, descending=True, stable=True).indices[..., :_KEPT]
    mask = torch.zeros_like(groups).scatter_(-1, kept, 1.0)
    return mask.reshape(rows.shape).movedim(-1, 1).contiguous()
