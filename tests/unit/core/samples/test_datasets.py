"""Data sets as samples, by a function of one line: torchvision's pairs, Hugging Face's dicts, pictures in both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from refusing import refused

from modelwright.core.records.pictures import read_pictures
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.archives import read_arrays
from modelwright.core.samples.functions import materialize_function
from modelwright.core.samples.materialize import materialize_samples
from modelwright.core.samples.source import SampleSource

SPEC = TensorSpec(name="pixels", dtype="float32", shape=("batch", 3, 2, 2))
SIGNATURE = Signature(inputs=(SPEC,), outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 4)),))
CODE = """
import numpy as np
from PIL import Image

class Arrays:  # as torch.utils.data.Dataset: items by number, no iterator
    def __len__(self): return 40
    def __getitem__(self, index):
        if not 0 <= index < 40: raise IndexError(index)
        return np.full((3, 2, 2), index, np.float32), index // 10

class Pictures(Arrays):  # as torchvision's without a transform
    classes = ["plane", "car", "bird", "cat"]
    def __getitem__(self, index):
        return Image.new("RGB", (2, 2), (index, index, index)), index // 10

class Label:
    names = ["plane", "car", "bird", "cat"]

class Dicts(Arrays):  # as Hugging Face's
    features = {"image": None, "label": Label}
    def __getitem__(self, index):
        return {"image": Image.new("L", (4, 2), index), "label": index // 10, "caption": "a text"}
    def __iter__(self): return (self[index] for index in range(40))

class Two(Arrays):
    def __getitem__(self, index):
        return {"left": Image.new("L", (4, 2)), "right": Image.new("L", (4, 2))}

def arrays(): return Arrays()
def pictures(): return Pictures()
def dicts(): return Dicts()
def two(): return Two()
def loader():  # as torch.utils.data.DataLoader: pairs of whole batches
    for start in range(0, 40, 10):
        yield [np.full((10, 3, 2, 2), start, np.float32), np.arange(start, start + 10) // 10]
def alone(): return (Image.new("RGB", (2, 2), (7, 7, 7)) for _ in range(3))
def told(): return ({"pixels": np.asarray(picture, np.float32).transpose(2, 0, 1)} for picture in alone())
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "data.py"
    path.write_text(CODE)
    return path


def test_pairs_of_arrays_and_labels(code: Path, tmp_path: Path) -> None:
    arrays = read_arrays(materialize_samples(f"{code}:arrays", SIGNATURE, tmp_path / "out"))
    assert arrays["pixels"][:, 0, 0, 0].tolist() == list(range(40))
    assert arrays["labels"].tolist() == [index // 10 for index in range(40)]


def test_of_a_long_data_set_some_are_chosen_not_the_first(code: Path, tmp_path: Path) -> None:
    arrays = read_arrays(materialize_samples(f"{code}:arrays", SIGNATURE, tmp_path / "out", limit=12))
    assert len(set(arrays["pixels"][:, 0, 0, 0].tolist())) == 12
    assert len(set(arrays["labels"].tolist())) > 2, "the first 12 are of two classes"


@pytest.mark.parametrize("function", ["pictures", "dicts"])
def test_pictures_in_items_are_preprocessed(code: Path, tmp_path: Path, function: str) -> None:
    source = SampleSource(text=f"{code}:{function}", preprocess="scale=1,mean=1,std=2")
    path = materialize_samples(source, SIGNATURE, tmp_path / "out")
    arrays = read_arrays(path)
    assert sorted(arrays) == ["labels", "pixels"]
    assert arrays["pixels"].shape == (40, 3, 2, 2)
    assert arrays["pixels"][:, 2, 1, 1].tolist() == [(index - 1) / 2 for index in range(40)]
    record = read_pictures(path)
    assert record is not None
    assert (record.classes, record.taken, record.left) == (("plane", "car", "bird", "cat"), 40, 0)


def test_data_sets_and_loaders_train(code: Path, tmp_path: Path) -> None:
    items = materialize_function(f"{code}:arrays", tmp_path / "items", signature=SIGNATURE, batched=True)
    batches = materialize_function(f"{code}:loader", tmp_path / "batches", signature=SIGNATURE, batched=True)
    assert read_arrays(items)["pixels"].shape == read_arrays(batches)["pixels"].shape == (40, 3, 2, 2)
    assert np.array_equal(read_arrays(items)["labels"], read_arrays(batches)["labels"])


def test_what_does_not_name_the_input_waits_for_the_model(code: Path, tmp_path: Path) -> None:
    hint = refused(lambda: materialize_samples(f"{code}:arrays", None, tmp_path / "no"), "are not known yet")
    assert "yield {'input_name': array" in hint
    assert not (tmp_path / "no").exists()
    assert len(read_arrays(materialize_samples(f"{code}:told", None, tmp_path / "yes"))["pixels"]) == 3
    source = SampleSource(text=f"{code}:pictures", preprocess="imagenet")
    assert "input=NAME,size=224" in refused(lambda: materialize_samples(source, None, tmp_path / "no"), "not known yet")
    said = SampleSource(text=source.text, preprocess="imagenet,input=pixels,size=8")
    assert read_arrays(materialize_samples(said, None, tmp_path / "said"))["pixels"].shape == (40, 3, 8, 8)


def test_a_picture_needs_preprocessing(code: Path, tmp_path: Path) -> None:
    hint = refused(lambda: materialize_samples(f"{code}:alone", SIGNATURE, tmp_path / "no"), "sample 0 is a picture")
    assert "add --preprocess imagenet" in hint
    source = SampleSource(text=f"{code}:alone", preprocess="imagenet")
    assert len(read_arrays(materialize_samples(source, SIGNATURE, tmp_path / "yes"))["pixels"]) == 3


def test_items_for_several_inputs_are_dicts(code: Path, tmp_path: Path) -> None:
    two = Signature(inputs=(SPEC, TensorSpec(name="other", dtype="float32", shape=("batch", 1))), outputs=())
    hint = refused(
        lambda: materialize_samples(f"{code}:arrays", two, tmp_path / "no"), "which of the inputs pixels, other"
    )
    assert hint == "yield a dict keyed by input name"
    source = SampleSource(text=f"{code}:two", preprocess="imagenet")
    hint = refused(lambda: materialize_samples(source, SIGNATURE, tmp_path / "no"), "holds 2 pictures, left, right")
    assert "a dict of arrays" in hint
    assert read_arrays(materialize_samples(f"{code}:told", two, tmp_path / "yes"))
