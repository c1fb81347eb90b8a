"""The weights of a transformers folder: safetensors, whole or in shards, read tensor by tensor and never all at once.

Headers are read by ourselves: where each tensor lies is checked against the file before a byte of it is believed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json
from modelwright.exporters.language.folder_files import has_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_HEADER_BYTES = 100 * 2**20
"""The format's own limit."""
_DIMENSIONS = 8
_ALIGNMENT = 8
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Which of the format's types are floats -> how numpy reads their bytes; bfloat16 as what it is above 16 zero bits."""
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_HINT = "download the folder again, or save the model again with save_pretrained"


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where a tensor lies.

    Attributes:
        file: That holds it.
        dtype: As the format spells it, such as `BF16`.
        shape: Of it.
        offset: From the beginning of the file, in bytes.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """In the file."""
        return self.count * _SIZES.get(self.dtype, 1)

    def read(self) -> NDArray[np.float32]:
        """Returns its values as float32."""
        return self._read_rows(0, self.count).reshape(self.shape)

    def read_blocks(self, numbers: int) -> Iterator[NDArray[np.float32]]:
        """Yields its values in order as float32, so many at a time, without dimensions."""
        for start in range(0, self.count, numbers):
            yield self._read_rows(start, min(numbers, self.count - start))

    def _read_rows(self, start: int, count: int) -> NDArray[np.float32]:
        stored = np.dtype(_FLOATS[self.dtype])
        found = np.fromfile(self.file, stored, count, offset=self.offset + start * stored.itemsize)
        if found.size != count:
            raise BadInputError(f"{self.file} became shorter while it was read", hint=_HINT)
        if self.dtype == "BF16":
            return (found.astype(np.uint32) << 16).view(np.float32)
        return found.astype(np.float32, copy=False)


def find_weight_files(folder: Path) -> list[str]:
    """Returns the names of the files of weights, the index first where there is one.

    Raises:
        BadInputError: None, pickled ones, or a shard that is missing.
    """
    if has_file(folder, INDEX_FILE):
        shards = sorted({str(name) for name in _read_index(folder).values()})
        missing = [name for name in shards if not has_file(folder, name)]
        if missing:
            raise BadInputError(
                f"{folder / INDEX_FILE} names {len(shards)} files of weights, and of these {len(missing)} are not in "
                f"the folder: {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}",
                hint="download what is missing into the folder, as a file and not as a link",
            )
        return [INDEX_FILE, *shards]
    if has_file(folder, SINGLE_FILE):
        return [SINGLE_FILE]
    pickled = sorted(path.name for path in folder.glob("*.bin"))[:3]
    if pickled:
        raise BadInputError(
            f"{folder} has its weights in {', '.join(pickled)}, which runs code when it is read",
            hint="add --trust if you trust who made it, and only its weights are read; or load it where you trust it, "
            "and save it with save_pretrained, which writes safetensors",
        )
    raise BadInputError(f"{folder} has no weights: expected {SINGLE_FILE} or {INDEX_FILE}", hint=_HINT)


def open_weights(folder: Path, prefix: str = "") -> dict[str, StoredTensor]:
    """Returns every tensor of a folder: name -> where it lies.

    Args:
        folder: That holds them.
        prefix: What names begin with, but for a head's: put before them where no name begins so, as in files of a
            model that was saved without its head.

    Raises:
        BadInputError: Files that are missing, damaged, or not what the index says.
    """
    names = find_weight_files(folder)
    tensors: dict[str, StoredTensor] = {}
    for name in names:
        if name != INDEX_FILE:
            tensors.update(_read_header(folder / name))
    if names[0] == INDEX_FILE:
        lost = [tensor for tensor in _read_index(folder) if tensor not in tensors]
        if lost:
            raise BadInputError(
                f"{folder / INDEX_FILE} lists tensors that its files lack: {', '.join(lost[:3])}", hint=_HINT
            )
    if not any(name.startswith(prefix) for name in tensors):
        return {name if name.startswith("lm_head.") else prefix + name: tensor for name, tensor in tensors.items()}
    return tensors


def make_header(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[bytes, dict[str, int]]:
    """Returns what a file begins with whose tensors lie one after the other, and where each begins in the file.

    Args:
        shapes: Name -> type, as the format spells it, and shape; in the order of the file.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        start, end = end, end + _SIZES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, {
        name: 8 + len(text) + header[name]["data_offsets"][0] for name in shapes
    }


def _read_index(folder: Path) -> Mapping[str, Any]:
    path = folder / INDEX_FILE
    places = read_json(path, "the index of sharded weights").get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()) or not places:
        raise BadInputError(f"{path}: weight_map: expected the name of a file for each tensor", hint=_HINT)
    return places


def _read_header(path: Path) -> dict[str, StoredTensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if start.startswith(b"version"):
            raise BadInputError(f"{path} is a git-LFS pointer, not the weights themselves", hint="run `git lfs pull`")
        if len(start) < 8 or not 2 <= length <= min(_HEADER_BYTES, size - 8):
            raise BadInputError(f"{path} is no safetensors file, or a part of one: its header does not fit", hint=_HINT)
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise BadInputError(f"{path} is no safetensors file: its header is no JSON", hint=_HINT) from error
    if not isinstance(header, dict):
        raise BadInputError(f"{path} is no safetensors file: its header is no object", hint=_HINT)
    header.pop("__metadata__", None)
    return {str(name): _place_tensor(path, str(name), entry, 8 + length, size) for name, entry in header.items()}


def _place_tensor(path: Path, name: str, entry: Any, start: int, size: int) -> StoredTensor:
    if isinstance(entry, dict):
        shape, places, dtype = entry.get("shape"), entry.get("data_offsets"), entry.get("dtype")
        is_named = isinstance(dtype, str) and dtype.isidentifier()
        if is_named and _are_counts(shape) and _are_counts(places) and len(places) == 2:
            first, end = places
            tensor = StoredTensor(file=path, dtype=str(dtype)[:8], shape=tuple(shape), offset=start + first)
            fits = first <= end and start + end <= size
            if fits and (dtype not in _SIZES or tensor.size_bytes == end - first):
                return tensor
    raise BadInputError(
        f"{path}: the tensor {name[:100]!r} does not lie inside the file as its header says", hint=_HINT
    )


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return (
        isinstance(values, list)
        and len(values) <= _DIMENSIONS
        and all(type(value) is int and 0 <= value < 2**48 for value in values)
    )


def is_float(tensor: StoredTensor) -> bool:
    """Whether it holds floats that are read."""
    return tensor.dtype in _FLOATS
