"""What decided an export: all that making it looked at, as content, and whether it is still the same."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.metadata
import os
import site
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from modelwright.core.files import hash_file, hash_json
from modelwright.core.records.codec import Record

Kind = Literal["file", "folder", "absent"]

_SOURCE = "source:"
_WORKING = "working:"


class Inputs(Record, kw_only=True):
    """All that an export looked at while it was made.

    A place is `source:PATH` relative to the source's folder, `working:PATH` relative to the working directory where it
    was opened so, or an absolute path: a checkout that is moved, or run from elsewhere, is the same source.

    Attributes:
        files: Place -> SHA-256 of a file that was read: code, weights, data.
        kinds: Place -> what lay there where that was asked without reading it.
        folders: Place -> hash of the names in a folder that was listed.
        environment: Variable -> hash of its value, None where it was not set; never the value, which may be a secret.
        packages: Distribution -> hash of its version and of its list of files, for all that were imported.
        modules: Top-level modules that were imported or asked for. One of these names that appears in the source's
            folder would be imported instead.
        local: Those that lie in the source's folder.
        missing: Those that were not found anywhere.
        working_directory: Of the export, where the source asked for it by name; else None.
        folder: Where the source lay, if anything that it looked at is an absolute path, which may have been made from
            it: a copy of the source would look elsewhere. Else None.
    """

    files: Mapping[str, str]
    kinds: Mapping[str, Kind]
    folders: Mapping[str, str]
    environment: Mapping[str, str | None]
    packages: Mapping[str, str]
    modules: Sequence[str]
    local: Sequence[str]
    missing: Sequence[str]
    working_directory: str | None
    folder: str | None


def name_place(path: str, folder: Path) -> str:
    """Returns the place of a path as it was opened."""
    if not Path(path).is_absolute():
        return _WORKING + path
    # Not normalised: behind a link, `..` is another folder.
    return _SOURCE + str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path


def find_change(inputs: Inputs, folder: Path) -> str | None:
    """Returns what is not as it was when an export was made, in words; None when nothing has changed.

    Args:
        inputs: What the export looked at.
        folder: Where the source lies now.
    """
    # Weights last, for they take a second per gigabyte.
    checks = (_find_asked, _find_imported, _find_read)
    return next((change for check in checks if (change := check(inputs, folder)) is not None), None)


def _find_asked(inputs: Inputs, folder: Path) -> str | None:
    """Returns what has changed of the things that were asked for without reading them."""
    if inputs.folder not in (None, str(folder)):
        return "the source lies in another folder, and looks at files outside it"
    for place, kind in inputs.kinds.items():
        now = look_at(_find(place, folder))
        if now != kind:
            return f"{_tell(place)} is {_NOW[now]}"
    for name, expected in inputs.environment.items():
        if hash_variable(os.environ.get(name)) != expected:
            return f"the environment variable {name} has changed"
    if inputs.working_directory not in (None, read_working_directory()):
        return "the source asks for the working directory, which is another"
    return None


def _find_imported(inputs: Inputs, folder: Path) -> str | None:
    """Returns what an import would find that it did not find, or found elsewhere."""
    if find_local(inputs.modules, folder) != list(inputs.local):
        return "a module has come into the source's folder, or left it"
    for name in inputs.missing:
        if is_installed(name):
            return f"the module {name} is installed now"
    for name, expected in inputs.packages.items():
        if hash_package(name) != expected:
            return f"the package {name} is another"
    return None


def _find_read(inputs: Inputs, folder: Path) -> str | None:
    """Returns which of the folders and files that were read has changed."""
    for place, expected in inputs.folders.items():
        if hash_names(_find(place, folder)) != expected:
            return f"the files in {_tell(place)} are others"
    for place, expected in inputs.files.items():
        if _hash(_find(place, folder)) != expected:
            return f"{_tell(place)} has changed"
    return None


_NOW: Mapping[Kind, str] = {"file": "a file now", "folder": "a folder now", "absent": "gone"}


def look_at(path: Path) -> Kind:
    """Says what lies at a path."""
    return "folder" if path.is_dir() else "file" if path.exists() else "absent"


def read_working_directory() -> str:
    """Returns the working directory, empty where it was deleted."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""


def hash_variable(value: str | None) -> str | None:
    """Returns the hash of an environment variable's value, None where it is not set."""
    return None if value is None else hashlib.sha256(os.fsencode(value)).hexdigest()


def hash_names(folder: Path) -> str | None:
    """Returns the hash of the names in a folder, None where it cannot be listed."""
    try:
        return hash_json(sorted(path.name for path in folder.iterdir()))
    except OSError:
        return None


def hash_package(name: str) -> str | None:
    """Returns the hash of a distribution's version and of its list of files, which holds a hash of each."""
    # Not wherever this process finds modules: the exporting one looks elsewhere, and has to find the same.
    found = next(iter(importlib.metadata.distributions(name=name, path=installed_folders())), None)
    if found is None:
        return None
    return hash_json([found.version, hashlib.sha256((found.read_text("RECORD") or "").encode()).hexdigest()])


def find_local(modules: Iterable[str], folder: Path) -> list[str]:
    """Returns the modules that importing finds in a folder, which comes first on the path of a factory."""
    try:
        names = {path.name.partition(".")[0] for path in folder.iterdir()}
    except OSError:
        return []
    return sorted(
        name
        for name in names.intersection(modules)
        if importlib.machinery.PathFinder.find_spec(name, [str(folder)]) is not None
    )


def is_installed(module: str) -> bool:
    """Says whether a module lies among the installed packages, or where PYTHONPATH leads."""
    path = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *installed_folders()]
    return importlib.machinery.PathFinder.find_spec(module, [folder for folder in path if folder]) is not None


def installed_folders() -> list[str]:
    """Returns the folders that packages are installed into."""
    paths = sysconfig.get_paths()
    return list(
        dict.fromkeys([paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages()])
    )


def _find(place: str, folder: Path) -> Path:
    if place.startswith(_SOURCE):
        return folder / place.removeprefix(_SOURCE)
    return Path(place.removeprefix(_WORKING))


def _tell(place: str) -> str:
    return place.removeprefix(_SOURCE).removeprefix(_WORKING)


def _hash(path: Path) -> str | None:
    try:
        return hash_file(path)
    except OSError:
        return None
