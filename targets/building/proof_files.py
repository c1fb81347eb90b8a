"""A proof holds for bytes: an artifact's files are hashed before it is proved, where it is loaded, and afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.records.artifact_files import REFERENCE, find_changes, hash_files, is_reserved

_HINT = "see to it that nothing else writes into the folder of the result, and build again"


def hash_built(target_name: str, staging: Path) -> dict[str, str]:
    """Hashes what a build left, before it is proved.

    Raises:
        BuildFailedError: A file has a name that the manifest or the reference outputs will take, or is none.
    """
    try:
        files = hash_files(staging)
    except BadInputError as error:
        raise BuildFailedError(f"building {target_name} left more than files: {error.message}") from error
    taken = sorted(path.name for path in staging.iterdir() if is_reserved(path.name))
    if taken:
        raise BuildFailedError(
            f"building {target_name} left {taken[0]}, a name that the artifact needs itself",
            hint="give the data files of the model other names",
        )
    return files


def require_unchanged(target_name: str, directory: Path, files: Mapping[str, str]) -> None:
    """Refuses to prove anything but the files that will be shipped; called by the child that loads them.

    Raises:
        BuildFailedError: A file is another one.
    """
    changes = list(find_changes(directory, files))
    if changes:
        raise BuildFailedError(f"{target_name} is not any more what was built: {'; '.join(changes)}", hint=_HINT)


def hash_proved(target_name: str, staging: Path, built: Mapping[str, str]) -> dict[str, str]:
    """Hashes the files for the manifest: those that were built and proved, and the reference outputs.

    Raises:
        BuildFailedError: A file changed while the artifact was proved.
    """
    found = hash_files(staging)
    changed = {name for name, sha256 in built.items() if found.get(name) != sha256}
    changed |= found.keys() - built.keys() - {REFERENCE}
    if changed:
        names = ", ".join(sorted(changed))
        raise BuildFailedError(f"{target_name} changed while it was proved: {names}", hint=_HINT)
    return found
