"""Which files are pictures, of which class, and in which order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from refusing import refused

from modelwright.core.samples.pictures.folder import holds_pictures, list_pictures

PNG = b"\x89PNG\r\n\x1a\n"


def put(folder: Path, *names: str, content: bytes = PNG) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    put(tmp_path, "zebra/b.png", "zebra/deep/a.JPG", "Ärger/x y.webp", "cat/1.png")
    put(
        tmp_path,
        "zebra/.DS_Store",
        "cat/Thumbs.db",
        ".hidden/a.png",
        "__MACOSX/a.png",
        "cat/._1.png",
        "cat/desktop.ini",
    )
    put(tmp_path, "cat/notes.txt", "cat/archive", content=b"no picture")
    put(tmp_path, "cat/unnamed", content=b"\xff\xd8\xff\xe0")
    listing = list_pictures(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in listing.files] == [
        "cat/1.png", "cat/unnamed", "zebra/b.png", "zebra/deep/a.JPG", "Ärger/x y.webp",
    ]  # fmt: skip
    assert listing.classes == ("cat", "zebra", "Ärger")
    assert listing.numbers == (0, 0, 1, 1, 2)
    assert listing.order == "their names"
    assert listing.others == ("cat/archive", "cat/notes.txt")


def test_a_flat_folder_has_no_labels_and_nor_has_one_class(tmp_path: Path) -> None:
    flat = list_pictures(put(tmp_path / "flat", "b.png", "a.png"))
    assert ([path.name for path in flat.files], flat.numbers) == (["a.png", "b.png"], None)
    lonely = list_pictures(put(tmp_path / "lonely", "cat/a.png"))
    assert (lonely.classes, lonely.lonely) == (None, "cat")
    ignored = list_pictures(put(tmp_path / "other", "a/a.png", "b/b.png"), labels="none")
    assert (len(ignored.files), ignored.classes) == (2, None)


def test_links_are_followed_once_and_pipes_are_not_read(tmp_path: Path) -> None:
    store = put(tmp_path / "store", "a.png", "b.png")
    folder = tmp_path / "pictures"
    (folder / "cat").mkdir(parents=True)
    (folder / "dog").symlink_to(store)
    (folder / "cat" / "a.png").symlink_to(store / "a.png")
    (folder / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "cat" / "again").symlink_to(folder)
    os.mkfifo(folder / "cat" / "pipe")
    listing = list_pictures(folder)
    names = [path.relative_to(folder).as_posix() for path in listing.files]
    assert names == ["cat/a.png", "cat/gone.png", "dog/a.png", "dog/b.png"]
    assert listing.others == ("cat/pipe",)


def test_a_file_gives_the_order_of_the_classes(tmp_path: Path) -> None:
    folder = put(tmp_path / "pictures", "n02/a.png", "n01/a.png", "big cat/a.png")
    names = tmp_path / "labels.txt"
    names.write_text("background\nn02 tench, Tinca tinca\nbig cat\n\nn01 goldfish\n", encoding="utf-8-sig")
    listing = list_pictures(folder, labels=str(names), class_count=4)
    assert listing.classes == ("background", "n02", "big cat", "n01")
    assert listing.numbers == (2, 3, 1), "big cat, n01, n02"
    assert listing.order == "labels.txt"
    (folder / "classes.txt").write_text("n01\nn02\nbig cat\n")
    own = list_pictures(folder)
    assert (own.classes, own.order, own.others) == (("n01", "n02", "big cat"), "classes.txt", ())


def test_arrays_and_files_are_no_folder_of_pictures(tmp_path: Path) -> None:
    assert holds_pictures(put(tmp_path / "a", "deep/er/a.png"))
    assert not holds_pictures(put(tmp_path / "b", "x.npy", "a.png"))
    assert not holds_pictures(put(tmp_path / "c", "a.txt"))
    assert not holds_pictures(tmp_path / "a" / "deep" / "er" / "a.png")


# What is refused, and then done as told.


def test_a_folder_without_pictures_is_given_as_another(tmp_path: Path) -> None:
    hint = refused(
        lambda: list_pictures(put(tmp_path, "a.txt", content=b"x")), "no pictures, but 1 other files, such as a.txt"
    )
    assert ".png" in hint
    assert list_pictures(put(tmp_path, "a.png")).files


def test_pictures_beside_class_folders_are_moved(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "cat/b.png")
    hint = refused(lambda: list_pictures(tmp_path), "holds 1 pictures beside the folders cat: they are of no class")
    assert "put them into folders of their classes" in hint
    (tmp_path / "dog").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "dog" / "a.png")
    assert list_pictures(tmp_path).classes == ("cat", "dog")


def test_parts_of_a_data_set_are_given_one_by_one(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/a.png", "train/dog/b.png", "eval/cat/c.png", "eval/dog/d.png")
    hint = refused(lambda: list_pictures(tmp_path), "are parts of a data set, not classes: eval, train")
    assert hint == f"give --samples {tmp_path / 'train'} --eval {tmp_path / 'eval'}"
    assert list_pictures(tmp_path / "train").classes == ("cat", "dog")


def test_a_folder_whose_name_steers_the_terminal_is_renamed(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "do\x1b[31mg/a.png")
    assert refused(lambda: list_pictures(tmp_path), "cannot be printed") == "rename it"
    (tmp_path / "do\x1b[31mg").rename(tmp_path / "dog")
    assert list_pictures(tmp_path).classes == ("cat", "dog")


def test_which_folder_is_which_of_the_models_classes_is_said(tmp_path: Path) -> None:
    folder, names = put(tmp_path / "p", "n1/a.png", "n2/a.png"), tmp_path / "names.txt"
    hint = refused(lambda: list_pictures(folder, class_count=3), "has 2 class folders, the model 3 classes")
    assert "--labels FILE" in hint
    assert list_pictures(folder, labels="none", class_count=3).files
    names.write_text("n1\nn2\n")
    hint = refused(lambda: list_pictures(folder, labels=str(names), class_count=3), "names 2 classes, the model has 3")
    assert "`background`" in hint
    names.write_text("background\nn1\nn2\n")
    assert list_pictures(folder, labels=str(names), class_count=3).numbers == (1, 2)


@pytest.mark.parametrize(
    ("content", "words", "told"),
    [
        (b"cat\n", "does not name the class folders dog", "write every folder's name"),
        (b"cat\ndog\ncat\n", "names a class twice: cat", "give each class one line"),
        (b"\xff\xfe\x00", "cannot be read as names of classes", "one name a line, in UTF-8"),
    ],
)
def test_a_file_of_classes_is_mended(tmp_path: Path, content: bytes, words: str, told: str) -> None:
    folder, names = put(tmp_path / "p", "cat/a.png", "dog/a.png"), tmp_path / "names.txt"
    names.write_bytes(content)
    assert told in refused(lambda: list_pictures(folder, labels=str(names)), words)
    names.write_text("dog\ncat\n")
    assert list_pictures(folder, labels=str(names)).numbers == (1, 0)


def test_names_of_classes_need_class_folders(tmp_path: Path) -> None:
    folder, names = put(tmp_path / "p", "a.png", "b.png"), tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    hint = refused(lambda: list_pictures(folder, labels=str(names)), "lie in no class folders")
    assert "put those of each class into a folder" in hint
    for old, new in (("a.png", "cat"), ("b.png", "dog")):
        (folder / new).mkdir()
        (folder / old).rename(folder / new / old)
    assert list_pictures(folder, labels=str(names)).classes == ("cat", "dog")
