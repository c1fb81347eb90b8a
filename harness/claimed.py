"""An output folder that belongs to one comparison: marked with what it is of, and held while a process writes to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from modelwright.core.errors import BadInputError
from modelwright.core.files import write_json
from modelwright.core.records.codec import Record, encode, read_record
from modelwright.core.scratch import locked_folder, made_folder

MARKER = ".modelwright.json"


class _Mark(Record):
    """What `MARKER` holds: of which source the comparison in its folder is."""

    schema: Literal[1] = 1
    source: str


@contextlib.contextmanager
def claimed_folder(folder: Path, source: str, *, overwrite: bool) -> Iterator[None]:
    """Makes the output folder, or finds that it is a comparison of the same source, and holds it for this process.

    When the block fails before anything was finished, the folder is as it was before.

    Args:
        folder: To claim.
        source: What the comparison is of, such that the next run finds the same text; see `spell_source`.
        overwrite: Whether to take a folder that holds something else.

    Raises:
        BadInputError: It is a file, holds something else, a comparison of another source, or is in use.
    """
    marker = folder / MARKER
    with made_folder(folder), locked_folder(folder):
        if marker.is_file():
            earlier = read_record(_Mark, marker, what="the mark of a comparison", hint="choose another --out")
            if earlier.source != source and not overwrite:
                raise BadInputError(
                    f"{folder} holds a comparison of {earlier.source}", hint="choose another --out, or add --overwrite"
                )
        elif any(folder.iterdir()) and not overwrite:
            raise BadInputError(
                f"{folder} exists and holds something else than a comparison",
                hint="choose another --out, or add --overwrite to write into it",
            )
        write_json(marker, encode(_Mark(source=source)))
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                if [path.name for path in folder.iterdir()] == [MARKER]:
                    marker.unlink()
            raise


def spell_source(source: str | Path) -> str:
    """Returns a source with its whole path, spelled as UTF-8 whatever the locale."""
    text = os.fsencode(source).decode("utf-8", "backslashreplace")
    path, separator, function = text.rpartition(":")
    return f"{Path(path).resolve()}:{function}" if separator else str(Path(text).resolve())
