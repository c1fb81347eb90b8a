"""Trains ResNet-8 on CIFAR-10 and writes its weights beside `cifar.py`: some minutes on one core.

    python benchmarks/train_cifar.py --cifar FOLDER

FOLDER holds `train.npz` and `test.npz`: `images` uint8 [count, 32, 32, 3] and `labels`. The last weights are kept,
whatever their accuracy: the test images decide nothing. ResNet-20 is trained by `examples/mixed_precision/train.py`,
in the same way.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from models.cifar import RESNET8_WEIGHTS

from modelwright.examples.mixed_precision.train import find_accuracy, read_images, train_resnet, write_weights


def main() -> None:
    """Trains, writes the weights, prints the accuracy on the test images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESNET8_WEIGHTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = train_resnet(read_images(arguments.cifar, "train"), 1, arguments.epochs)
    write_weights(model, arguments.out)
    print(f"accuracy on the test images: {find_accuracy(model, read_images(arguments.cifar, 'test')):.4f}")


if __name__ == "__main__":
    main()
