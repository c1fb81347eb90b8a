"""CIFAR-10 as samples: ``image``, standardized, and ``labels``.

    python -m modelwright.examples.mixed_precision.data --cifar FOLDER --out DIR     # DIR/train.npz, DIR/test.npz

FOLDER holds ``train.npz`` and ``test.npz``: ``images`` uint8 ``[count, 32, 32, 3]`` and ``labels`` ``[count]``.
With it in the environment variable CIFAR10, ``data.py:train_samples`` and ``data.py:test_samples`` are samples, too.
Nothing here imports the rest of the package.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
"""Of CIFAR-10's pixels in 0 to 1, by channel: red, green, blue."""


def standardize(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Give images the form that the networks read.

    Args:
        images: uint8 ``[count, 32, 32, 3]``.

    Returns:
        float32 ``[count, 3, 32, 32]``.
    """
    values = (images.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def read(folder: Path, part: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Read a part of the data.

    Args:
        folder: With ``train.npz`` and ``test.npz``.
        part: ``train`` or ``test``.

    Returns:
        Standardized images, float32 ``[count, 3, 32, 32]``, and labels, int64 ``[count]``.
    """
    with np.load(folder / f"{part}.npz") as stored:
        return standardize(stored["images"]), stored["labels"].astype(np.int64)


def train_samples() -> Iterator[dict[str, npt.NDArray[np.generic]]]:
    """Yield the training images one by one, with their labels: for calibration and training."""
    return _iterate("train")


def test_samples() -> Iterator[dict[str, npt.NDArray[np.generic]]]:
    """Yield the test images one by one, with their labels: they only judge."""
    return _iterate("test")


def _iterate(part: str) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
    folder = os.environ.get("CIFAR10")
    if not folder:
        raise ValueError("the environment variable CIFAR10 is not set: it names the folder with train.npz and test.npz")
    images, labels = read(Path(folder), part)
    for image, label in zip(images, labels, strict=True):
        yield {"image": image, "labels": label}


def write(cifar: Path, out: Path, count: int | None = None) -> None:
    """Write both parts as samples.

    Args:
        cifar: Folder with ``train.npz`` and ``test.npz``.
        out: Folder to write files of the same names to.
        count: Images of each part at most, the first ones; None for all.
    """
    out.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        images, labels = read(cifar, part)
        np.savez(out / f"{part}.npz", image=images[:count], labels=labels[:count])


def main() -> None:
    """Write the samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True, help="folder with train.npz and test.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder to write samples of the same names to")
    parser.add_argument("--count", type=int, help="images of each part at most (default: all)")
    arguments = parser.parse_args()
    write(arguments.cifar, arguments.out, arguments.count)


if __name__ == "__main__":
    main()
