"""Sample files on disk: arrays mapped from `.npz` archives and folders of `.npy` files, damaged ones refused."""

from __future__ import annotations

import math
import os
import shutil
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError
from modelwright.core.scratch import scratch_directory
from modelwright.core.system_errors import describe_os_error

Array = npt.NDArray[Any]

_BLOCK_BYTES = 16 * 2**20
_MOST_ARRAYS = 1000
"""No model has so many inputs, and each array is a file that is held open."""
_BOMB_BYTES = 2**30
_BOMB_RATIO = 100
"""What unpacks to more than both of these would fill the disk unasked; real samples do not compress like that."""
_SHOWN_CHARACTERS = 300
_DAMAGE = (
    ValueError,
    EOFError,
    OverflowError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise on files that are not what they claim; RuntimeError for encrypted archives."""


def read_arrays(path: Path, *, checked: bool = False) -> dict[str, Array]:
    """Maps every array of a `.npz` file or of a folder of `.npy` files.

    Raises:
        BadInputError: The file is missing, empty, truncated, or holds pickled objects.
    """
    if not path.exists():
        raise BadInputError(
            f"no such sample file: {path}",
            hint="give a .npz keyed by input name, or file.py:function that yields dicts",
        )
    try:
        if path.is_dir():
            files = sorted(path.glob("*.npy"))
            _require_few(len(files))
            arrays = {unquote(file.stem): _map_npy(file) for file in files}
        elif path.suffix == ".npz" and path.is_file():
            arrays = _map_npz(path, checked=checked)
        else:
            raise BadInputError(
                f"{path} is no sample file, which is one whose name ends in .npz",
                hint="save one with numpy: numpy.savez('samples.npz', input_name=array)",
            )
    except OSError as error:
        # A compressed array is unpacked into the folder for temporary files, which may be full.
        raise describe_os_error(error) or BadInputError(f"{path} cannot be read as samples: {error}") from error
    except _DAMAGE as error:
        raise BadInputError(
            f"{path} cannot be read as samples: {str(error)[:_SHOWN_CHARACTERS]}",
            hint="save it again with numpy.savez('samples.npz', input_name=array); no object arrays",
        ) from error
    if not arrays:
        raise BadInputError(f"{path} holds no arrays", hint="numpy.savez('samples.npz', input_name=array)")
    return arrays


def read_array(path: Path) -> Array:
    """Maps a `.npy` file.

    Raises:
        BadInputError: It is damaged, or holds pickled objects.
    """
    try:
        return _map_npy(path)
    except (OSError, *_DAMAGE) as error:
        raise BadInputError(
            f"{path} cannot be read as an array: {str(error)[:_SHOWN_CHARACTERS]}",
            hint="save it again with numpy.save; no object arrays",
        ) from error


def is_compressed(path: Path) -> bool:
    """Whether a `.npz` file holds compressed arrays, which cannot be mapped; False for what is not a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist())
    except _DAMAGE:
        return False


def unpack_archive(path: Path, directory: Path) -> Path:
    """Unpacks a `.npz` file into a folder of `.npy` files, so that every process maps it instead of unpacking it.

    Raises:
        BadInputError: The archive is damaged.
    """
    directory.mkdir(parents=True)
    try:
        with zipfile.ZipFile(path) as archive:
            require_sound(archive)
            for info in archive.infolist():
                target = directory / array_file_name(info.filename.removesuffix(".npy"))
                with archive.open(info) as member, target.open("wb") as file:
                    shutil.copyfileobj(member, file, _BLOCK_BYTES)
    except _DAMAGE as error:
        raise BadInputError(
            f"{path} cannot be read as samples: {str(error)[:_SHOWN_CHARACTERS]}",
            hint="save it again with numpy.savez, uncompressed",
        ) from error
    return directory


def require_sound(archive: zipfile.ZipFile) -> None:
    """Refuses an archive of arrays in which readers find different ones, or that is much larger than it looks.

    Raises:
        ValueError: An array is there twice, there are thousands, or one unpacks to a multiple of the archive.
    """
    members = archive.infolist()
    names: set[str] = set()
    for info in members:
        name = info.filename.removesuffix(".npy")
        if name in names:
            raise ValueError(f"the array {name} is there twice")
        names.add(name)
    _require_few(len(members))
    packed, unpacked = sum(info.compress_size for info in members), sum(info.file_size for info in members)
    if unpacked > max(_BOMB_BYTES, _BOMB_RATIO * packed):
        raise ValueError(f"its {packed / 1e6:,.1f} MB would unpack to {unpacked / 1e6:,.0f} MB")


def _require_few(count: int) -> None:
    if count > _MOST_ARRAYS:
        raise ValueError(f"it holds {count:,} arrays, more than any model has inputs")


def array_file_name(name: str) -> str:
    """Returns the file name of an input's array in a sample folder; input names may hold any character."""
    return quote(name, safe="") + ".npy"


def _map_npy(path: Path) -> Array:
    if not path.is_file():  # a pipe, which would be waited for
        raise ValueError(f"{path.name} is not a regular file")
    return cast(Array, np.load(path, mmap_mode="r", allow_pickle=False))


def _map_npz(path: Path, *, checked: bool) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    with zipfile.ZipFile(path) as archive:
        require_sound(archive)
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if info.compress_type == zipfile.ZIP_STORED:
                arrays[name] = _map_stored_member(path, archive, info, checked=checked)
            else:
                arrays[name] = _map_unpacked_member(archive, info)
    return arrays


def _map_stored_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, *, checked: bool) -> Array:
    """Maps an array inside an uncompressed archive without copying it."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(member)
        header_bytes = member.tell()
    if dtype.hasobject:
        raise ValueError(f"array {info.filename} holds Python objects, not numbers")
    if any(size < 0 for size in shape):
        raise ValueError(f"array {info.filename} has the shape {list(shape)}")
    expected = math.prod(shape) * dtype.itemsize
    if info.file_size - header_bytes < expected:
        raise ValueError(f"array {info.filename} is truncated")
    with path.open("rb") as file:
        # The local header's name and extra field may differ in length from the central directory's.
        file.seek(info.header_offset + 26)
        name_bytes, extra_bytes = np.frombuffer(file.read(4), dtype="<u2")
        # Mapped bytes are not checked by anyone later; a damaged file must not become a wrong number.
        file.seek(int(name_bytes) + int(extra_bytes), os.SEEK_CUR)
        if not checked and _checksum(file, info.file_size) != info.CRC:
            raise ValueError(f"array {info.filename} is damaged: its checksum is wrong")
    offset = info.header_offset + 30 + int(name_bytes) + int(extra_bytes) + header_bytes
    if offset + expected > path.stat().st_size:
        raise ValueError(f"array {info.filename} is truncated")
    if expected == 0:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")


def _checksum(file: IO[bytes], length: int) -> int:
    checksum = 0
    while length > 0 and (block := file.read(min(length, _BLOCK_BYTES))):
        checksum = zlib.crc32(block, checksum)
        length -= len(block)
    return checksum


def _map_unpacked_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Unpacks a compressed array and maps it; the file loses its name at once, and lives as long as the map."""
    with scratch_directory() as scratch:
        path = Path(scratch) / "array.npy"
        with archive.open(info) as member, path.open("wb") as file:
            shutil.copyfileobj(member, file, _BLOCK_BYTES)
        return _map_npy(path)
