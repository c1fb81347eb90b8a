"""Trains the networks of `cifar.py` on CIFAR-10 and writes their weights beside that: some minutes on one core each.

    python benchmarks/train_cifar.py resnet8 --cifar FOLDER

FOLDER holds `train.npz` and `test.npz`: `images` uint8 [count, 32, 32, 3] and `labels`. The last weights are kept,
whatever their accuracy: the test images decide nothing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from models.cifar import BLOCKS, CifarResNet, standardize, weights_path
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

SEED = 20261127
BATCH_SIZE = 128
PEAK_LEARNING_RATE = 0.15
WEIGHT_DECAY = 5e-4
MAX_SHIFT = 4
"""Pixels, of the random shifts in training."""


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shifts each image by up to `MAX_SHIFT` pixels and mirrors half of them."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (MAX_SHIFT,) * 4)
    top, left = torch.randint(0, 2 * MAX_SHIFT + 1, (2, count, 1, 1, 1), generator=generator)
    columns = torch.arange(width).expand(count, 1, 1, width)
    mirrored = torch.rand((count, 1, 1, 1), generator=generator) < 0.5
    columns = torch.where(mirrored, width - 1 - columns, columns) + left
    rows = torch.arange(height).view(1, 1, height, 1) + top
    sample, channel = torch.arange(count).view(-1, 1, 1, 1), torch.arange(3).view(1, 3, 1, 1)
    return padded[sample, channel, rows, columns]


def train(images: Tensor, labels: Tensor, blocks: int, epochs: int) -> CifarResNet:
    """Returns the trained network in evaluation mode: SGD with momentum, its rate up for a tenth, then a cosine."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = CifarResNet(blocks)
    optimizer = torch.optim.SGD(
        model.parameters(), PEAK_LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    batches = len(labels) // BATCH_SIZE
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=epochs * batches, pct_start=0.1
    )
    for epoch in range(epochs):
        started, total = time.monotonic(), 0.0
        order = torch.randperm(len(labels), generator=generator)[: batches * BATCH_SIZE]
        for rows in order.split(BATCH_SIZE):
            loss = functional.cross_entropy(model(augment(images[rows], generator)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / batches:.3f}, {time.monotonic() - started:.0f} s", flush=True)
    model.eval()
    return model


def main() -> None:
    """Trains, writes the weights, prints the accuracy on the test images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(BLOCKS))
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, help="file to write (default: beside this one)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fitted, test = (np.load(arguments.cifar / f"{part}.npz") for part in ("train", "test"))
    labels = torch.from_numpy(fitted["labels"].astype(np.int64))
    model = train(torch.from_numpy(standardize(fitted["images"])), labels, BLOCKS[arguments.name], arguments.epochs)
    stored = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    (arguments.out or weights_path(arguments.name)).write_bytes(save(stored))
    model.load_state_dict(stored)
    with torch.inference_mode():
        answers = model(torch.from_numpy(standardize(test["images"]))).argmax(1).numpy()
    print(f"accuracy on {len(answers)} test images: {np.mean(answers == test['labels']):.4f}")


if __name__ == "__main__":
    main()
