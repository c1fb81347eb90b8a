"""ResNet-20 and a small vision transformer for 32x32 images, with weights trained on CIFAR-10.

Nothing here imports the rest of the package, so that the file also works as ``model.py:resnet20`` and ``model.py:vit``.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

FOLDER = Path(__file__).parent
CLASS_COUNT = 10
IMAGE_SHAPE = (3, 32, 32)
"""Channels, height and width of an input, in pixels."""

_PATCH = 4
_WIDTH, _DEPTH, _HEADS, _EXPANSION = 128, 6, 4, 4
"""Of the transformer: DeiT-Tiny (Touvron et al. 2021) has 192, 12, 3 and 4 for images of 224 pixels."""


class ResidualBlock(nn.Module):  # type: ignore[misc]  # mypy does not follow torch
    """Two 3x3 convolutions with a shortcut (He et al. 2015), a 1x1 convolution where the shape changes."""

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
        is_same = stride == 1 and width_in == width
        self.shortcut: nn.Module = nn.Identity() if is_same else nn.Conv2d(width_in, width, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Transform feature maps: ``[batch, width_in, h, w]`` -> ``[batch, width, h / stride, w / stride]``."""
        return functional.relu(self.body(features) + self.shortcut(features))


class CifarResNet(nn.Module):  # type: ignore[misc]
    """Scores ten classes in a 32x32 image: a stem, three stages of residual blocks, a mean over the map, a head."""

    output_names = ("logits",)

    def __init__(self, blocks: int, widths: Sequence[int] = (16, 32, 64)) -> None:
        """Build the network with random weights.

        Args:
            blocks: A stage: 3 make ResNet-20, 1 makes ResNet-8 of MLPerf Tiny.
            widths: Channels of the stages; from the second on a stage halves height and width.
        """
        super().__init__()
        width_in = widths[0]
        layers: list[nn.Module] = [nn.Conv2d(3, width_in, 3, 1, 1, bias=False), nn.BatchNorm2d(width_in), nn.ReLU()]
        for stage, width in enumerate(widths):
            for index in range(blocks):
                layers.append(ResidualBlock(width_in, width, 2 if index == 0 and stage else 1))
                width_in = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width_in, CLASS_COUNT)

    def forward(self, image: Tensor) -> Tensor:
        """Score a batch of images.

        Args:
            image: float32 ``[batch, 3, 32, 32]``, standardized as ``data.py`` does it.

        Returns:
            Logits, float32 ``[batch, 10]``.
        """
        logits: Tensor = self.head(self.features(image).mean((2, 3)))
        return logits


class Attention(nn.Module):  # type: ignore[misc]
    """Self-attention of several heads; queries, keys and values come from one layer."""

    def __init__(self, width: int, heads: int) -> None:
        """Build the layers.

        Args:
            width: Of a token.
            heads: That share the width evenly.
        """
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Let each token look at all: ``[batch, tokens, width]`` -> the same shape."""
        batch, count, width = tokens.shape
        parts = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5
        mixed: Tensor = self.project((scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, count, width))
        return mixed


class TransformerBlock(nn.Module):  # type: ignore[misc]
    """Attention and two linear layers with GELU, each after a layer norm and with a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        """Build the layers.

        Args:
            width: Of a token.
            heads: Of the attention.
        """
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, _EXPANSION * width), nn.GELU(), nn.Linear(_EXPANSION * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform tokens: ``[batch, tokens, width]`` -> the same shape."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        mixed: Tensor = tokens + self.mlp(self.mlp_norm(tokens))
        return mixed


class VisionTransformer(nn.Module):  # type: ignore[misc]
    """Scores classes by a class token among the tokens of square patches, as DeiT does (Touvron et al. 2021)."""

    output_names = ("logits",)

    def __init__(
        self,
        image_side: int = IMAGE_SHAPE[1],
        patch: int = _PATCH,
        width: int = _WIDTH,
        depth: int = _DEPTH,
        heads: int = _HEADS,
        classes: int = CLASS_COUNT,
    ) -> None:
        """Build the network with random weights; the class token and the places begin as zeros.

        Args:
            image_side: Height and width of an input, in pixels.
            patch: Height and width of a patch, in pixels.
            width: Of a token.
            depth: Blocks.
            heads: Of each attention.
            classes: Logits.
        """
        super().__init__()
        self.patches = nn.Conv2d(IMAGE_SHAPE[0], width, patch, patch)
        self.places = nn.Parameter(torch.zeros(1, (image_side // patch) ** 2, width))
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Score a batch of images.

        Args:
            image: float32 ``[batch, 3, side, side]``, standardized as ``data.py`` does it.

        Returns:
            Logits, float32 ``[batch, classes]``.
        """
        return self.classify(self.embed(image))

    def embed(self, image: Tensor) -> Tensor:
        """Turn images into tokens with their places: ``[batch, patches, width]``."""
        tokens: Tensor = self.patches(image).flatten(2).transpose(1, 2) + self.places
        return tokens

    def classify(self, tokens: Tensor) -> Tensor:
        """Score images by their tokens, or by some of them: ``[batch, tokens, width]`` -> ``[batch, classes]``."""
        class_token = self.class_token.expand(tokens.shape[0], -1, -1)
        logits: Tensor = self.head(self.norm(self.blocks(torch.cat((class_token, tokens), 1)))[:, 0])
        return logits


def resnet20() -> tuple[nn.Module, tuple[Tensor]]:
    """Load the trained ResNet-20, 272 thousand parameters; see `load`."""
    return load(CifarResNet(3), FOLDER / "resnet20.safetensors")


def vit() -> tuple[nn.Module, tuple[Tensor]]:
    """Load the trained transformer, 1.2 million parameters; see `load`."""
    return load(VisionTransformer(), FOLDER / "vit.safetensors")


def load(model: nn.Module, weights: Path) -> tuple[nn.Module, tuple[Tensor]]:
    """Give a network its trained weights.

    Args:
        model: Of the shape that the weights were trained in.
        weights: Safetensors file that `train.py` wrote.

    Returns:
        The model in evaluation mode, and its example inputs: ``image``, float32 ``[2, 3, 32, 32]``.
    """
    model.load_state_dict(load_file(weights))
    model.eval()
    # Two images, because torch.export fixes a batch of one as a constant.
    return model, (torch.randn((2, *IMAGE_SHAPE), generator=torch.Generator().manual_seed(0)),)
