"""Puts an export in its place: what an earlier export left there is replaced, what is somebody else's is not.

An earlier export's is what its record lists, as long as it has the hash that stands there. So the record comes before
the files that it lists: whatever a killed run leaves is told by it, and the next run goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_file, is_plain_file, read_json, require_no_other
from modelwright.core.records.codec import FileName, decode
from modelwright.core.records.exported import ExportedModel, record_path, save_exported
from modelwright.exporters.cache import Origin, origin_path, save_origin


def require_free(out: Path, *, overwrite: bool, replace_own: bool) -> None:
    """Refuses a place for a model where something lies that must not be replaced.

    Args:
        out: The place.
        overwrite: Whether any file may be replaced.
        replace_own: Whether the model of an earlier export may.

    Raises:
        BadInputError: Names what lies there.
    """
    require_no_other(out)
    if overwrite or not out.exists() or (replace_own and out.name in find_own_files(out)):
        return
    if replace_own and record_path(out).is_file():
        raise BadInputError(
            f"{out} was changed after it was exported", hint="choose another --out, or add --overwrite to replace it"
        )
    raise BadInputError(f"{out} exists", hint="choose another --out, or add --overwrite")


def place_export(
    staging: Path, out: Path, exported: ExportedModel, origin: Origin | None, *, replace_own: bool
) -> None:
    """Moves the files of an export to their places, with its record and what it was made from.

    Args:
        staging: Where they lie, on the same file system.
        out: The model's place; what lies there is replaced.
        exported: Their record.
        origin: What they were made from; None where that cannot be known.
        replace_own: Whether files of an earlier export may be replaced; nobody else's ever are.

    Raises:
        BadInputError: A file that must stay has the name of one that is to lie beside the model.
    """
    beside = _list_beside(exported)
    own, listed = find_own_files(out), {name for name, _ in _list_own(out)}
    for path in (record_path(out), origin_path(out)):
        require_no_other(path)
    for name in beside:
        require_no_other(out.parent / name)
        if not (out.parent / name).exists():
            continue
        if name not in own:
            path = out.parent / name
            raise BadInputError(
                f"{path} was changed after it was exported; the model has a file of that name again"
                if name in listed
                else f"{path} exists, which no earlier export left; the model has a file of that name too",
                hint="choose another --out, in a folder of its own, or move that file away",
            )
        if not replace_own:
            raise BadInputError(f"{out.parent / name} exists", hint="choose another --out, or add --overwrite")
    record = save_exported(replace(exported, model_path=staging / out.name))
    made_from = None if origin is None else save_origin(staging / out.name, origin)
    for name in own:
        (out.parent / name).unlink(missing_ok=True)
    if made_from is None:
        origin_path(out).unlink(missing_ok=True)
    else:
        made_from.replace(origin_path(out))
    record.replace(record_path(out))
    for name in (*beside, out.name):  # the model last, so that it never lacks its data
        (out.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).replace(out.parent / name)


def find_own_files(out: Path) -> set[str]:
    """Returns the files that an earlier export to this place left and nobody has changed since."""
    return {name for name, sha256 in _list_own(out) if _has_hash(out.parent, name, sha256)}


def _list_own(out: Path) -> list[tuple[str, object]]:
    """Returns the names of the files that an earlier export to this place left, with their hashes then.

    None are found for an ONNX model that was looked at where it lies: those are the user's.
    """
    try:
        # Not read as a record: one of another version is as good.
        record = read_json(record_path(out), "the record of an exported model")
    except BadInputError:
        return []
    if _read_source_kind(record) == "onnx" and not origin_path(out).is_file():
        return []
    return _list_hashes(record)


def _read_source_kind(record: Mapping[str, Any]) -> object:
    source = record.get("source")
    return source.get("kind") if isinstance(source, dict) else None


def _list_hashes(record: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Returns the names in a record that stay in its folder, with the hashes beside them."""
    files = record.get("files")
    named = [*(files.items() if isinstance(files, dict) else ()), (record.get("program"), record.get("program_sha256"))]
    kept = []
    for name, sha256 in named:
        try:
            kept.append((decode(FileName, name), sha256))
        except BadInputError:
            continue
    return kept


def _has_hash(folder: Path, name: str, sha256: object) -> bool:
    try:
        return is_plain_file(folder, name) and hash_file(folder / name) == sha256
    except OSError:
        return False


def _list_beside(exported: ExportedModel) -> list[str]:
    """Returns the files that lie beside the model and belong to it: its data and the saved program."""
    names = [name for name in exported.files if name != exported.model_path.name]
    return names if exported.program is None else [*names, exported.program]
