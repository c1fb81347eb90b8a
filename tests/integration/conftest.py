"""What integration tests share."""

from __future__ import annotations

import pytest

from modelwright.harness.run.effort import EFFORTS, Effort


@pytest.fixture(autouse=True)
def brief_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `quick` take moments: no test asserts a time. The command line in a process of its own is as ever."""
    monkeypatch.setitem(EFFORTS, "quick", Effort(name="quick", rounds=6, window_s=0.02))
