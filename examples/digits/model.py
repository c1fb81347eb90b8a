"""The digit classifier: inverted residuals with depthwise and pointwise convolutions.

Nothing here imports the rest of the package, so that the file also works as ``model.py:create_model``.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS_PATH = Path(__file__).with_name("weights.safetensors")
IMAGE_SHAPE = (1, 32, 32)
"""Channels, height and width of an input, in pixels."""
CLASS_COUNT = 10

_STEM_CHANNELS = 24
_HEAD_CHANNELS = 256
_EXPANSION = 4
# (output channels, blocks, stride of the first block); the map shrinks 16 -> 16 -> 8 -> 4 pixels a side.
_STAGES = ((24, 1, 1), (40, 3, 2), (64, 3, 2), (112, 2, 1))


class ConvNorm(nn.Sequential):  # type: ignore[misc]  # mypy does not follow torch
    """A convolution without bias, batch norm and, unless ``linear``, ReLU6."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the output.
            kernel_size: Side of the square kernel, in pixels; the padding keeps the side at stride 1.
            stride: Step of the kernel, in pixels.
            groups: Convolution groups; ``in_channels`` makes it depthwise.
            linear: Leave the activation out, as in front of a residual sum.
        """
        layers: list[nn.Module] = [
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=kernel_size // 2,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
        ]
        if not linear:
            # Bounded at 6, so that no outlier can stretch the range that 8 bits have to cover.
            layers.append(nn.ReLU6())
        super().__init__(*layers)


class InvertedResidual(nn.Module):  # type: ignore[misc]
    """Pointwise expansion, depthwise 3x3 and linear pointwise projection (Sandler et al., 2018)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        """Build the block; it has a shortcut where input and output have one shape.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the output.
            stride: Step of the depthwise convolution, in pixels.
        """
        super().__init__()
        hidden = in_channels * _EXPANSION
        self.expand = ConvNorm(in_channels, hidden)
        self.depthwise = ConvNorm(hidden, hidden, kernel_size=3, stride=stride, groups=hidden)
        self.project = ConvNorm(hidden, out_channels, linear=True)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        """Transform feature maps.

        Args:
            features: float32 ``[batch, in_channels, height, width]``.

        Returns:
            float32 ``[batch, out_channels, height / stride, width / stride]``.
        """
        projected: Tensor = self.project(self.depthwise(self.expand(features)))
        return features + projected if self.has_shortcut else projected


class DigitClassifier(nn.Module):  # type: ignore[misc]
    """Scores the ten digits in a 32x32 grey image."""

    output_names = ("logits",)

    def __init__(self) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.stem = ConvNorm(IMAGE_SHAPE[0], _STEM_CHANNELS, kernel_size=3, stride=2)
        blocks: list[nn.Module] = []
        channels = _STEM_CHANNELS
        for out_channels, block_count, first_stride in _STAGES:
            for index in range(block_count):
                stride = first_stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, out_channels, stride=stride))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(channels, _HEAD_CHANNELS)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(_HEAD_CHANNELS, CLASS_COUNT)

    def forward(self, image: Tensor) -> Tensor:
        """Score a batch of images.

        Args:
            image: float32 ``[batch, 1, 32, 32]``, standardised as ``train.py`` does it.

        Returns:
            Logits, float32 ``[batch, 10]``, one per digit.
        """
        features: Tensor = self.head(self.blocks(self.stem(image)))
        logits: Tensor = self.classifier(self.pool(features).flatten(1))
        return logits


def create_model() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Load the trained classifier.

    Returns:
        The model in evaluation mode, and its example inputs: one ``image``, float32 ``[2, 1, 32, 32]``.
    """
    model = DigitClassifier()
    model.load_state_dict(load_file(WEIGHTS_PATH))
    model.eval()
    # Two images, because torch.export fixes a batch of one as a constant.
    image = torch.randn((2, *IMAGE_SHAPE), generator=torch.Generator().manual_seed(0))
    return model, (image,)
