"""Where tests on the stand-in do their steps: in children that find it and the fake driver."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "NVIDIA Fake RTX 4090"
STEPS = ":".join(filter(None, (str(Path(__file__).parents[1] / "integration"), os.environ.get("PYTHONPATH"))))
"""PYTHONPATH of a child that finds `tensorrt_steps`."""
Step = Callable[..., Any]
"""Calls a function of `tensorrt_steps`: in the child of all tests, or with `env` in one of its own."""
