"""The models of the contest: each as an ONNX file, with samples to calibrate on and others that only judge."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np
import numpy.typing as npt
import torch
from contest.environments import find_or_make
from models import images, minilm, shapes
from models.cifar import create_resnet8
from models.images import make_images
from torch import Tensor, nn

from modelwright.examples.mixed_precision.data import standardize
from modelwright.examples.mixed_precision.model import resnet20

Array = npt.NDArray[Any]
CALIBRATION_COUNT = 512
HELD_OUT_COUNT = 2000
MADE_BY = "made_by.txt"
NOISE_COUNT = 64
"""Images of noise for shapes with random weights; as many judge."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A model with its samples, as files.

    Attributes:
        name: As in the catalogue.
        model: The FP32 ONNX file, with a dynamic batch.
        samples: `.npz` by input name, with `labels` where there are any, for calibrating and tuning.
        held_out: Likewise, for judging only.
    """

    name: str
    model: Path
    samples: Path
    held_out: Path

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """Of the held-out samples; None for random weights."""
        with np.load(self.held_out) as arrays:
            return arrays["labels"].astype(np.int64) if "labels" in arrays else None

    @property
    def sample_count(self) -> int:
        """Of those for calibrating."""
        with np.load(self.samples) as arrays:
            return len(arrays[arrays.files[0]])


Samples = dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class Model:
    """How a model is made.

    Attributes:
        make: From the folder of data and that of environments: module, inputs of two samples by name, samples, held-out
            samples.
        data: `cifar` or `trec`, a folder that must be given; None for random weights.
    """

    make: Callable[[Path, Path], tuple[nn.Module, dict[str, Tensor], Samples, Samples]]
    data: str | None = None


def _cifar(create: Callable[[], tuple[nn.Module, tuple[Tensor]]]) -> Model:
    def make(folder: Path, _environments: Path) -> tuple[nn.Module, dict[str, Tensor], Samples, Samples]:
        model, (image,) = create()
        fitted, test = (dict(np.load(folder / f"{part}.npz")) for part in ("train", "test"))
        return model, {"image": image}, _take(fitted, CALIBRATION_COUNT), _take(test, HELD_OUT_COUNT)

    return Model(make=make, data="cifar")


def _take(part: Mapping[str, Array], count: int) -> Samples:
    pixels, labels = part["images"][:count], part["labels"][:count]
    return {"image": standardize(pixels), "labels": labels.astype(np.int64)}


def _minilm(classes: int) -> Model:
    def make(folder: Path, environments: Path) -> tuple[nn.Module, dict[str, Tensor], Samples, Samples]:
        return minilm.create(folder, find_or_make("minilm", environments), classes=classes)

    return Model(make=make, data="trec")


def _shape(create: Callable[[], nn.Module], side: int = 224) -> Model:
    def make(_data: Path, _environments: Path) -> tuple[nn.Module, dict[str, Tensor], Samples, Samples]:
        samples, held_out = make_images(NOISE_COUNT, side), make_images(NOISE_COUNT, side, seed=1)
        return create(), {"image": torch.from_numpy(samples[:2])}, {"image": samples}, {"image": held_out}

    return Model(make=make)


MODELS: Mapping[str, Model] = {
    "resnet8": _cifar(create_resnet8),
    "resnet20": _cifar(resnet20),
    "minilm-2": _minilm(2),
    "minilm-6": _minilm(6),
    "resnet50": _shape(lambda: networks.create_resnet50()[0]),
    "mobilenet-v2": _shape(shapes.create_mobilenet_v2),
    "efficientnet-b0": _shape(shapes.create_efficientnet_b0),
    "vit-tiny": _shape(shapes.create_vit_tiny),
    "yolo": _shape(shapes.create_yolo, side=320),
}


def prepare(name: str, cache: Path, *, cifar: Path | None, trec: Path | None) -> Prepared | None:
    """Returns a model with its samples, made the first time; None where its data were not given.

    Args:
        name: In `MODELS`.
        cache: Folder for models and environments.
        cifar: Folder with CIFAR-10's images.
        trec: Folder with TREC's questions.
    """
    entry = MODELS[name]
    data = {"cifar": cifar, "trec": trec, None: cache}[entry.data]
    if data is None:
        return None
    folder = cache / "models" / name
    prepared = Prepared(
        name=name, model=folder / "model.onnx", samples=folder / "samples.npz", held_out=folder / "eval.npz"
    )
    mark = folder / MADE_BY
    made_by = _hash_shapes() if entry.data is None else ""
    if not prepared.held_out.exists() or (mark.read_text() if mark.exists() else "") != made_by:
        folder.mkdir(parents=True, exist_ok=True)
        module, example, samples, held_out = entry.make(data, cache / "environments")
        _export(module, example, prepared.model)
        np.savez(prepared.samples, **samples)  # type: ignore[arg-type]
        np.savez(prepared.held_out, **held_out)  # type: ignore[arg-type]
        mark.write_text(made_by)
    return prepared


def _hash_shapes() -> str:
    """Returns a hash of what makes the shapes and their images: with another one they are made anew."""
    sources = (shapes.__file__, networks.__file__, images.__file__)
    return hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources)).hexdigest()


def _export(module: nn.Module, example: Mapping[str, Tensor], path: Path) -> None:
    """Writes one ONNX file, its batch dynamic and its weights in it."""
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        module, tuple(example.values()), path, input_names=list(example), output_names=["output"], opset_version=18,
        dynamic_shapes=[{0: batch} for _ in example], dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
