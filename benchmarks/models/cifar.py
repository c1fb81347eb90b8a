"""ResNet-8 of MLPerf Tiny with weights trained on CIFAR-10, and the students of `compression.py`.

ResNet-20 lies in `examples/mixed_precision`, as do the images' form and the training.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from modelwright.examples.mixed_precision.model import IMAGE_SHAPE, CifarResNet, load

RESNET8_WEIGHTS = Path(__file__).with_name("resnet8.safetensors")
"""Written by `train_cifar.py`."""


def create_resnet8() -> tuple[nn.Module, tuple[Tensor]]:
    """A source factory: 78 thousand parameters."""
    return load(CifarResNet(1), RESNET8_WEIGHTS)


def create_student() -> tuple[nn.Module, tuple[Tensor]]:
    """A source factory: ResNet-8 with half of the channels and random weights, 20 thousand parameters."""
    return CifarResNet(1, widths=(8, 16, 32)), (torch.zeros((2, *IMAGE_SHAPE)),)
