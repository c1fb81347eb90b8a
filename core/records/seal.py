"""Sealed records: one hash over all that a record holds lies in its file, so that an edited or damaged one is found.

The hash is of the content, not of the bytes: indentation and line ends may change on the way. It finds edits and
damage; it is no signature, since who can write the file can hash it anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_json, read_json, write_json
from modelwright.core.records.codec import Record, Sha256, decode, encode

SEAL = "record_sha256"
"""The key of the hash, beside the record's own."""
T = TypeVar("T", bound=msgspec.Struct)


def write_sealed(path: Path, record: Record) -> str:
    """Writes a record with its hash, and returns the hash.

    Raises:
        BuildFailedError: The disk is full.
        BadInputError: The folder is not writable.
    """
    values = encode(record)
    seal = hash_json(values)
    write_json(path, {**values, SEAL: seal})
    return seal


def read_sealed(kind: type[T], path: Path, *, what: str, hint: str | None = None) -> tuple[T, str]:
    """Reads a record that `write_sealed` wrote.

    Args:
        kind: The record.
        path: The file.
        what: What the file is to the reader, such as `an artifact's manifest`.
        hint: What to do where it cannot be used.

    Returns:
        The record and its hash.

    Raises:
        BadInputError: No such file, not JSON, not the record, or not what was written; names the file.
    """
    values = read_json(path, what)
    seal = values.pop(SEAL, None)
    # First what is wrong with a value, which says more than that one was changed.
    record = decode(kind, values, where=str(path), hint=hint)
    if seal is None:
        raise BadInputError(f"{path}: {SEAL}: missing; expected the hash of all the rest", hint=hint)
    decode(Sha256, seal, where=f"{path}: {SEAL}", hint=hint)
    if hash_json(values) != seal:
        raise BadInputError(f"{path} was changed after it was written: its content has another hash", hint=hint)
    return record, str(seal)
