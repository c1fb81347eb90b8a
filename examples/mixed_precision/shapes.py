"""Larger networks of known shapes, with random weights: torchvision's ResNet-18 for CIFAR-100, timm's DeiT-Tiny.

Neither package is needed. With them, and trained weights, the same commands take ``torchvision.models.resnet18`` and
``timm.create_model("deit_tiny_patch16_224")`` from a file of your own.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelwright.examples.mixed_precision.model import VisionTransformer

_SEED = 0


class BasicBlock(nn.Module):  # type: ignore[misc]  # mypy does not follow torch
    """Two 3x3 convolutions with a shortcut (He et al. 2015), as torchvision builds it."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        """Build the layers.

        Args:
            width_in: Channels of the input.
            width: Channels of the output.
            stride: Step of the first convolution, in pixels.
        """
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        """Transform feature maps: ``[batch, width_in, h, w]`` -> ``[batch, width, h / stride, w / stride]``."""
        return functional.relu(self.body(features) + self.shortcut(features))


class ResNet18(nn.Module):  # type: ignore[misc]
    """Scores classes in images, by eight blocks after a stem that divides height and width by four."""

    output_names = ("logits",)

    def __init__(self, classes: int) -> None:
        """Build the network with random weights.

        Args:
            classes: Logits.
        """
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        blocks: list[nn.Module] = []
        width_in = 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [BasicBlock(width_in, width, stride), BasicBlock(width, width, 1)]
            width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width_in, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Score a batch of images.

        Args:
            image: float32 ``[batch, 3, h, w]``, standardized.

        Returns:
            Logits, float32 ``[batch, classes]``.
        """
        logits: Tensor = self.head(self.blocks(self.stem(image)).mean((2, 3)))
        return logits


def resnet18() -> tuple[nn.Module, tuple[Tensor]]:
    """Build torchvision's ResNet-18 at CIFAR-100's shape: 11,227,812 parameters, ``image`` ``[2, 3, 32, 32]``."""
    return _build(lambda: ResNet18(100), 32)


def deit_tiny() -> tuple[nn.Module, tuple[Tensor]]:
    """Build timm's DeiT-Tiny at ImageNet's shape: 5.7 million parameters, ``image`` ``[2, 3, 224, 224]``.

    192 fewer than timm's: its class token has a place to add to it, which is one vector here.
    """
    return _build(lambda: VisionTransformer(224, 16, 192, 12, 3, 1000), 224)


def _build(make: Callable[[], nn.Module], side: int) -> tuple[nn.Module, tuple[Tensor]]:
    """Return a network with seeded weights, and two images."""
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        model = make().eval()
        return model, (torch.randn((2, 3, side, side)),)
