"""Files that are not ONNX although they are called so, told by their first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from modelwright.core.errors import BadInputError

_HEAD_BYTES = 1024
_LFS = b"version https://git-lfs"
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (4, b"TFL3", "a TFLite model"),
    (4, b"ORTM", "a model in ONNX Runtime's own format (.ort)"),
    (0, b"\x89HDF\r\n", "an HDF5 file, as Keras saves them"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x80\x02", "a pickle, as PyTorch saved them"),
    (0, b"\x80\x04", "a pickle"),
    (0, b"ftrt", "a TensorRT engine"),
    (0, b"ptrt", "a TensorRT engine"),
    (0, b"\x7fELF", "a program"),
)
_NOT_ONNX_HINT = "give the ONNX file itself; a PyTorch model is given as FILE.py:FUNCTION or model.pt2"


def refuse_other_files(path: Path) -> None:
    """Refuses a file whose first bytes say that it is not ONNX. Cheap: reads 1 KiB.

    Raises:
        BadInputError: Missing, unreadable, empty, a git-LFS pointer, or another format; says which.
    """
    if path.exists() and not path.is_file():
        raise BadInputError(f"{path} is not a regular file", hint=_NOT_ONNX_HINT)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise BadInputError(f"no such model: {path}") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise BadInputError(f"{path} is empty (0 bytes)", hint="download or export it again")
    if head.startswith(_LFS):
        raise BadInputError(
            f"{path} is a git-LFS pointer, not the model itself", hint="fetch the real file with `git lfs pull`"
        )
    found = name_format(path, head)
    if found is not None:
        raise BadInputError(f"{path} is {found}, not an ONNX model", hint=_NOT_ONNX_HINT)


def name_format(path: Path, head: bytes) -> str | None:
    """Returns what a file is by its first bytes, or None when it may be ONNX."""
    for offset, magic, name in _SIGNATURES:
        if head[offset:].startswith(magic):
            return name
    if head.startswith(b"PK\x03\x04"):
        return _name_archive(path)
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page (a download that went wrong)"
    if start.startswith(b"<?xml"):
        return "an XML file"
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 0 < length < path.stat().st_size:
        return "a safetensors file: weights without a network"
    return "a text file" if _is_text(head) else None


def _name_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return "a ZIP archive"
    if any(name.endswith("archive_format") for name in names):
        return "a torch.export program (call it .pt2)"
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch checkpoint"
    return "a ZIP archive"


def _is_text(head: bytes) -> bool:
    """Whether the start is printable; ONNX starts with a field number below 32 and has more of them."""
    printable = bytes(range(32, 127)) + b"\t\r\n"
    return not head.translate(None, printable)
