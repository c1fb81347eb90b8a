"""A stand-in for the vendor's module on a fake CUDA driver: what all tests of this folder share.

What is under test is real: building, manifests, checks, sessions and the harness. `test_tensorrt_rtx.py` asks the real
vendor's builder, `test_tensorrt_on_gpu.py` real hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import pytest
from fake_driver.build import build_fake_driver
from stand_in import tensorrt as stand_in
from stand_in.steps import NAME, STEPS, Step

from modelwright.core.process.child import Child, run_in_child


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("stand-in")
    return {
        "PYTHONPATH": f"{stand_in.install(folder / 'site')}:{STEPS}",
        "LD_LIBRARY_PATH": str(build_fake_driver(folder / "driver")),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "MODELWRIGHT_CACHE": "",
        "FAKE_CUDA_NAME": NAME,
        "FAKE_CUDA_CC": "8.9",
        "FAKE_CUDA_UUID": "0" * 32,
        "FAKE_NVML_NOT_SUPPORTED": "energy,power",
    }


@pytest.fixture(scope="session")
def step(environment: dict[str, str]) -> Iterator[Step]:
    """Calls a function of `tensorrt_steps` in a child: one for all, or one of its own with some more environment."""
    with Child("using TensorRT", environment=environment) as shared:

        def call(function: str, *, env: dict[str, str] | None = None, **params: Any) -> Any:
            if env is None:
                return shared.call(f"tensorrt_steps:{function}", params)
            both = {**environment, **env}
            return run_in_child(f"tensorrt_steps:{function}", params, purpose="using TensorRT", environment=both)

        yield call


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tensorrt")
    return {
        "folder": folder,
        "model": models.make_cnn(folder / "cnn.onnx"),
        "samples": models.make_samples(folder / "samples.npz", x=(3, 12, 12)),
        "out": folder / "artifacts",
    }


@pytest.fixture(scope="session")
def built(step: Step, workplace: dict[str, Path]) -> dict[str, Any]:
    """Manifests of an FP32 and an INT8 artifact, built as the command line does."""
    result = step(
        "build_artifacts",
        model=str(workplace["model"]),
        samples=str(workplace["samples"]),
        out=str(workplace["out"]),
        targets=["tensorrt-fp32", "tensorrt-int8"],
        options=["tensorrt-fp32:workspace-mb=64", "tensorrt-fp32:optimization-level=4"],
        shapes=["x=1x3x12x12:2x3x12x12:16x3x12x12"],
    )
    assert result["absent"] == {}
    return result["manifests"]


@pytest.fixture(scope="session")
def other_version(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of another version of TensorRT."""
    site = stand_in.install(tmp_path_factory.mktemp("other"), "10.14.1.48")
    return {"PYTHONPATH": f"{site}:{STEPS}", "STAND_IN_VERSION": "10.14.1.48"}


@pytest.fixture
def build_again(step: Step, workplace: dict[str, Path], tmp_path: Path) -> Callable[..., str]:
    """Builds the FP32 engine with `--profile host` in an environment, and returns its folder."""

    def build(env: dict[str, str], *shapes: str) -> str:
        out, targets = tmp_path / "again", ["tensorrt-fp32"]
        paths = {name: str(workplace[name]) for name in ("model", "samples")}
        made = step("build_artifacts", env=env, **paths, out=str(out), targets=targets, profile="host", shapes=shapes)
        assert not made["absent"]
        return str(out / "tensorrt-fp32")

    return build
