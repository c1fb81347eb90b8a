"""Networks of well-known shapes with seeded weights, for timing. Their answers mean nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):  # type: ignore[misc]
    """1x1, 3x3, 1x1 convolutions with a shortcut (He et al. 2015, with the stride in the 3x3)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        width_out = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width_out, 1, bias=False), nn.BatchNorm2d(width_out),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width_in, h, w] -> [batch, 4 * width, h / stride, w / stride]."""
        y: Tensor = self.body(x) + self.shortcut(x)
        return torch.relu(y)


class ResNet50(nn.Module):  # type: ignore[misc]
    """25.6 M parameters; [batch, 3, 224, 224] -> [batch, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        ]  # fmt: skip
        width_in = 64
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for index in range(blocks):
                layers.append(Bottleneck(width_in, width, stride if index == 0 else 1))
                width_in = 4 * width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width_in, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, 224, 224] -> logits [batch, 1000]."""
        logits: Tensor = self.head(self.features(image).mean((2, 3)))
        return logits


def create_resnet50() -> tuple[nn.Module, tuple[Tensor]]:
    """A source factory: ResNet-50's shape, batch norm statistics taken from noise so that activations are sane."""
    torch.manual_seed(0)
    model = ResNet50()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.body[-1].weight, 0.5)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 224, 224))
    return model.eval(), (torch.randn(2, 3, 224, 224),)
