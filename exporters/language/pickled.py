"""Weights that PyTorch pickled, for users who trust them: read as weights alone, and written as safetensors.

torch's reader is told to make tensors and nothing else: what would run code is refused, whoever is trusted. Files are
mapped, and one tensor after the other is written, so that memory holds little more than one.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json
from modelwright.exporters.language.folder_files import has_file
from modelwright.exporters.language.safetensors_files import SINGLE_FILE, make_header

PICKLED_FILE = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
_COPIED = (".json", ".txt", ".model", ".jinja")
_HINT = "download the folder again, or take one with safetensors"
_DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}


def list_pickled(folder: Path) -> list[str]:
    """Returns the names of a folder's pickled files, the index first where there is one; none where there are none.

    Raises:
        BadInputError: One of them is missing.
    """
    if not has_file(folder, PICKLED_INDEX):
        return [PICKLED_FILE] if has_file(folder, PICKLED_FILE) else []
    places = read_json(folder / PICKLED_INDEX, "the index of sharded weights").get("weight_map")
    names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    missing = [name for name in names if not has_file(folder, name)]
    if missing or not names:
        raise BadInputError(
            f"{folder / PICKLED_INDEX} names {', '.join(missing[:3]) or 'no file'}, which is not in the folder",
            hint=_HINT,
        )
    return [PICKLED_INDEX, *names]


def open_pickled(path: Path) -> Mapping[str, Any]:
    """Returns the tensors of a file by name, mapped where the file allows it; runs no code of it.

    Raises:
        BadInputError: It holds anything else, or is damaged.
    """
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # pickle's, zipfile's and torch's own
        raise BadInputError(
            f"{path} holds something else than weights, or a part of them: it is not read, as that would run its code",
            hint=_HINT,
            detail=str(error),
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise BadInputError(f"{path} holds no weights by name", hint=_HINT)
    return {str(name): value for name, value in found.items()}


def make_folder(path: str, directory: str, progress: Callable[[str], None]) -> None:
    """Writes a folder of transformers with the weights of another one as safetensors; for the child that has torch.

    Args:
        path: The folder with pickled weights.
        directory: An empty folder.
        progress: Takes the phase that begins.

    Raises:
        BadInputError: The weights cannot be used.
    """
    source, out = Path(path), Path(directory)
    pickled = list_pickled(source)
    for file in source.iterdir():
        if file.name not in pickled and file.suffix in _COPIED and has_file(source, file.name):
            shutil.copyfile(file, out / file.name)
    tensors: dict[str, Any] = {}
    for name in pickled:
        if name != PICKLED_INDEX:
            progress(f"reading {name}, as weights alone")
            tensors |= open_pickled(source / name)
    unknown = sorted({str(tensor.dtype) for tensor in tensors.values()} - set(_DTYPES))
    if unknown:
        raise BadInputError(f"{source}: weights of the type {unknown[0]} are not read", hint=_HINT)
    progress("writing the weights as safetensors")
    shapes = {name: (_DTYPES[str(tensor.dtype)], tuple(tensor.shape)) for name, tensor in tensors.items()}
    header, _ = make_header(shapes)
    import torch

    with (out / SINGLE_FILE).open("wb") as written:
        written.write(header)
        for tensor in tensors.values():
            written.write(memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()))
