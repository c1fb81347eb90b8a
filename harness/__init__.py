"""Measures artifacts on the machine they are for, and compares them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelwright.harness.comparing import compare
    from modelwright.harness.limits import Limits
    from modelwright.harness.measure_folders import measure

__all__ = ["Limits", "compare", "measure"]

_HOMES = {"compare": "comparing", "measure": "measure_folders", "Limits": "limits"}


def __getattr__(name: str) -> Any:
    """Loads the public names on first use: a measuring child imports this package and must stay small."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
