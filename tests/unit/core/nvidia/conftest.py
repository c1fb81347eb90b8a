"""A compiled stand-in for the NVIDIA driver, and child processes that find it, as in real use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_driver.build import build_fake_driver

from modelwright.core.errors import MeasurementInvalidError
from modelwright.core.process.child import run_in_child

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_fake_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def ask(driver: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Calls a function of `cuda_children` where the fake driver is found, with some more environment."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def call(function: str, environment: dict[str, str] | None = None, **params: Any) -> Any:
        return run_in_child(
            f"cuda_children:{function}",
            params,
            purpose="using CUDA",
            crash_error=MeasurementInvalidError,
            environment=environment,
        )

    return call
