"""Larger networks of known shapes, with random weights: torchvision's ResNet-18 for CIFAR-100, timm's DeiT-Tiny.

Neither package is needed. With them, and trained weights, the same commands take ``torchvision.models.resnet18`` and
``timm.create_model("deit_tiny_patch16_224")`` from a file of your own.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from modelwright.examples.mixed_precision.model import ResidualBlock, VisionTransformer

_SEED = 0


class BasicBlock(ResidualBlock):
    """A residual block as torchvision builds it: a batch norm behind the shortcut's convolution, instead of a bias."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        """Build the layers; see `ResidualBlock`."""
        super().__init__(width_in, width, stride)
        if isinstance(self.shortcut, nn.Conv2d):
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))


class ResNet18(nn.Module):  # type: ignore[misc]  # mypy does not follow torch
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
