"""Exports are kept, and found again while everything that decided them is as it was.

Beside a result lies `STEM.made-from.json`, which says what it was made from. Exports of PyTorch sources lie in the
user's cache folder too, so that another command, or another folder, has them; an ONNX source is itself at hand. What is
found is checked by its hashes, as a record is everywhere, and damaged entries are thrown away. A cache that cannot be
written is none. Entries take their names when they are whole, so any number of processes may work in it at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Literal

import numpy as np
from msgspec.structs import replace

from modelwright.core.cache import get_cache_folder
from modelwright.core.errors import ModelwrightError
from modelwright.core.files import hash_file, hash_json
from modelwright.core.process.child import Progress
from modelwright.core.records.codec import Record, Sha256, encode
from modelwright.core.records.exported import PROGRAM_SUFFIX, ExportedModel, load_exported, save_exported
from modelwright.core.records.seal import read_sealed, write_sealed
from modelwright.core.samples.archives import read_arrays
from modelwright.core.samples.sample_set import SampleRef
from modelwright.core.scratch import SCRATCH_PREFIX, scratch_directory
from modelwright.exporters.inputs import Inputs, find_change
from modelwright.exporters.source import Source

ORIGIN_SUFFIX = ".made-from.json"
LIMIT_VARIABLE = "MODELWRIGHT_EXPORTS_GB"
_LIMIT_GB = 10.0
_FREE_SHARE = 0.1
_MODEL = "model.onnx"
"""What the model of every entry is called."""
_KEY_LETTERS = 32
_BLOCK_BYTES = 16 * 2**20


class Origin(Record, kw_only=True):
    """What an export was made from.

    Attributes:
        request: Hash of what was asked for; see `hash_request`.
        inputs: What making it looked at.
        onnx_sha256: Of the model that came out.
        program_sha256: Of the saved program.
        created: When, in UTC, ISO 8601.
    """

    schema: Literal[2] = 2
    request: Sha256
    inputs: Inputs
    onnx_sha256: Sha256
    program_sha256: Sha256 | None
    created: str


def origin_path(model_path: Path) -> Path:
    """Returns where it lies what a model was made from: `model.onnx` -> `model.made-from.json`."""
    return model_path.with_name(model_path.stem + ORIGIN_SUFFIX)


def hash_request(source: Source, samples: SampleRef | None, tolerance: float) -> str:
    """Hashes what is asked for, as far as it is known before anything of the source runs.

    The samples belong to it by their values: they may be the example inputs, and they are what the comparison with the
    source says it was made on. Where the source lies does not belong to it.

    Raises:
        BadInputError: The samples cannot be read.
    """
    return hash_json(
        {
            "kind": source.kind,
            "name": source.path.name,
            "function": source.function,
            "sha256": hash_file(source.path),
            "samples": None if samples is None else hash_samples(samples),
            "tolerance": tolerance,
            "python": sys.version,
            "machine": [platform.system(), platform.machine()],
        }
    )


def find_beside(model_path: Path, request: str, folder: Path, report: Progress) -> tuple[ExportedModel, Origin] | None:
    """Finds that the model that lies in its place already is what an export would make again.

    Args:
        model_path: The place.
        request: What is asked for.
        folder: Where the source lies.
        report: Told what has changed, if that is known.
    """
    try:
        origin = _read_origin(model_path)
        change = find_change(origin.inputs, folder)
        if change is not None:
            report(f"exporting again: {change}")
        if change is not None or origin.request != request:
            return None
        exported = load_exported(model_path)
    except ModelwrightError:
        return None
    return (exported, origin) if _belongs(exported, origin) else None


def find_cached(place: Path, request: str, folder: Path) -> tuple[ExportedModel, Origin] | None:
    """Puts a cached export into an empty folder, if there is one.

    Args:
        place: What the model is to be called, in that folder.
        request: What is asked for.
        folder: Where the source lies.
    """
    for entry in _list_entries(request):
        try:
            origin = _read_origin(entry / _MODEL)
            if origin.request != request or find_change(origin.inputs, folder) is not None:
                continue
            _transfer(load_exported(entry / _MODEL, verify=False), place)
            # The copies are checked, not what was copied: nobody else changes these any more.
            found = load_exported(place)
            if _belongs(found, origin):
                with contextlib.suppress(OSError):  # another user's cache may be readable only
                    os.utime(entry)  # the least recently used goes first
                return found, origin
            damaged = True
        except ModelwrightError:
            damaged = True
        except OSError:  # evicted in this moment, or no space left: the export will say so
            damaged = False
        if damaged:
            shutil.rmtree(entry, ignore_errors=True)
        for path in place.parent.iterdir():
            path.unlink()
    return None


def save_origin(model_path: Path, origin: Origin) -> Path:
    """Writes what a model was made from beside it."""
    path = origin_path(model_path)
    write_sealed(path, origin)
    return path


def keep(exported: ExportedModel, origin: Origin) -> None:
    """Puts a copy of an export into the cache; that it cannot be written is no error."""
    folder = _exports_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        needed = exported.size_bytes + (exported.program_path.stat().st_size if exported.program_path else 0)
        if not _make_room(folder, needed):
            return
        with scratch_directory(folder) as scratch:
            place = Path(scratch) / "new" / _MODEL
            place.parent.mkdir()
            _transfer(exported, place)
            save_origin(place, origin)
            entry = folder / f"{origin.request[:_KEY_LETTERS]}-{hash_json(encode(origin.inputs))[:_KEY_LETTERS]}"
            if entry.exists():
                entry.rename(Path(scratch) / "old")
            place.parent.rename(entry)
    except (OSError, ModelwrightError):
        return


def _read_origin(model_path: Path) -> Origin:
    return read_sealed(Origin, origin_path(model_path), what="what an export was made from")[0]


def _belongs(exported: ExportedModel, origin: Origin) -> bool:
    return (exported.sha256, exported.program_sha256) == (origin.onnx_sha256, origin.program_sha256)


def _transfer(exported: ExportedModel, place: Path) -> None:
    """Copies an export to another place and name, with its record; large files are linked where they may be."""
    renamed = rename_export(exported, place)
    folder = exported.model_path.parent
    _link_or_copy(exported.model_path, place)
    if exported.program is not None:
        _link_or_copy(folder / exported.program, place.parent / str(renamed.program))
    for name in exported.files:
        if name != exported.model_path.name:
            # Copied, not hard-linked: onnx refuses data files with more than one link.
            (place.parent / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, place.parent / name)
    save_exported(renamed)


def rename_export(exported: ExportedModel, model_path: Path) -> ExportedModel:
    """Returns the record of an export whose model and program have other names; data files keep theirs."""
    old = exported.model_path.name
    program = None if exported.program is None else model_path.stem + PROGRAM_SUFFIX
    files = {model_path.name if name == old else name: sha256 for name, sha256 in exported.files.items()}
    return replace(exported, model_path=model_path, files=files, program=program)


def _link_or_copy(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # another file system, or one without links
        shutil.copyfile(old, new)


def _exports_folder() -> Path:
    return get_cache_folder() / "exports"


def _list_entries(request: str) -> list[Path]:
    """Returns the entries that may answer a request, the last used first."""
    if not _read_limit():
        return []
    entries = {}
    for path in _exports_folder().glob(f"{request[:_KEY_LETTERS]}-*"):
        with contextlib.suppress(OSError):
            entries[path] = path.stat().st_mtime
    return sorted(entries, key=lambda path: entries[path], reverse=True)


def _make_room(folder: Path, needed: int) -> bool:
    """Removes what was used least recently until an entry fits; returns whether it does."""
    entries = []
    for path in folder.glob("*-*"):
        if not path.name.startswith(SCRATCH_PREFIX):
            with contextlib.suppress(OSError):
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                entries.append((path.stat().st_mtime, size, path))
    used = sum(size for _, size, _ in entries)
    limit = min(_read_limit(), int(_FREE_SHARE * (shutil.disk_usage(folder).free + used)))
    if needed > limit:
        return False
    for _, size, path in sorted(entries):
        if used + needed <= limit:
            break
        shutil.rmtree(path, ignore_errors=True)
        used -= size
    return True


def _read_limit() -> int:
    """Returns the bytes that cached exports may take."""
    try:
        limit_gb = float(os.environ.get(LIMIT_VARIABLE, _LIMIT_GB))
    except ValueError:
        limit_gb = _LIMIT_GB
    return int(limit_gb * 1e9) if limit_gb < math.inf else sys.maxsize


def hash_samples(samples: SampleRef) -> str:
    """Returns the SHA-256 of all samples: names, dtypes, shapes and bytes, however they are stored."""
    digest = hashlib.sha256()
    for name, array in sorted(read_arrays(samples.path).items()):
        digest.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        rows = max(1, _BLOCK_BYTES // max(1, array[:1].nbytes)) if array.ndim else 1
        for start in range(0, len(array), rows) if array.ndim else ():
            digest.update(np.ascontiguousarray(array[start : start + rows]).tobytes())
        if not array.ndim:
            digest.update(array.tobytes())
    return digest.hexdigest()
