"""Whether a folder may be replaced by a new artifact: everything in it must be of an earlier one."""

from __future__ import annotations

from pathlib import Path

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json
from modelwright.core.records.artifact_files import MANIFEST

_NAMED = 5


def require_own(directory: Path) -> None:
    """Refuses to replace a folder with something in it that no build made.

    What a build made stands in its manifest. Where that is too damaged to be read, the folder is still an artifact's.

    Raises:
        BadInputError: Names what is not ours.
    """
    if directory.is_symlink() or not directory.is_dir():
        raise BadInputError(
            f"{directory} is {'a link' if directory.is_symlink() else 'a file'}, not the folder of an artifact",
            hint="choose another --out, or move it away",
        )
    found = {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    foreign = found - {MANIFEST}
    if MANIFEST in found:
        try:
            files = read_json(directory / MANIFEST, "an artifact's manifest").get("files")
        except BadInputError:
            return
        foreign -= set(files) if isinstance(files, dict) else foreign
    if foreign:
        names = sorted(foreign)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise BadInputError(
            f"{directory} is not replaced: no build made {', '.join(names[:_NAMED])}{more} in it",
            hint="move that away, or choose another --out",
        )
