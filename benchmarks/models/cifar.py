"""Residual networks for 32x32 images with weights trained on CIFAR-10: ResNet-8 of MLPerf Tiny, and ResNet-20.

Nothing here imports the rest, so that the file also works as `cifar.py:create_resnet8`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

CLASS_COUNT = 10
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
"""Of CIFAR-10's pixels in 0 to 1, by channel: red, green, blue."""


class Block(nn.Module):  # type: ignore[misc]
    """Two 3x3 convolutions with a shortcut (He et al. 2015), a 1x1 convolution where the shape changes."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        is_same = stride == 1 and width_in == width
        self.shortcut = nn.Identity() if is_same else nn.Conv2d(width_in, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width_in, h, w] -> [batch, width, h / stride, w / stride]."""
        return functional.relu(self.body(x) + self.shortcut(x))


class CifarResNet(nn.Module):  # type: ignore[misc]
    """[batch, 3, 32, 32], standardized by `MEAN` and `STD` -> logits [batch, 10].

    Args:
        blocks: A stage; there are three, of 16, 32 and 64 channels. 1 is ResNet-8, 3 is ResNet-20.
    """

    output_names = ("logits",)

    def __init__(self, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        width_in = 16
        for width in (16, 32, 64):
            for index in range(blocks):
                layers.append(Block(width_in, width, 2 if index == 0 and width > 16 else 1))
                width_in = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width_in, CLASS_COUNT)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, 32, 32] -> [batch, 10]."""
        logits: Tensor = self.head(self.features(image).mean((2, 3)))
        return logits


BLOCKS = {"resnet8": 1, "resnet20": 3}


def standardize(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """uint8 [count, 32, 32, 3] -> float32 [count, 3, 32, 32] as the networks read it."""
    values = (images.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def weights_path(name: str) -> Path:
    """Returns where `train_cifar.py` writes the weights of one of `BLOCKS`."""
    return Path(__file__).with_name(f"{name}.safetensors")


def create_resnet8() -> tuple[nn.Module, tuple[Tensor]]:
    """A source factory: 78 thousand parameters."""
    return _create("resnet8")


def create_resnet20() -> tuple[nn.Module, tuple[Tensor]]:
    """A source factory: 272 thousand parameters."""
    return _create("resnet20")


def _create(name: str) -> tuple[nn.Module, tuple[Tensor]]:
    model = CifarResNet(BLOCKS[name])
    model.load_state_dict(load_file(weights_path(name)))
    return model.eval(), (torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0)),)
