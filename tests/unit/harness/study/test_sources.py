"""The models that a study lists: where they lie, what trains them, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.samples.archives import read_arrays
from modelwright.harness.study.file import TrainingTable, read_study
from modelwright.harness.study.places import locate, locate_labels
from modelwright.harness.study.sources import Sources

HEAD = """schema = 1
[samples]
calibrate = "train.npz"
[training]
data = "train.npz"
epochs = 2
lr = 0.5
[variants.teacher]
source = "net.py:create"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "net.py").write_text("def create():\n    ...\n\ndef small():\n    ...\n")
    return tmp_path


def list_sources(place: Path, text: str) -> Sources:
    path = place / "nets" / "study.toml"
    path.write_text(HEAD + text)
    return Sources(read_study(path), path, place / "out")


def test_paths_are_relative_to_the_file_and_variants_follow_each_other(place: Path) -> None:
    more = """
    [variants.half]
    source = "teacher"
    methods = ["prune:structured:0.5"]
    targets = ["ort-fp32"]
    [variants.again]
    source = "half"
    [variants.quarter]
    source = "half"
    methods = ["distil:net.py:small"]
    """
    subjects = {subject.name: subject for subject in list_sources(place, more).list_subjects()}
    assert str(subjects["teacher"].source) == str(place / "nets" / "net.py:create")
    assert subjects["half"].source == subjects["again"].source == place / "out" / "sources" / "half"
    assert subjects["quarter"].source == place / "out" / "sources" / "quarter"
    assert [subject.targets for subject in subjects.values()] == [None, ("ort-fp32",), None, None]
    assert {subject.place for subject in subjects.values()} == {Path("variants") / str(name) for name in subjects}


def test_functions_of_one_name_in_two_folders_are_stored_apart(place: Path) -> None:
    for folder, value in (("a", 1), ("b", 2)):
        (place / folder).mkdir()
        (place / folder / "data.py").write_text(
            f"import numpy as np\ndef make():\n    yield {{'x': np.full((3, 2), {value}, 'f4'), 'y': np.arange(3)}}\n"
        )
    sources = list_sources(place, "")
    training = TrainingTable(data=f"{place}/a/data.py:make", judge=f"{place}/b/data.py:make")
    train, judge = sources._place_data(training, place / "scratch", {}, lambda text: None)
    assert train is not None
    assert judge is not None
    assert [Path(each.text).name for each in (train, judge)] == ["data.make"] * 2, "part of what is cached"
    for each, value in ((train, 1), (judge, 2)):
        np.testing.assert_array_equal(read_arrays(Path(each.text))["x"], np.full((3, 2), value))


def test_noise_has_no_place() -> None:
    assert locate("random:8", Path("nets/study.toml")) == "random:8"
    assert locate("/data/a.npz", Path("nets/study.toml")) == "/data/a.npz"
    labels = [locate_labels(text, Path("nets/study.toml")) for text in (None, "none", "classes.txt")]
    assert labels == [None, "none", "nets/classes.txt"]


@pytest.mark.parametrize(
    ("more", "message", "hint"),
    [
        ('[variants.a]\nsource = "techer"', "variants.a.source: no such source", "did you mean teacher?"),
        ('[variants.a]\nsource = "net.py:make"', "variants.a.source: ", "create"),
        ('[variants.a]\nsource = "teacher"\nmethods = ["prune:half"]', "variants.a.methods: prune:half", ""),
        ('[variants.a]\nsource = "teacher"\nmethods = ["distil:net.py:big"]', "variants.a.methods: ", "small"),
        (
            '[variants.a]\nsource = "teacher"\nmethods = ["qat"]\ntraining = { loss = "l2" }',
            "variants.a.training: --loss",
            "mse",
        ),
        (
            '[variants.a]\nsource = "teacher"\nmethods = ["qat"]\ntraining = { budget = "soon" }',
            "variants.a.training: --budget soon",
            "10m",
        ),
    ],
)
def test_what_is_wrong_with_a_variant_is_told_with_its_key(place: Path, more: str, message: str, hint: str) -> None:
    with pytest.raises(BadInputError) as caught:
        list_sources(place, more)
    assert caught.value.message.startswith(f"study {place / 'nets' / 'study.toml'}: {message}")
    assert hint in (caught.value.hint or "")
    assert not (place / "out").exists()
