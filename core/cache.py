"""The folder for what is kept between runs and can be made again: environments, timing caches."""

from __future__ import annotations

import os
from pathlib import Path

_NO_HOME = Path("/no-home")
"""Where nothing is: a user without a home has no cache, and is told so when one is needed."""


def get_cache_folder() -> Path:
    """Returns `$MODELWRIGHT_CACHE`, `$XDG_CACHE_HOME/modelwright` or `~/.cache/modelwright`."""
    if os.environ.get("MODELWRIGHT_CACHE"):
        return Path(os.environ["MODELWRIGHT_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "modelwright"
    except RuntimeError:
        return _NO_HOME / "modelwright"
