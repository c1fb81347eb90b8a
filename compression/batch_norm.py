"""Statistics of batch norms, taken anew from training data. For child processes only.

They follow the weights with a lag of some ten steps: after channels were removed, or in a short training, inference
would compute with what belongs to a network that is gone.
"""

from __future__ import annotations

import numpy as np

from modelwright.compression.data import Data, Indices
from modelwright.compression.network import Network
from modelwright.core.samples.sample_set import SPLIT_SEED
from modelwright.exporters.torch.source import import_torch

_SAMPLES = 2048
_AT_ONCE = 256


def settle_batch_norms(network: Network, data: Data, chosen: Indices) -> None:
    """Sets mean and variance of every batch norm to what training data give with the weights as they are.

    The same weights always get the same figures. Norms that a module keeps frozen while it is trained stay as they are,
    and so do saved programs, whose norms are gone.

    Args:
        network: It is in the mode of inference afterwards.
        data: The training data.
        chosen: Numbers of the samples that train.
    """
    torch = import_torch()
    if network.is_program:
        return
    network.set_training(training=True)
    norms = [
        layer
        for layer in network.module.modules()
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - their common class
        and layer.training
        and layer.running_mean is not None
    ]
    network.set_training(training=False)
    if not norms or len(chosen) < 2:  # statistics of a batch need two samples
        return
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
        layer.train()
    rows = np.random.default_rng(SPLIT_SEED).permutation(chosen)[:_SAMPLES]
    with torch.no_grad():
        for batch in data.batches(rows, _AT_ONCE):
            network(batch)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    network.set_training(training=False)
