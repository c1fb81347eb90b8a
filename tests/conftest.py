"""What all tests share."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np  # noqa: F401 - its OpenBLAS has to be loaded to be limited
import pytest
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parent))  # for `models`, which integration tests of several rooms use
os.environ["MODELWRIGHT_EXPORTS_GB"] = "0"  # no test finds what another one exported; tests of the cache say otherwise
threadpool_limits(1, user_api="blas")
"""Of this process alone. After a fork, which tests make many of, OpenBLAS once waited for a thread that was gone."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says why tests were skipped, each reason once: a machine without a GPU skips some two hundred."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("skipped, and why", sep="-")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:4}  {reason}")
