"""Finds a profile by what `--profile` was given."""

from __future__ import annotations

import os
from pathlib import Path

from modelwright.core.errors import BadInputError, suggest
from modelwright.core.records.machine import HOST
from modelwright.profiles.builtin import builtin_names, load_builtin
from modelwright.profiles.detect import detect_host
from modelwright.profiles.parse import read_profile
from modelwright.profiles.schema import Profile


def load_profile(name_or_path: str | os.PathLike[str]) -> Profile:
    """Returns a profile.

    Args:
        name_or_path: `host` for the machine this runs on, the name of a built-in profile, or the path of
            a `.toml` file. A text with a path separator or the suffix is a path, whatever built-in
            profiles there are.

    Raises:
        BadInputError: There is no such profile, or the file is wrong.
    """
    text = os.fspath(name_or_path)
    if text == HOST:
        return detect_host()
    if text in builtin_names():
        return load_builtin(text)
    path = Path(text)
    if path.suffix == ".toml" or len(path.parts) > 1:
        return read_profile(path)

    names = (HOST, *builtin_names())
    question = suggest(text.lower().replace("_", "-").replace(" ", "-"), names)
    raise BadInputError(
        f"profile {text!r} is not known" + (f"; {question}" if question else ""),
        hint=f"give one of {', '.join(names)}, or the path of a .toml file",
    )
