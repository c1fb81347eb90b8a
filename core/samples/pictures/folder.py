"""A folder of pictures, listed: which files are pictures, which class each is of, and what order the classes have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelwright.core.errors import BadInputError

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
CLASSES_FILE = "classes.txt"
NO_LABELS = "none"
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\x00", b"MM\x00*")
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "eval", "calibration"})
_LONGEST_FILE = 4 * 2**20
_LONGEST_NAME = 200
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The pictures of a folder.

    Attributes:
        files: In the order of their classes and names.
        numbers: Class of each; None without labels.
        classes: Names of the classes 0, 1, ...; None without labels.
        order: What put them into this order.
        others: Files that are no pictures, by their names.
        lonely: The one folder that all pictures are in, which says nothing of classes.
    """

    files: tuple[Path, ...]
    numbers: tuple[int, ...] | None = None
    classes: tuple[str, ...] | None = None
    order: str | None = None
    others: tuple[str, ...] = ()
    lonely: str | None = None


def holds_pictures(folder: Path) -> bool:
    """Whether a folder is one of pictures by the names in it: for saying so before any is read."""
    return folder.is_dir() and not any(folder.glob("*.npy")) and next(_find_by_name(folder), None) is not None


def _find_by_name(folder: Path) -> Iterator[Path]:
    return (path for path in _walk(folder, set()) if path.suffix.lower() in SUFFIXES)


def list_pictures(folder: Path, *, labels: str | None = None, class_count: int | None = None) -> Listing:
    """Lists the pictures of a folder: those of each folder in it are a class, at any depth.

    Args:
        folder: The folder.
        labels: A file with the names of classes in the model's order, one a line; `none` where folders are no classes;
            None takes `classes.txt` in the folder where there is one, else the sorted names.
        class_count: Of the model; None where it is not known.

    Raises:
        BadInputError: No pictures, some in class folders and some beside them, or classes that are not the model's.
    """
    files: list[Path] = []
    others: list[Path] = []
    for path in sorted(_walk(folder, set()), key=lambda path: path.relative_to(folder).parts):
        if path == folder / CLASSES_FILE:
            continue
        (files if _is_picture(path) else others).append(path)
    told = tuple(path.relative_to(folder).as_posix() for path in others)
    if not files:
        more = f", but {len(told)} other files, such as {told[0]}" if told else ""
        raise BadInputError(
            f"{folder} holds no pictures{more}",
            hint=f"give a folder with some: {', '.join(sorted(SUFFIXES))}",
        )
    if labels == NO_LABELS:
        return Listing(files=tuple(files), others=told)
    tops = [path.relative_to(folder).parts[0] if path.parent != folder else None for path in files]
    names = sorted({top for top in tops if top is not None})
    _require_classes_only(folder, tops, names)
    own = Path(labels) if labels else (folder / CLASSES_FILE if (folder / CLASSES_FILE).is_file() else None)
    if not names:
        if labels is not None:
            raise BadInputError(
                f"{labels} names classes, and the pictures of {folder} lie in no class folders",
                hint=f"put those of each class into a folder of its own: {folder / 'NAME'}",
            )
        return Listing(files=tuple(files), others=told)
    if own is None and len(names) == 1:
        return Listing(files=tuple(files), others=told, lonely=names[0])
    classes = tuple(names) if own is None else _read_classes(own, names)
    if class_count is not None and class_count != len(classes):
        _refuse_count(folder, own, len(classes), class_count)
    number = {name: place for place, name in enumerate(classes)}
    return Listing(
        files=tuple(files),
        numbers=tuple(number[top] for top in tops if top is not None),
        classes=classes,
        order="their names" if own is None else own.name[:_LONGEST_NAME],
        others=told,
    )


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yields files below a folder: links to folders are followed once, hidden names and clutter left out."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith(".") or entry.name.lower() in _CLUTTER:
            continue
        path = folder / entry.name
        if path.is_dir():
            yield from _walk(path, seen)
        else:
            yield path


def _is_picture(path: Path) -> bool:
    """Whether a file is one by its name or its first bytes; a picture that turns out to be none is told as such."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(16)
    return head.startswith(_MAGIC) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


def _require_classes_only(folder: Path, tops: list[str | None], names: list[str]) -> None:
    if None in tops and names:
        beside = tops.count(None)
        raise BadInputError(
            f"{folder} holds {beside} pictures beside the folders {', '.join(names[:_NAMED])}: they are of no class",
            hint="put them into folders of their classes, or all pictures into one folder without others",
        )
    # What trains comes first: it calibrates.
    splits = sorted(
        (name for name in names if name.lower() in _SPLITS), key=lambda name: not name.lower().startswith("train")
    )
    if splits and len(splits) == len(names):
        others = f" --eval {folder / splits[1]}" if len(splits) > 1 else ""
        raise BadInputError(
            f"the folders of {folder} are parts of a data set, not classes: {', '.join(names)}",
            hint=f"give --samples {folder / splits[0]}{others}",
        )
    for name in names:
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            raise BadInputError(f"the folder {name!r:.80} has a name that cannot be printed", hint="rename it")


def _read_classes(path: Path, names: list[str]) -> tuple[str, ...]:
    """Returns the classes of a file, by the names of their folders where they have one.

    A line is a folder's name, or begins with it: `n01440764 tench, Tinca tinca`.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST_FILE + 1)
        if len(text) > _LONGEST_FILE:
            raise ValueError(f"it is larger than {_LONGEST_FILE / 2**20:.0f} MiB")
        lines = [line.strip() for line in text.decode("utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"{path} cannot be read as names of classes: {error}", hint="write one name a line, in UTF-8"
        ) from error
    known = set(names)
    classes = tuple(
        line if line in known else next((word for word in line.split()[:1] if word in known), line[:_LONGEST_NAME])
        for line in lines
    )
    twice = sorted({name for name in classes if classes.count(name) > 1}) if len(set(classes)) < len(classes) else []
    if twice:
        raise BadInputError(f"{path} names a class twice: {', '.join(twice[:_NAMED])}", hint="give each class one line")
    missing = [name for name in names if name not in set(classes)]
    if missing:
        raise BadInputError(
            f"{path} does not name the class folders {', '.join(missing[:_NAMED])}",
            hint=f"write every folder's name on a line, in the order of the model's output; it has {len(lines)} lines, "
            f"such as {', '.join(lines[:2])}",
        )
    return classes


def _refuse_count(folder: Path, own: Path | None, found: int, wanted: int) -> None:
    if own is None:
        raise BadInputError(
            f"{folder} has {found} class folders, the model {wanted} classes: which is which is not known",
            hint="add --labels FILE with the names of all the model's classes in their order, one a line, each "
            "beginning with its folder's name; or --labels none where its output is no classes",
        )
    raise BadInputError(
        f"{own} names {found} classes, the model has {wanted}",
        hint="write a line for each output of the model, in their order; a class without a folder, such as "
        "`background`, too",
    )
