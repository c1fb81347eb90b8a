"""The nuclear norm of what layers make, after Liu et al. 2021 (arXiv 2106.14156): how rich it is.

The sum of the singular values of a feature map says how much of it is not the same again; a layer whose map is rich
loses more by the same error. What is taken of an attention is its map, of any other layer what it makes. With the
error of the layer it gives the paper's metric, its equation 18:

    Omega = sum over layers of (sum of the singular values of Y) * ||Y_quant - Y||_2^2

There, all products of an attention share their bits, as do both layers of a perceptron, and the choice with the least
Omega at a size of the model is taken; here each layer has its own, and an integer program minimizes Omega at an energy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelwright.harness.mixing.attention import find_attention
from modelwright.harness.mixing.network import Network
from modelwright.harness.mixing.running import map_samples, open_runner
from modelwright.targets.contract import Feeds
from modelwright.targets.graphs.run import extra_outputs

NUCLEAR_SAMPLES = 8
"""That say how rich what a layer makes is."""
_LARGEST = 512
"""Rows and columns that are looked at, evenly apart: the time of singular values grows with the cube."""
_CHANNELS_FIRST = frozenset({"Conv", "ConvTranspose"})


def measure_nuclear_norms(network: Network, feeds: Sequence[Feeds], scratch: Path) -> dict[str, float]:
    """Returns layer's output -> mean over samples of the nuclear norm of what it makes.

    Args:
        network: The float network.
        feeds: A few samples.
        scratch: For the intermediate file of a large model.
    """
    maps = {each.scores.output: each.map for each in find_attention(network)}
    operators = {layer.output: layer.operator for layer in network.layers}
    tensors = {name: maps.get(name, name) for name in operators}
    wanted = list(dict.fromkeys(tensors.values()))
    with extra_outputs(network.model, wanted):
        run = open_runner(network.model, wanted, scratch)
    sums = dict.fromkeys(tensors, 0.0)
    for values in map_samples(run, feeds):
        found = dict(zip(wanted, values, strict=True))
        for name, tensor in tensors.items():
            sums[name] += find_nuclear_norm(found[tensor], channels_first=operators[name] in _CHANNELS_FIRST)
    return {name: total / len(feeds) for name, total in sums.items()}


def find_nuclear_norm(values: npt.NDArray[np.float32], *, channels_first: bool = False) -> float:
    """Returns the sum of the singular values of a tensor, as matrices of places and features; of all matrices in it.

    Args:
        values: One sample's: [1, channels, places...], or [..., places, features].
        channels_first: Whether its second axis is that of the features.
    """
    if values.ndim < 2 or not np.isfinite(values).all():
        return float(np.sqrt(np.square(np.nan_to_num(values), dtype=np.float64).sum()))
    matrices = values.reshape((1, values.shape[1], -1) if channels_first else (-1, *values.shape[-2:]))
    rows, columns = (max(1, -(-size // _LARGEST)) for size in matrices.shape[1:])
    return float(np.linalg.svd(matrices[:, ::rows, ::columns], compute_uv=False).sum(dtype=np.float64))
