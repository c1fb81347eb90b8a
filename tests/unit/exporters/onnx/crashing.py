"""Functions that a test calls in a child process: phases that crash or fail as vendors' code does."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.exporters.onnx import validate
from modelwright.exporters.torch import worker


def crash_in_shape_inference(path: str, progress: Callable[[str], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "_infer_shapes", lambda model: os.abort())
        validate.validate_model(Path(path), progress)


def fill_disk(path: str, directory: str, progress: Callable[[str], None]) -> Any:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker.shutil, "copyfile", refuse)
        return worker.convert(
            "onnx", path, str(Path(path).parent), None, directory, "m.onnx", None, 1e-3, False, progress
        )
