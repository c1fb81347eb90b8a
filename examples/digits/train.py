"""Train the digit classifier: writes ``weights.safetensors`` and ``samples.npz`` beside this file.

The training images are split once more, into those that are fitted and a validation part to tune on. The
held-out images that go into ``samples.npz`` are neither fitted nor looked at: the last weights are kept,
whatever their accuracy.

So that eight bits lose nothing, every step is taken under the noise that quantization would add: to the
weights with batch norm folded in, one scale per tensor, and to every activation.
"""

import argparse
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

from modelwright.examples.digits.model import (
    CLASS_COUNT,
    IMAGE_SHAPE,
    WEIGHTS_PATH,
    ConvNorm,
    DigitClassifier,
    InvertedResidual,
)

SAMPLES_PATH = Path(__file__).with_name("samples.npz")

_SEED = 20261121
_THREADS = 2
_HELD_OUT_COUNT = 600
_VALIDATION_COUNT = 150
# Of the fitted images at 32x32, in units of full ink.
_INK_MEAN = 0.307
_INK_STD = 0.325
_FULL_INK = 16.0

_EPOCHS = 45
_BATCH_SIZE = 64
_PEAK_LEARNING_RATE = 4e-3
_WARMUP_SHARE = 0.1
_WEIGHT_DECAY = 0.05
_LABEL_SMOOTHING = 0.1
_PIXEL_NOISE = 0.05
# Noise in int8 steps: wider than rounding (1) to leave a margin.
_WEIGHT_NOISE_STEPS = 2.0
_ACTIVATION_NOISE_STEPS = 2.0


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images and their classes.

    Attributes:
        image: float32 ``[count, 1, 32, 32]``, standardised.
        labels: int64 ``[count]``, 0 to 9.
    """

    image: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class Split:
    """The three disjoint parts of the data set, each with the classes in equal shares.

    Attributes:
        fit: The images that are trained on.
        validation: The part of the training images that settings are tuned on.
        held_out: The images that become the samples.
    """

    fit: Images
    validation: Images
    held_out: Images


def load_split() -> Split:
    """Load the digits, bilinearly enlarged from 8x8 to 32x32, and split them."""
    ink, labels = load_digits(return_X_y=True)
    image = torch.from_numpy(ink.astype(np.float32)).reshape(-1, 1, 8, 8) / _FULL_INK
    image = functional.interpolate(image, size=IMAGE_SHAPE[1:], mode="bilinear", align_corners=False)
    image = (image - _INK_MEAN) / _INK_STD
    order = np.arange(len(labels))
    training, held_out = train_test_split(order, test_size=_HELD_OUT_COUNT, stratify=labels, random_state=_SEED)
    fit, validation = train_test_split(
        training, test_size=_VALIDATION_COUNT, stratify=labels[training], random_state=_SEED
    )

    def take(rows: np.ndarray) -> Images:
        index = torch.from_numpy(rows)
        return Images(image=image[index], labels=torch.from_numpy(labels.astype(np.int64))[index])

    return Split(fit=take(fit), validation=take(validation), held_out=take(held_out))


def augment(image: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate, scale, shear and shift images at random, and add pixel noise.

    Args:
        image: float32 ``[batch, 1, 32, 32]``, standardised.
        generator: Source of randomness.

    Returns:
        New images of the same shape.
    """

    def uniform(limit: float) -> Tensor:
        return (torch.rand(len(image), generator=generator) * 2 - 1) * limit

    angle = uniform(math.radians(12))
    scale = 1 + uniform(0.12)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    # Shifts are in halves of the image's side: 0.12 is about two pixels.
    rows = [cosine, uniform(0.15) - sine, uniform(0.12), sine, cosine, uniform(0.12)]
    grid = functional.affine_grid(torch.stack(rows, dim=1).reshape(-1, 2, 3), list(image.shape), align_corners=False)
    blank = -_INK_MEAN / _INK_STD
    moved = functional.grid_sample(image - blank, grid, align_corners=False) + blank
    return moved + torch.randn(moved.shape, generator=generator) * _PIXEL_NOISE


def add_activation_noise(features: Tensor, generator: torch.Generator) -> Tensor:
    """Add the noise of 8-bit rounding to features.

    Args:
        features: float32, any shape.
        generator: Source of randomness.

    Returns:
        Noisy features of the same shape.
    """
    step = (features.amax() - features.amin()).detach() / 255
    noise = torch.rand(features.shape, generator=generator) - 0.5
    return features + noise * (step * _ACTIVATION_NOISE_STEPS)


@contextmanager
def noisy_weights(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Disturb all weights by the noise of 8-bit rounding, and put them back at the end.

    The step of a convolution is the one of its weights after batch norm is folded into them, with one
    scale for the tensor: a channel that batch norm will shrink gets as much more noise. This is what
    keeps the ranges of the channels together.

    Args:
        model: The model in training.
        generator: Source of randomness.
    """
    clean: list[tuple[nn.Parameter, Tensor]] = []
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ConvNorm):
                convolution, norm = module[0], module[1]
                assert isinstance(convolution, nn.Conv2d)
                assert isinstance(norm, nn.BatchNorm2d)
                assert norm.running_var is not None
                fold = norm.weight.abs() * (norm.running_var + norm.eps).rsqrt()
                weight, fold = convolution.weight, fold.clamp(min=1e-3).reshape(-1, 1, 1, 1)
            elif isinstance(module, nn.Linear):
                weight, fold = module.weight, torch.ones(())
            else:
                continue
            step = (weight * fold).abs().amax() / 127
            clean.append((weight, weight.clone()))
            noise = torch.rand(weight.shape, generator=generator) - 0.5
            weight += noise * (step * _WEIGHT_NOISE_STEPS) / fold
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in clean:
                weight.copy_(value)


def accuracy(model: nn.Module, images: Images) -> float:
    """Return the share of images, 0 to 1, that a model in evaluation mode classifies right."""
    with torch.inference_mode():
        right = model(images.image).argmax(dim=1) == images.labels
    return float(right.double().mean())


def train(split: Split) -> DigitClassifier:
    """Train from scratch.

    Args:
        split: The data; only ``fit`` is learnt from, ``validation`` is reported.

    Returns:
        The classifier in evaluation mode, with the weights of the last step.
    """
    torch.manual_seed(_SEED)
    generator = torch.Generator().manual_seed(_SEED)
    model = DigitClassifier()
    model.train()
    for module in model.modules():
        if isinstance(module, ConvNorm | InvertedResidual):
            module.register_forward_hook(
                lambda module, _, features: add_activation_noise(features, generator) if module.training else features
            )
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=_PEAK_LEARNING_RATE,
    )
    batches = len(split.fit.labels) // _BATCH_SIZE
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _PEAK_LEARNING_RATE, total_steps=_EPOCHS * batches, pct_start=_WARMUP_SHARE
    )
    for epoch in range(_EPOCHS):
        order = torch.randperm(len(split.fit.labels), generator=generator)
        losses: list[float] = []
        for rows in order[: batches * _BATCH_SIZE].split(_BATCH_SIZE):
            image = augment(split.fit.image[rows], generator)
            with noisy_weights(model, generator):
                loss = functional.cross_entropy(model(image), split.fit.labels[rows], label_smoothing=_LABEL_SMOOTHING)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        if (epoch + 1) % 5 == 0:
            model.eval()
            share = accuracy(model, split.validation)
            model.train()
            loss_mean = float(np.mean(losses))
            print(f"epoch {epoch + 1}: loss {loss_mean:.3f}, validation accuracy {share:.4f}", flush=True)
    model.eval()
    return model


def main() -> None:
    """Train, write the weights and the samples, and print what came out."""
    parser = argparse.ArgumentParser(description="Train the digit classifier again.")
    parser.add_argument("--out", type=Path, default=WEIGHTS_PATH.parent, help="folder to write to")
    folder: Path = parser.parse_args().out
    torch.set_num_threads(_THREADS)
    torch.use_deterministic_algorithms(True)
    started = time.perf_counter()
    split = load_split()
    model = train(split)
    (folder / WEIGHTS_PATH.name).write_bytes(save(model.state_dict()))
    np.savez(
        folder / SAMPLES_PATH.name,
        image=split.held_out.image.numpy(),
        labels=split.held_out.labels.numpy(),
    )
    parameter_count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameter_count} parameters, {CLASS_COUNT} classes, {time.perf_counter() - started:.0f} s")
    print(f"held-out accuracy {accuracy(model, split.held_out):.4f}")


if __name__ == "__main__":
    main()
