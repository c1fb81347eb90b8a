"""Folders of pictures made into samples: what is stored, left out, told and refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusing import refused

from modelwright.core.errors import BadInputError
from modelwright.core.records.pictures import Pictures, read_pictures
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.archives import read_arrays
from modelwright.core.samples.materialize import materialize_samples
from modelwright.core.samples.pictures import store
from modelwright.core.samples.pictures.folders import explain_pictures
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.core.samples.source import SampleSource, add_preprocessing

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 3, 4, 4)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 2)),),
)


def paint(path: Path, level: int, side: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (level, level, level)).save(path)
    return path


def make_folder(folder: Path, count: int = 3) -> Path:
    for number in range(count):
        paint(folder / "cat" / f"ein Bild {number}.png", 10 * number)
        paint(folder / "dög" / f"{number}.png", 10 * number + 5)
    return folder


def take(folder: Path, out: Path, preprocess: str = "scale=1/255", **options: int) -> tuple[Path, Pictures]:
    source = SampleSource(text=str(folder), preprocess=preprocess)
    path = materialize_samples(source, SIGNATURE, out, **options)
    record = read_pictures(path)
    assert record is not None
    return path, record


def test_class_folders_become_labelled_samples(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pictures")
    shutil.copy(folder / "cat" / "ein Bild 0.png", folder / "cat" / "z copy.png")
    path, record = take(folder, tmp_path / "out")
    arrays = read_arrays(path)
    assert arrays["x"].shape == (6, 3, 4, 4)
    assert np.allclose(arrays["x"][:, 0, 0, 0] * 255, [0, 10, 20, 5, 15, 25])
    assert arrays["labels"].tolist() == [0, 0, 0, 1, 1, 1]
    assert open_samples(SampleRef(path=path), SIGNATURE).count == 6
    assert (record.classes, record.taken, record.copies) == (("cat", "dög"), 6, 1)
    told = record.tell("pictures")
    assert told[0] == f"pictures: 6 pictures by --preprocess {record.preprocess.describe()}"
    assert told[1] == "pictures: labels are 0: cat, 1: dög, in the order of their names"
    assert told[2] == "pictures: left out as copies of others, byte by byte: 1"


def test_of_many_some_are_chosen_and_always_the_same(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pictures", 8)
    (first, record), (second, _) = (take(folder, tmp_path / name, most=6) for name in ("one", "two"))
    assert (record.taken, record.left) == (6, 10)
    assert np.array_equal(read_arrays(first)["x"], read_arrays(second)["x"])
    assert set(read_arrays(first)["labels"].tolist()) == {0, 1}, "not the first ones, which are all of one class"
    assert "6 pictures of 16, chosen by a fixed seed, by --preprocess" in record.tell("p")[0]


def test_what_cannot_be_read_is_left_out_and_named_or_refused_when_it_is_much(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pictures", 10)
    (folder / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    (folder / "cat" / "gone.png").symlink_to("nowhere")
    _, record = take(folder, tmp_path / "out")
    assert (record.taken, record.unreadable_count) == (20, 2)
    assert record.unreadable == (
        "cat/broken.png: Truncated File Read",
        "cat/gone.png: it is a link to a file that is not there",
    )
    (folder / "dög" / "empty.jpg").touch()
    hint = refused(lambda: take(folder, tmp_path / "no"), "3 of 23 pictures of .*: cat/broken.png: Truncated File Read")
    assert not (tmp_path / "no").exists()
    assert "take them out" in hint
    (folder / "dög" / "empty.jpg").unlink()
    assert take(folder, tmp_path / "yes")[1].taken == 20


def test_one_picture_in_two_classes_is_taken_out_of_one(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pictures")
    again = folder / "dög" / "again.png"
    shutil.copy(folder / "cat" / "ein Bild 1.png", again)
    hint = refused(lambda: take(folder, tmp_path / "no"), "1 pictures lie in two classes, such as dög/again.png")
    assert hint == "take each out of the class that it is not of"
    again.unlink()
    assert take(folder, tmp_path / "yes")[1].taken == 6


def test_a_picture_that_is_too_small_to_be_cut_out_of_is_resized(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pictures")
    paint(folder / "cat" / "a small one.png", 1, side=3)
    hint = refused(lambda: take(folder, tmp_path / "no", "crop=4"), "cat/a small one.png: a picture of 3x3 is smaller")
    assert "add resize=4" in hint
    assert take(folder, tmp_path / "yes", "crop=4,resize=4")[1].taken == 7


def test_what_does_not_fit_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, made = make_folder(tmp_path / "pictures"), tmp_path / "made"
    made.mkdir()
    usage = shutil.disk_usage(tmp_path)
    _, record = take(folder, tmp_path / "out")
    preprocess = {"preprocess": store.encode(record.preprocess), "directory": str(made), "limit": 100}
    monkeypatch.setattr(store, "_bound_memory", lambda: None)  # of this process
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=6 * 3 * 4 * 4 * 4))

    def act(limit: int) -> None:
        store.store_in_child(str(folder), None, 2, **(preprocess | {"limit": limit}), progress=lambda _: None)

    assert "fewer pictures" in refused(lambda: act(6), "6 pictures of .3, 4, 4. in float32 take 0.0 GB")
    act(4)


def test_folders_that_calibrate_and_judge_have_one_meaning(tmp_path: Path) -> None:
    first, second = make_folder(tmp_path / "train"), make_folder(tmp_path / "eval", 5)
    made = take(first, tmp_path / "train-made")[0]

    def explain(name: str) -> list[str]:
        return explain_pictures((str(first), made), (str(second), take(second, tmp_path / name)[0]))

    told = explain("eval-made")
    assert told[-1] == f"6 of the 10 pictures of {second} have the same bytes as one of {first}: they judge too well"
    (second / "cat").rename(second / "bird")
    hint = refused(lambda: explain("others"), "eval lacks cat; .*train lacks bird")
    assert "give both folders the same classes, or one --labels FILE" in hint
    (second / "bird").rename(second / "cat")
    assert explain("same")


def test_a_folder_that_calibrates_and_judges_too_is_told_once(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pictures")
    first, second = (take(folder, tmp_path / name)[0] for name in ("first", "second"))
    told = explain_pictures((str(folder), first), (str(folder), second))
    assert told[-1] == f"6 of the 6 pictures of {folder} have the same bytes as one of {folder}: they judge too well"
    assert len(told) == len(set(told)) == 3
    assert explain_pictures((str(folder), first), (str(folder), None)) == told[:-1]


def test_numbers_as_names_are_told_to_be_sorted_as_texts(tmp_path: Path) -> None:
    def tell(names: list[str]) -> str:
        preprocess = take(make_folder(tmp_path / "p", 1), tmp_path / str(len(names)))[1].preprocess
        return "\n".join(Pictures(preprocess=preprocess, classes=tuple(names), order="x", taken=3).tell("p"))

    assert "sorted as texts, 10 before 2" in tell(sorted(map(str, range(11))))
    assert "as texts" not in tell(list(map(str, range(10))))


# How a folder is asked for.


def test_a_folder_of_pictures_is_told_what_says_how_they_become_samples(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "cats and dogs")
    hint = refused(lambda: materialize_samples(str(folder), SIGNATURE, tmp_path / "no"), "is a folder of pictures")
    for preset in ("imagenet", "scale=1/255"):
        assert f"--preprocess {preset}" in hint
        assert take(folder, tmp_path / preset.replace("/", " "), preset)[1].taken == 6
    path = folder / "cat" / "ein Bild 0.png"
    assert "put it into a folder" in refused(
        lambda: materialize_samples(str(path), SIGNATURE, tmp_path / "no"), "one picture"
    )


def test_a_file_of_labels_that_is_not_there_is_given(tmp_path: Path) -> None:
    folder, names = make_folder(tmp_path / "pictures"), tmp_path / "names.txt"

    def act(name: str) -> Path:
        source = SampleSource(text=str(folder), preprocess="scale=1", labels=str(names))
        return materialize_samples(source, SIGNATURE, tmp_path / name)

    assert "one class a line" in refused(lambda: act("no"), "no such file: .*names.txt")
    names.write_text("dög\ncat\n")
    assert read_arrays(act("yes"))["labels"].tolist() == [1, 1, 1, 0, 0, 0]


def test_preprocessing_is_for_pictures(tmp_path: Path) -> None:
    folder = str(make_folder(tmp_path / "pictures"))
    hint = refused(
        lambda: add_preprocessing(["a.npz", None], "imagenet", None), "--preprocess is for pictures, and a.npz"
    )
    assert "leave --preprocess away; or give a folder" in hint
    given = add_preprocessing([folder, "a.npz", None, "f.py:load"], "imagenet", "names.txt")
    assert [source and (source.preprocess, source.labels) for source in given] == [
        ("imagenet", "names.txt"), (None, None), None, ("imagenet", None),
    ]  # fmt: skip
    hint = refused(lambda: add_preprocessing([folder], None, "names.txt"), "--labels is for folders of pictures")
    assert "add --preprocess" in hint
    assert add_preprocessing([folder], "imagenet", "names.txt")


def test_pictures_before_the_model_is_known_are_made_where_all_is_said(tmp_path: Path) -> None:
    source = SampleSource(text=str(make_folder(tmp_path / "p")), preprocess="scale=1")
    hint = refused(lambda: materialize_samples(source, None, tmp_path / "no"), "whose inputs are not known yet")
    assert "--preprocess scale=1,input=NAME,size=224" in hint
    said = SampleSource(text=source.text, preprocess="scale=1,input=pixels,size=6")
    assert read_arrays(materialize_samples(said, None, tmp_path / "yes"))["pixels"].shape == (6, 3, 6, 6)


def test_a_child_that_dies_names_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a decoder does to its process costs that process; the message says during which file."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nfrom PIL import Image\nold = Image.open\n"
        "def open(file, *a, **k):\n    return os.abort() if b'KILL' in file.getvalue() else old(file, *a, **k)\n"
        "Image.open = open\n"
    )
    folder = make_folder(tmp_path / "pictures")
    (folder / "cat" / "poison.png").write_bytes(b"\x89PNG\r\n\x1a\nKILL")
    with pytest.raises(BadInputError, match=r"crashed during cat/poison.png .*SIGABRT"):
        take(folder, tmp_path / "no")
    assert not (tmp_path / "no").exists()
