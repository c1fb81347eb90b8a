"""Targets: runtimes at a precision. Each turns a verified ONNX model into an artifact and runs it.

`build` builds one artifact from an exported model and its evidence; see `modelwright.harness.building` for several at
once, straight from a source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelwright.targets.table import get_target, target_names

if TYPE_CHECKING:
    from modelwright.targets.building.build import build
    from modelwright.targets.building.evidence import prepare_evidence

__all__ = ["build", "get_target", "prepare_evidence", "target_names"]

_HOMES = {"build": "building.build", "prepare_evidence": "building.evidence"}


def __getattr__(name: str) -> Any:
    """Loads the builder's side on first use: a device that only runs artifacts does not need it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
