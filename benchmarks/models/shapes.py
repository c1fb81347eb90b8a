"""Well-known shapes with seeded random weights, for timing: MobileNetV2, EfficientNet-B0, ViT-Tiny, YOLOv8n."""

from __future__ import annotations

from collections.abc import Callable

import torch
from models.images import make_images
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 1000
BINS, STRIDES = 16, (8, 16, 32)
"""Of YOLOv8's boxes: bins of a side, and pixels between the places of each map."""
MEASURED_IMAGES, MEASURED_SEED = 16, 2
"""Images whose statistics a batch norm holds: of another seed than those that calibrate and judge."""
RARE_LOGIT = -5.0
"""Mean of a class's logits, which vary by 1: a handful of an image's 168,000 scores pass the threshold of 0.25."""


def convolve(width_in: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Returns a convolution that keeps the size at stride 1, and its batch norm."""
    return nn.Sequential(
        nn.Conv2d(width_in, width, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(width)
    )


class Squeeze(nn.Module):  # type: ignore[misc]
    """Weighs channels by what the whole image holds (Hu et al. 2018)."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width, h, w] -> the same shape."""
        weights = torch.sigmoid(self.up(functional.silu(self.down(x.mean((2, 3), keepdim=True)))))
        return x * weights


class InvertedResidual(nn.Module):  # type: ignore[misc]
    """1x1 up, depthwise, squeeze where asked for, 1x1 down (Sandler et al. 2018, Tan and Le 2019)."""

    def __init__(
        self,
        width_in: int,
        width: int,
        *,
        expansion: int,
        kernel: int,
        stride: int,
        activation: type[nn.Module],
        squeezes: bool,
    ) -> None:
        super().__init__()
        hidden = width_in * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [convolve(width_in, hidden, 1), activation()]
        layers += [convolve(hidden, hidden, kernel, stride, hidden), activation()]
        if squeezes:
            layers.append(Squeeze(hidden, width_in // 4))
        layers.append(convolve(hidden, width, 1))
        self.body = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width_in, h, w] -> [batch, width, h / stride, w / stride]."""
        y: Tensor = self.body(x)
        return x + y if self.has_shortcut else y


class Mobile(nn.Module):  # type: ignore[misc]
    """[batch, 3, 224, 224] -> logits [batch, 1000].

    Args:
        stages: Expansion, channels, blocks, stride of the first, kernel.
        stem: Channels of the first convolution.
        top: Of the last.
        activation: Of all layers.
        squeezes: Whether blocks have `Squeeze`.
    """

    def __init__(
        self,
        stages: tuple[tuple[int, int, int, int, int], ...],
        *,
        stem: int,
        top: int,
        activation: type[nn.Module],
        squeezes: bool,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolve(3, stem, 3, 2), activation()]
        width_in = stem
        for expansion, width, blocks, stride, kernel in stages:
            for index in range(blocks):
                layers.append(
                    InvertedResidual(
                        width_in, width, expansion=expansion, kernel=kernel, stride=stride if index == 0 else 1,
                        activation=activation, squeezes=squeezes,
                    )
                )  # fmt: skip
                width_in = width
        self.features = nn.Sequential(*layers, convolve(width_in, top, 1), activation())
        self.head = nn.Linear(top, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Scores images."""
        logits: Tensor = self.head(self.features(image).mean((2, 3)))
        return logits


def create_mobilenet_v2() -> nn.Module:
    """3.5 million parameters."""
    stages = (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
        (6, 320, 1, 1, 3),
    )  # fmt: skip
    return _settle(lambda: Mobile(stages, stem=32, top=1280, activation=nn.ReLU6, squeezes=False))


def create_efficientnet_b0() -> nn.Module:
    """5.3 million parameters."""
    stages = (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )  # fmt: skip
    return _settle(lambda: Mobile(stages, stem=32, top=1280, activation=nn.SiLU, squeezes=True))


class Encoder(nn.Module):  # type: ignore[misc]
    """Attention and a feed-forward part, each behind its norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] -> the same shape."""
        _, tokens, width = x.shape
        parts = self.mixed(self.norm(x)).reshape(-1, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (query @ key.transpose(2, 3) * (width // self.heads) ** -0.5).softmax(-1)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(-1, tokens, width))
        y: Tensor = x + self.down(functional.gelu(self.up(self.second_norm(x))))
        return y


class VisionTransformer(nn.Module):  # type: ignore[misc]
    """[batch, 3, 224, 224] in patches of 16 -> logits [batch, 1000] (Touvron et al. 2021: DeiT-Ti)."""

    def __init__(self, width: int = 192, heads: int = 3, layers: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.places = nn.Parameter(torch.randn(1, 196, width) * 0.02)
        self.layers = nn.Sequential(*(Encoder(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Scores images by the mean of their tokens."""
        x = self.patches(image).flatten(2).transpose(1, 2) + self.places
        logits: Tensor = self.head(self.norm(self.layers(x)).mean(1))
        return logits


def create_vit_tiny() -> nn.Module:
    """5.7 million parameters."""
    return _settle(VisionTransformer)


class Split(nn.Module):  # type: ignore[misc]
    """Residual blocks on a half of the channels, all kept and joined: the C2f block of YOLOv8."""

    def __init__(self, width_in: int, width: int, blocks: int, *, adds: bool = True) -> None:
        super().__init__()
        half = width // 2
        self.adds = adds
        self.first = nn.Sequential(convolve(width_in, width, 1), nn.SiLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(convolve(half, half, 3), nn.SiLU(), convolve(half, half, 3), nn.SiLU()) for _ in range(blocks)
        )
        self.last = nn.Sequential(convolve((2 + blocks) * half, width, 1), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width_in, h, w] -> [batch, width, h, w]."""
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]) if self.adds else block(parts[-1]))
        y: Tensor = self.last(torch.cat(parts, 1))
        return y


class Detector(nn.Module):  # type: ignore[misc]
    """YOLOv8n's shape: [batch, 3, 320, 320] -> boxes and 80 scores of 2100 places, [batch, 84, 2100]."""

    def __init__(self, classes: int = 80, side: int = 320) -> None:
        super().__init__()

        def down(width_in: int, width: int) -> nn.Sequential:
            return nn.Sequential(convolve(width_in, width, 3, 2), nn.SiLU())

        self.stem = nn.Sequential(down(3, 16), down(16, 32), Split(32, 32, 1))
        self.small = nn.Sequential(down(32, 64), Split(64, 64, 2))
        self.middle = nn.Sequential(down(64, 128), Split(128, 128, 2))
        self.large = nn.Sequential(down(128, 256), Split(256, 256, 1))
        self.up_middle, self.up_small = Split(384, 128, 1, adds=False), Split(192, 64, 1, adds=False)
        self.down_middle, self.down_large = down(64, 64), down(128, 128)
        self.join_middle, self.join_large = Split(192, 128, 1, adds=False), Split(384, 256, 1, adds=False)
        self.boxes = nn.ModuleList(self._head(width, 64, 4 * BINS) for width in (64, 128, 256))
        self.scores = nn.ModuleList(self._head(width, 80, classes) for width in (64, 128, 256))
        places, strides = [], []
        for stride in STRIDES:
            steps = torch.arange(side // stride) + 0.5
            places.append(torch.stack(torch.meshgrid(steps, steps, indexing="xy")).flatten(1))
            strides.append(torch.full((1, places[-1].shape[1]), float(stride)))
        self.register_buffer("places", torch.cat(places, 1))
        self.register_buffer("strides", torch.cat(strides, 1))
        self.register_buffer("bins", torch.arange(float(BINS)))

    @staticmethod
    def _head(width_in: int, width: int, outputs: int) -> nn.Sequential:
        first, second = convolve(width_in, width, 3), convolve(width, width, 3)
        return nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), nn.Conv2d(width, outputs, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Centre, width and height in pixels, then scores in 0 to 1."""
        small = self.small(self.stem(image))
        middle = self.middle(small)
        large = self.large(middle)
        middle = self.up_middle(torch.cat([functional.interpolate(large, scale_factor=2.0), middle], 1))
        small = self.up_small(torch.cat([functional.interpolate(middle, scale_factor=2.0), small], 1))
        middle = self.join_middle(torch.cat([self.down_middle(small), middle], 1))
        large = self.join_large(torch.cat([self.down_large(middle), large], 1))
        maps = (small, middle, large)
        sides = torch.cat([head(x).flatten(2) for head, x in zip(self.boxes, maps, strict=True)], 2)
        logits = torch.cat([head(x).flatten(2) for head, x in zip(self.scores, maps, strict=True)], 2)
        # Each side is a mean over bins of how many strides it is away from its place (Li et al. 2020).
        shares = sides.unflatten(1, (4, BINS)).softmax(2)
        before, after = (shares * self.bins[:, None]).sum(2).chunk(2, 1)
        boxes = torch.cat([self.places + (after - before) / 2, after + before], 1) * self.strides
        return torch.cat([boxes, logits.sigmoid()], 1)


def create_yolo() -> nn.Module:
    """3.0 million parameters, boxes and scores in one tensor, and a few detections an image, as of a trained one.

    Batch norms hold the statistics of images, so that boxes and scores vary with the image: in a detector whose outputs
    are the same for all of them, rounding is as large as what varies, and every way of quantizing is refused. What
    activations get is mostly positive: the noise of rounding would grow from layer to layer of a random network
    otherwise, and layers in float be measured instead of INT8.
    """
    torch.manual_seed(0)
    model = Detector()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.ones_(module.bias)
    hooks = [head[-1].register_forward_hook(_make_rare) for head in model.scores]
    model.train()
    with torch.no_grad():
        model(torch.from_numpy(make_images(MEASURED_IMAGES, 320, seed=MEASURED_SEED)))
    for hook in hooks:
        hook.remove()
    return model.eval()


def _make_rare(layer: nn.Conv2d, _inputs: object, logits: Tensor) -> None:
    """Changes the layer that made logits, [batch, classes, h, w]: each class varies by 1, and is hardly ever likely."""
    spread, mean = torch.std_mean(logits, (0, 2, 3))
    layer.bias.data = RARE_LOGIT + (layer.bias.data - mean) / spread
    layer.weight.data /= spread[:, None, None, None]


def _settle(create: Callable[[], nn.Module]) -> nn.Module:
    """Returns a network whose batch norms have seen a little noise, and hold a quarter of its variance.

    What it answers hardly depends on the image then, so that any INT8 follows it: with sane activations random weights
    give answers that none follows without layers in float, whose time would be measured instead.
    """
    torch.manual_seed(0)
    model = create().train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 224, 224))
    model.eval()
    return model
