"""What all tests share."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

_FOLDER = Path(__file__).parent
sys.path.insert(0, str(_FOLDER))  # for `models`, which integration tests of several rooms use
os.environ["MODELWRIGHT_EXPORTS_GB"] = "0"  # no test finds what another one exported; tests of the cache say otherwise
_begun: list[tuple[np.random.BitGenerator, Any]] = []
"""The generators of random numbers that test modules draw from, `RNG` by custom, and where they begin."""
threadpool_limits(1, user_api="blas")
"""Of this process alone. After a fork, which tests make many of, OpenBLAS once waited for a thread that was gone."""


def pytest_collection_finish() -> None:
    """Finds the generators of all test modules that were collected, and of what they import."""
    modules = [
        module for module in sys.modules.values() if _FOLDER in Path(getattr(module, "__file__", None) or "").parents
    ]
    values = [value for module in modules for value in vars(module).values()]
    found = {id(value): value.bit_generator for value in values if isinstance(value, np.random.Generator)}
    _begun[:] = [(each, type(each)(each.seed_seq).state) for each in found.values()]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Gives every test the same random numbers, whichever ran before it in this process."""
    for generator, state in _begun:
        generator.state = state
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says why tests were skipped, each reason once: a machine without a GPU skips some two hundred."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("skipped, and why", sep="-")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:4}  {reason}")
