"""Where CI runs, every toolchain that it can have must be there: a skip must not hide a missing installation."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest

PACKAGES = (
    *("onnxruntime", "openvino", "nncf", "ai_edge_litert", "torch", "safetensors", "modelopt"),
    *("tensorrt_rtx_libs", "tensorrt_rtx_bindings"),
)


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="only where CI says that all must be there")
@pytest.mark.parametrize("package", PACKAGES)
def test_ci_has_the_package(package: str) -> None:
    assert importlib.util.find_spec(package) is not None


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="only where CI says that all must be there")
@pytest.mark.parametrize("program", ["cc", "g++"])
def test_ci_has_a_compiler_for_the_fake_driver_and_for_torch(program: str) -> None:
    assert shutil.which(program)
