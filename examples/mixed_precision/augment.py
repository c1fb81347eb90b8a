"""Images shifted and mirrored at random: ``augment.py:shift_and_mirror`` is what ``compress --augment`` takes.

Nothing here imports the rest of the package.
"""

import torch
from torch import Tensor
from torch.nn import functional

MAX_SHIFT = 4
"""Pixels."""


def shift_and_mirror(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Change the images of a batch that trains.

    Args:
        batch: ``image`` ``[batch, 3, h, w]``, and what else there is.

    Returns:
        The same with other images.
    """
    return {**batch, "image": augment(batch["image"])}


def augment(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Shift each image by up to `MAX_SHIFT` pixels and mirror half of them.

    Args:
        images: float32 ``[batch, channels, h, w]``, standardized: what moves in from outside is the mean.
        generator: Of the random numbers; without one torch's own.
    """
    count, channels, height, width = images.shape
    padded = functional.pad(images, (MAX_SHIFT,) * 4)
    top, left = torch.randint(0, 2 * MAX_SHIFT + 1, (2, count, 1, 1, 1), generator=generator)
    columns = torch.arange(width).expand(count, 1, 1, width)
    mirrored = torch.rand((count, 1, 1, 1), generator=generator) < 0.5
    columns = torch.where(mirrored, width - 1 - columns, columns) + left
    rows = torch.arange(height).view(1, 1, height, 1) + top
    sample, channel = torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1)
    return padded[sample, channel, rows, columns]
