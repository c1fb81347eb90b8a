"""The network of `models.make_cnn` as a PyTorch module, with the same weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Cnn(nn.Module):
    """conv 3x3 - relu - depthwise conv - relu - global average pool - linear; x [batch, 3, 12, 12] -> y [batch, 5]."""

    output_names = ("y",)

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.head = nn.Linear(16, 5)
        weights = (
            (self.conv1.weight, rng.standard_normal((16, 3, 3, 3)) * 0.3),
            (self.conv1.bias, rng.standard_normal(16) * 0.1),
            (self.depthwise.weight, rng.standard_normal((16, 1, 3, 3)) * 0.5),
            (self.head.weight, rng.standard_normal((16, 5)).T),
            (self.head.bias, rng.standard_normal(5)),
        )
        for parameter, values in weights:
            assert parameter is not None
            parameter.data = torch.from_numpy(np.ascontiguousarray(values.astype(np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        features = torch.relu(self.depthwise(torch.relu(self.conv1(x))))
        answer: Tensor = self.head(features.mean((2, 3)))
        return answer


def create() -> tuple[nn.Module, Tensor]:
    return Cnn(), torch.zeros(2, 3, 12, 12)
