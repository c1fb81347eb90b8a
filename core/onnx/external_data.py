"""The files in which an ONNX model keeps weights: found, checked and copied. For child processes only.

A model from anywhere names these files, and what it names is read and becomes part of an artifact that goes elsewhere.
So a name is taken only when it leads to a regular file with one name in the model's own folder, and it is opened step
by step from there, so that nothing that changes meanwhile leads out. onnx, onnx-ir and ONNX Runtime check as well, each
something else, and while they load. onnx's own opener is private, and takes no links inside the folder.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

from modelwright.core.errors import BadInputError
from modelwright.core.onnx.walk import iterate_tensors

_EXTERNAL = 1
"""`onnx.TensorProto.EXTERNAL`."""
_NUMBER = re.compile(r"[0-9]{1,18}")
"""Fewer digits than 64 bits hold: what other readers, in C++, take for the same number."""
_SHOWN_CHARACTERS = 120
_COPIED_BYTES = 2**22
_UNTRUSTED_HINT = "do not use this model unless you trust its maker; save it again with the data next to it"


def find_external_files(path: Path, model: Any) -> list[str]:
    """Returns the names of the files with the model's weights, relative to its folder, each once; reads no weights.

    Args:
        path: The model's file.
        model: What `onnx.load(path, load_external_data=False)` gives.

    Raises:
        BadInputError: One is missing, cut off, or not a file of the model's own folder alone.
    """
    sizes: dict[str, int] = {}
    for tensor in iterate_tensors(model):
        if tensor.data_location != _EXTERNAL:
            continue
        what = f"{path}: the data of {_show(tensor.name) or 'a tensor'}"
        entries = _read_entries(tensor, what)
        name = _require_inside(entries.get("location", ""), what)
        if name not in sizes:
            with open_external_file(path, name, what) as file:
                sizes[name] = os.fstat(file.fileno()).st_size
        _require_long_enough(entries, sizes[name], f"{path}: {_show(name)}", _show(tensor.name))
    return list(sizes)


def copy_external_files(path: Path, names: Iterable[str], folder: Path) -> None:
    """Copies the files that `find_external_files` found for a model to the same names under another folder.

    Copies, not links: onnx refuses data files with more than one name.

    Raises:
        BadInputError: A file is not any more what was found.
    """
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_external_file(path, name, f"{path}: a tensor's data") as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy, _COPIED_BYTES)


def rename_external_files(model: Any, folder: Path, names: Mapping[str, str]) -> None:
    """Gives files that `copy_external_files` copied other names, and says so in the model, which is not saved.

    Args:
        model: What `onnx.load(path, load_external_data=False)` gives.
        folder: Where the copies lie.
        names: Old name -> new one, as `find_external_files` returns them.
    """
    for old, new in names.items():
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / old).rename(folder / new)
        for parent in PurePosixPath(old).parents[:-1]:
            if not any((folder / parent).iterdir()):
                (folder / parent).rmdir()
    for tensor in iterate_tensors(model):
        for entry in tensor.external_data:
            if tensor.data_location == _EXTERNAL and entry.key == "location":
                location = str(PurePosixPath(entry.value))
                entry.value = names.get(location, entry.value)


@contextmanager
def open_external_file(path: Path, name: str, what: str) -> Iterator[BinaryIO]:
    """Opens a file in the folder of a model, or below it.

    Args:
        path: The model's file.
        name: Relative to the model's folder; links that stay there are followed.
        what: Begins the messages.

    Raises:
        BadInputError: It is missing, lies elsewhere, or is not a regular file with one name.
    """
    folder, shown = path.parent.resolve(), _show(name)
    try:
        inside = (path.parent / name).resolve(strict=True).relative_to(folder)
        descriptor = _descend(folder, inside)
    except ValueError as error:
        raise BadInputError(
            f"{what} lies in {shown}, a link that leaves the model's folder",
            hint="copy the model with its data, links resolved: cp -rL FOLDER OTHER_FOLDER",
        ) from error
    except FileNotFoundError as error:
        raise BadInputError(f"{what} should lie in {shown}, which is missing", hint=f"put it into {folder}") from error
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInputError(f"{what} should lie in {shown}, which cannot be read: {reason}") from error
    with os.fdopen(descriptor, "rb") as file:
        found, own = os.fstat(descriptor), path.stat()
        if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
            raise BadInputError(f"{what} lies in {shown}, which is the model itself", hint=_UNTRUSTED_HINT)
        if found.st_nlink > 1:
            raise BadInputError(
                f"{what} lies in {shown}, a file with {found.st_nlink} names (hard links): it may be another's",
                hint="copy the model with its data, links resolved: cp -rL FOLDER OTHER_FOLDER",
            )
        yield file


def _descend(folder: Path, inside: Path) -> int:
    """Opens a regular file step by step below a folder and follows no link: a path checked before may be one by now."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in inside.parts:
            # A pipe without a writer would be waited for.
            inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is not a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read_entries(tensor: Any, what: str) -> dict[str, str]:
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        # protobuf hands over `bytes` for what is not UTF-8; of two values, readers differ in which one they take.
        if isinstance(entry.key, bytes) or isinstance(entry.value, bytes) or entry.key in entries:
            raise BadInputError(f"{what} is described twice or in no text", hint="download or export the model again")
        entries[entry.key] = entry.value
    return entries


def _require_inside(location: str, what: str) -> str:
    """Returns the path that a location stands for, if every reader on every system takes it for one in the folder.

    Refused as well: hidden files, which a copy would put where shells and editors look for theirs; and `*`, with which
    ONNX Runtime marks tensors that lie at an address in memory.
    """
    path, windows = PurePosixPath(location), PureWindowsPath(location)
    is_folder = location.rpartition("/")[2] in ("", ".")  # what a path forgets and others refuse
    is_plain = not any(character in "\\*" or unicodedata.category(character)[0] == "C" for character in location)
    if not is_plain or is_folder or path.is_absolute() or windows.anchor or ".." in path.parts:
        shown = _show(location) or "no place"
        raise BadInputError(
            f"{what} lies at {shown}, outside the model's folder or under no plain name", hint=_UNTRUSTED_HINT
        )
    if any(part.startswith(".") for part in path.parts):
        raise BadInputError(f"{what} lies at {_show(location)}, a hidden file", hint=_UNTRUSTED_HINT)
    return str(path)


def _require_long_enough(entries: dict[str, str], size: int, what: str, tensor: str) -> None:
    offset, length = entries.get("offset", "0"), entries.get("length", "0")
    if not (_NUMBER.fullmatch(offset) and _NUMBER.fullmatch(length)):
        raise BadInputError(f"{what}: {tensor} has an unreadable offset or length")
    end = int(offset) + int(length)
    if end > size:
        raise BadInputError(
            f"{what} is cut off: {tensor} ends at byte {end}, the file has {size}",
            hint="download or export the model again, with its data",
        )


def _show(name: str | bytes) -> str:
    """Returns a name for a message: shortened, and nothing in it that a terminal obeys."""
    text = name if isinstance(name, str) and name.isprintable() else repr(name)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
