"""Images for networks whose weights mean nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def make_images(count: int, side: int = 224, seed: int = 0) -> npt.NDArray[np.float32]:
    """Returns smooth random images, [count, 3, side, side]: noise at several scales, as in photographs."""
    rng = np.random.default_rng(seed)
    image = np.zeros((count, 3, side, side), np.float32)
    for step in (56, 16, 4, 1):
        size = -(-side // step)
        coarse = rng.standard_normal((count, 3, size, size)).astype(np.float32)
        image += coarse.repeat(step, axis=2).repeat(step, axis=3)[..., :side, :side] / 2
    return image
