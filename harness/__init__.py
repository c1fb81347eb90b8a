"""Measures artifacts on the machine they are for, and compares them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelwright.harness.comparing import compare
    from modelwright.harness.measuring import measure
    from modelwright.harness.profiling import profile_operators
    from modelwright.harness.results.file import read_results
    from modelwright.harness.results.limits import Limits
    from modelwright.harness.results.record import Comparison
    from modelwright.harness.study.running import run_study
    from modelwright.harness.tuning.tuning import tune

__all__ = ["Comparison", "Limits", "compare", "measure", "profile_operators", "read_results", "run_study", "tune"]

_HOMES = {
    "compare": "comparing",
    "measure": "measuring",
    "profile_operators": "profiling",
    "read_results": "results.file",
    "run_study": "study.running",
    "tune": "tuning.tuning",
    "Comparison": "results.record",
    "Limits": "results.limits",
}


def __getattr__(name: str) -> Any:
    """Loads the public names on first use: a measuring child imports this package and must stay small."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
