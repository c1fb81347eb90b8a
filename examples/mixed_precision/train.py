"""Train a network on CIFAR-10 and write its weights beside this file: some minutes to half an hour on one core.

    python -m modelwright.examples.mixed_precision.train vit --cifar FOLDER

FOLDER is that of ``data.py``. The test images are looked at once, at the end, and decide nothing: of ResNet-20 the last
weights are kept, of the transformer those of the epoch that is best on 1,000 training images held back.
"""

import argparse
import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from modelwright.examples.mixed_precision.augment import augment
from modelwright.examples.mixed_precision.data import read
from modelwright.examples.mixed_precision.model import FOLDER, Attention, CifarResNet, VisionTransformer, resnet20

_SEED = 20261127
_WARM_UP = 0.1
"""Share of the steps in which the learning rate rises; then it falls as a cosine."""
_EPOCHS = {"resnet20": 30, "vit": 20}

_RESNET_BATCH = 128
_RESNET_LEARNING_RATE = 0.15
_RESNET_WEIGHT_DECAY = 5e-4

_HELD_BACK = 1000
_VIT_BATCH = 64
_VIT_LEARNING_RATE = 1e-3
_VIT_WEIGHT_DECAY = 0.05
_LABEL_SMOOTHING = 0.1
_TEMPERATURE = 2.0
_THINNED = 2 / 3
"""Share of the epochs in which a random half of the patches is trained on, at half the work."""

Images = tuple[Tensor, Tensor]
"""Standardized images [count, 3, 32, 32] and labels [count]."""


def train_resnet(fitted: Images, blocks: int, epochs: int) -> CifarResNet:
    """Train a residual network by SGD with momentum.

    Args:
        fitted: Images that are trained on.
        blocks: See `CifarResNet`.
        epochs: Passes over the images.

    Returns:
        The network of the last epoch, in evaluation mode.
    """
    torch.manual_seed(_SEED)
    generator = torch.Generator().manual_seed(_SEED)
    model = CifarResNet(blocks)
    optimizer = torch.optim.SGD(
        model.parameters(), _RESNET_LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=_RESNET_WEIGHT_DECAY
    )
    batches = len(fitted[1]) // _RESNET_BATCH
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _RESNET_LEARNING_RATE, total_steps=epochs * batches, pct_start=_WARM_UP
    )
    for epoch in range(epochs):
        started, total = time.monotonic(), 0.0
        for images, labels in draw_batches(fitted, _RESNET_BATCH, generator):
            loss = functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / batches:.3f}, {time.monotonic() - started:.0f} s", flush=True)
    model.eval()
    return model


def train_vit(fitted: Images, held_back: Images, teacher: nn.Module, epochs: int) -> VisionTransformer:
    """Train the transformer on labels and, at equal weight, on what a convolutional network says of the same images.

    Few images teach a transformer little about neighbourhood, which a convolution knows (Touvron et al. 2021).

    Args:
        fitted: Images that are trained on.
        held_back: Images that choose the epoch.
        teacher: Trained network, in evaluation mode.
        epochs: Passes over the images.

    Returns:
        The network of the best epoch, in evaluation mode.
    """
    torch.manual_seed(_SEED)
    generator = torch.Generator().manual_seed(_SEED)
    model = VisionTransformer()
    initialize(model)
    optimizer = torch.optim.AdamW(model.parameters(), _VIT_LEARNING_RATE, weight_decay=_VIT_WEIGHT_DECAY)
    batches = len(fitted[1]) // _VIT_BATCH
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _VIT_LEARNING_RATE, total_steps=epochs * batches, pct_start=_WARM_UP
    )
    best, most = copy.deepcopy(model.state_dict()), 0.0
    for epoch in range(epochs):
        started, total = time.monotonic(), 0.0
        for images, labels in draw_batches(fitted, _VIT_BATCH, generator):
            # A third of the time on processors with BF16 instructions; the weights stay float32.
            with torch.autocast("cpu", torch.bfloat16):
                with torch.no_grad():
                    said = (teacher(images).float() / _TEMPERATURE).softmax(1)
                tokens = model.embed(images)
                if epoch < _THINNED * epochs:
                    tokens = keep_half(tokens, generator)
                logits = model.classify(tokens).float()
            loss = find_loss(logits, labels, said)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            total += loss.item()
        with torch.autocast("cpu", torch.bfloat16):
            found = find_accuracy(model, held_back)
        if found >= most:
            best, most = copy.deepcopy(model.state_dict()), found
        spent_s = time.monotonic() - started
        print(f"epoch {epoch + 1}: loss {total / batches:.3f}, held back {found:.3f}, {spent_s:.0f} s", flush=True)
    model.load_state_dict(best)
    model.eval()
    return model


def draw_batches(fitted: Images, size: int, generator: torch.Generator) -> Iterator[Images]:
    """Yield whole batches of an epoch, shuffled and augmented."""
    images, labels = fitted
    order = torch.randperm(len(labels), generator=generator)[: len(labels) // size * size]
    for rows in order.split(size):
        yield augment(images[rows], generator), labels[rows]


def initialize(model: VisionTransformer) -> None:
    """Let every token look at those like it and near it from the first step on (Trockman and Kolter 2023).

    Queries times keys begin near the identity, values times the projection near its negative, places as waves.
    """
    _, places, width = model.places.shape
    side = math.isqrt(places)
    waves = torch.arange(side)[:, None] / 10_000 ** (torch.arange(width // 4) / (width // 4))
    line = torch.cat((waves.sin(), waves.cos()), 1)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    with torch.no_grad():
        model.places.copy_(torch.cat((rows, columns), 2).reshape(1, places, width) / 2)
        for layer in model.modules():
            if isinstance(layer, Attention):
                _initialize_attention(layer, width)


def _initialize_attention(layer: Attention, width: int) -> None:
    part = width // layer.heads
    query, key, value = layer.qkv.weight.split(width)
    for head in range(layer.heads):
        rows = slice(head * part, (head + 1) * part)
        left, scale, right = torch.linalg.svd(0.7 * torch.randn(width, width) / part**0.5 + 0.7 * torch.eye(width))
        query[rows] = (left * scale.sqrt())[:, :part].T
        key[rows] = (scale.sqrt()[:, None] * right)[:part]
    left, scale, right = torch.linalg.svd(0.4 * torch.randn(width, width) / width**0.5 - 0.4 * torch.eye(width))
    value.copy_(scale.sqrt()[:, None] * right)
    layer.project.weight.copy_(left * scale.sqrt())


def keep_half(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random half of each image's tokens, another half for each image (Liu et al. 2022, PatchDropout)."""
    batch, count, width = tokens.shape
    kept = torch.rand((batch, count), generator=generator).argsort(1)[:, : count // 2]
    return tokens.gather(1, kept[:, :, None].expand(-1, -1, width))


def find_loss(logits: Tensor, labels: Tensor, said: Tensor) -> Tensor:
    """Mean of the cross-entropy with smoothed labels and the divergence from what the teacher said (Hinton 2015)."""
    from_labels = functional.cross_entropy(logits, labels, label_smoothing=_LABEL_SMOOTHING)
    spoken = (logits / _TEMPERATURE).log_softmax(1)
    from_teacher = functional.kl_div(spoken, said, reduction="batchmean") * _TEMPERATURE**2
    return (from_labels + from_teacher) / 2


def find_accuracy(model: nn.Module, images: Images) -> float:
    """Return the share of images whose class is found."""
    with torch.no_grad():
        answers = torch.cat([model(batch).argmax(1) for batch in images[0].split(250)])
    return float((answers == images[1]).float().mean())


def write_weights(model: nn.Module, path: Path) -> None:
    """Write weights with half precision, and leave the network with what was written."""
    stored = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    path.write_bytes(save(stored))
    model.load_state_dict(stored)


def read_images(folder: Path, part: str) -> Images:
    """Read a part of the data as tensors; see `data.read`."""
    images, labels = read(folder, part)
    return torch.from_numpy(images), torch.from_numpy(labels)


def main() -> None:
    """Train, write the weights, print the accuracy on the test images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(_EPOCHS))
    parser.add_argument("--cifar", type=Path, required=True, help="folder with train.npz and test.npz")
    parser.add_argument("--epochs", type=int, help="passes over the images (default: as the weights here were made)")
    parser.add_argument("--out", type=Path, help="file to write (default: beside this one)")
    arguments = parser.parse_args()
    name, epochs = arguments.name, arguments.epochs or _EPOCHS[arguments.name]
    torch.set_num_threads(1)
    images, labels = read_images(arguments.cifar, "train")
    if name == "resnet20":
        model: nn.Module = train_resnet((images, labels), 3, epochs)
    else:
        fitted, held_back = (images[_HELD_BACK:], labels[_HELD_BACK:]), (images[:_HELD_BACK], labels[:_HELD_BACK])
        model = train_vit(fitted, held_back, resnet20()[0], epochs)
    write_weights(model, arguments.out or FOLDER / f"{name}.safetensors")
    print(f"accuracy on the test images: {find_accuracy(model, read_images(arguments.cifar, 'test')):.4f}")


if __name__ == "__main__":
    main()
