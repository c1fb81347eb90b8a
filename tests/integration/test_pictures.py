"""Folders of pictures through whole commands: built with, kept in the manifest, measured on and trained with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import models
import numpy as np
import pytest
from PIL import Image

from modelwright.core.errors import BadInputError
from modelwright.core.records.artifact import open_artifact
from modelwright.core.samples.source import SampleSource
from modelwright.harness import measure
from modelwright.harness.building import build_targets

pytest.importorskip("onnxruntime", reason="the baseline")
CLASSES = ("ant", "bee", "cat", "dog", "emu")


def paint(folder: Path, *, count: int = 4, seed: int = 0, size: tuple[int, int] = (12, 12)) -> Path:
    rng = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelwright.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_what_was_done_to_pictures_is_kept_and_done_again(tmp_path: Path) -> None:
    model = models.make_cnn(tmp_path / "m.onnx")
    train, judge = paint(tmp_path / "train"), paint(tmp_path / "judge", seed=1, size=(20, 16))
    done = run(
        "build",
        model,
        "-t",
        "ort-fp32",
        "-s",
        train,
        "--eval",
        judge,
        "--preprocess",
        "imagenet",
        "-o",
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    assert f"{train}: labels are 0: ant, 1: bee, 2: cat, ..., 4: emu, in the order of their names" in done.stderr
    artifact = open_artifact(tmp_path / "out" / "ort-fp32")
    pictures = artifact.manifest.samples.pictures
    assert pictures
    assert pictures.classes == CLASSES
    assert (pictures.preprocess.resize, pictures.preprocess.crop) == (13, (12, 12))
    shown = run("inspect", artifact.directory).stdout
    assert f"preprocess         {pictures.preprocess.describe()}" in shown
    assert "0: ant, 1: bee, 2: cat, 3: dog, 4: emu" in shown
    snippet = run("inspect", artifact.directory, "--snippet", "python").stdout
    assert f"# {pictures.preprocess.describe()}" in snippet

    (judge / "ant").rename(judge / "none of them")
    with pytest.raises(BadInputError, match="does not name the class folders none of them"):
        measure([artifact.directory], samples=judge, effort="quick")
    (judge / "none of them").rename(judge / "ant")
    found = measure([artifact.directory], samples=judge, effort="quick")
    assert found.samples.pictures == pictures
    assert found.measured[0].evaluated == 20
    proof = artifact.manifest.proof
    assert proof is not None
    assert found.measured[0].accuracy == pytest.approx((proof.correct or 0) / 20), "the same pictures, the same way"


@pytest.mark.slow
def test_an_arrays_manifest_says_nothing_of_pictures(tmp_path: Path) -> None:
    model, samples = models.make_cnn(tmp_path / "m.onnx"), models.make_samples(tmp_path / "s.npz", x=(3, 12, 12))
    built = build_targets(model, samples=samples, targets=["ort-fp32"], out=tmp_path / "out")
    text = (built.artifacts["ort-fp32"].directory / "artifact.json").read_text()
    assert "pictures" not in json.loads(text)["samples"]
    with np.load(samples) as arrays:
        np.save(tmp_path / "x.npy", arrays["x"])
    alone = build_targets(model, samples=tmp_path / "x.npy", targets=["ort-fp32"], out=tmp_path / "alone")
    assert alone.artifacts["ort-fp32"].manifest.samples.evaluation is not None


def test_classes_that_are_not_the_models_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    model, train = models.make_cnn(tmp_path / "m.onnx"), paint(tmp_path / "train")
    (train / "emu").rename(tmp_path / "emu")
    source = SampleSource(text=str(train), preprocess="scale=1/255")
    with pytest.raises(BadInputError, match="has 4 class folders, the model 5 classes") as caught:
        build_targets(model, samples=source, targets=["ort-fp32"], out=tmp_path / "out")
    (tmp_path / "names.txt").write_text("\n".join(reversed(CLASSES)))
    assert "add --labels FILE" in (caught.value.hint or "")
    named = SampleSource(text=str(train), preprocess="scale=1/255", labels=str(tmp_path / "names.txt"))
    built = build_targets(model, samples=named, targets=["ort-fp32"], out=tmp_path / "out")
    pictures = built.artifacts["ort-fp32"].manifest.samples.pictures
    assert pictures
    assert pictures.classes == CLASSES[::-1]


FACTORY = """
import torch
from torch import nn

def create():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 16), nn.ReLU(), nn.Linear(16, 5)), torch.zeros(2, 3, 6, 6)

def create_bare():
    return create()[0]

class Pictures(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.rand(3, 6, 6, generator=generator), index % 5

def load():
    return Pictures()
"""


@pytest.mark.slow
def test_pictures_and_data_sets_train_and_export(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch sources")
    (tmp_path / "net.py").write_text(FACTORY)
    source, train = f"{tmp_path / 'net.py'}:create", paint(tmp_path / "train", count=8, size=(6, 6))
    pictures = ("--preprocess", "mean=0.5,std=0.25")
    pruning = ("prune:magnitude:0.3", "--epochs", "1")
    done = run("compress", source, *pruning, "--train", train, *pictures, "-o", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "a" / "compression.json").read_text())
    assert record["train"]["pictures"]["classes"] == list(CLASSES)
    assert record["train"]["pictures"]["preprocess"]["mean"] == [0.5]
    data = f"{tmp_path / 'net.py'}:load"
    done = run("compress", source, *pruning, "--train", data, "-o", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "b" / "compression.json").read_text())["train"]["samples"] == 40
    done = run("export", source, "-s", train, *pictures, "-o", tmp_path / "m.onnx", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["comparison"]["on"] == "samples"
    bare = (f"{tmp_path / 'net.py'}:create_bare", "-s", train, "-o", tmp_path / "n.onnx")
    done = run("export", *bare, *pictures)
    assert done.returncode == 3
    assert "--preprocess ...,input=NAME,size=224" in done.stderr
    done = run("export", *bare, "--preprocess", "mean=0.5,std=0.25,input=input,size=6")
    assert done.returncode == 0, done.stderr
