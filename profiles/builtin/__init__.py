"""The profiles that ship with modelwright, one TOML file each."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from modelwright.profiles.parse import read_profile
from modelwright.profiles.schema import Profile

_FOLDER = Path(__file__).parent


@cache
def builtin_names() -> tuple[str, ...]:
    """Returns the names of the built-in profiles, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


@cache
def load_builtin(name: str) -> Profile:
    """Reads a built-in profile; the name must be one of `builtin_names()`."""
    return read_profile(_FOLDER / f"{name}.toml")


def builtin_profiles() -> tuple[Profile, ...]:
    """Returns all built-in profiles, in the order of their names."""
    return tuple(load_builtin(name) for name in builtin_names())
