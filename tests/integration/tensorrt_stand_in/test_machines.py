"""Engines on other machines: another GPU, another version; built again as the hint says, they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stand_in.steps import Step

from modelwright.core.errors import MeasurementInvalidError, ToolchainMissingError


def test_this_machine_fits(built: dict[str, Any], step: Step, workplace: dict[str, Path]) -> None:
    assert step("verify", folder=str(workplace["out"] / "tensorrt-int8")) is None


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"FAKE_CUDA_CC": "9.0", "FAKE_CUDA_NAME": "NVIDIA Fake H200"}, "this NVIDIA Fake H200 has 9.0"),
        ({"FAKE_CUDA_MEMORY_BYTES": "500000"}, "MB of GPU memory"),
    ],
)
def test_another_gpu_is_told_before_anything_is_loaded(
    env: dict[str, str], reason: str, built: dict[str, Any], step: Step, workplace: dict[str, Path], tmp_path: Path
) -> None:
    log = tmp_path / "loaded"
    folder = str(workplace["out"] / "tensorrt-int8")
    with pytest.raises(MeasurementInvalidError, match=reason) as caught:
        step("verify", env=env, folder=folder)
    assert caught.value.hint == (
        "build it again for this machine: modelwright build ... --target tensorrt-int8 --profile host"
    )
    measured = step("measure", env={**env, "STAND_IN_LOG": str(log)}, folders={"a": folder})["a"]
    assert reason in measured["failure"]["message"]
    assert not log.exists()


@pytest.mark.slow
def test_an_engine_that_is_built_again_on_the_other_gpu_runs_there(
    built: dict[str, Any], step: Step, workplace: dict[str, Path], build_again: Callable[..., str], tmp_path: Path
) -> None:
    """What the checks and the session refuse, each with the same cure."""
    env = {"FAKE_CUDA_CC": "9.0", "FAKE_CUDA_NAME": "NVIDIA Fake H200"}
    folder = str(workplace["out"] / "tensorrt-fp32")
    with pytest.raises(MeasurementInvalidError, match=r"runs on compute capability 8\.9, and CUDA's first") as caught:
        step("run_shape", env=env, folder=folder, shape=[1, 3, 12, 12])
    assert "build it again with --profile host" in str(caught.value.hint)
    with pytest.raises(MeasurementInvalidError, match=r"this NVIDIA Fake H200 has 9\.0") as caught:
        step("verify", env=env, folder=folder)
    assert "build it again for this machine" in str(caught.value.hint)
    again = build_again(env)
    assert step("verify", env=env, folder=again) is None
    assert step("run_shape", env=env, folder=again, shape=[1, 3, 12, 12]) == [1, 5]


def test_an_engine_for_a_gpu_that_is_not_here(
    step: Step, workplace: dict[str, Path], build_again: Callable[..., str], tmp_path: Path
) -> None:
    """The profile's has none, or another; the cure is the host's own profile, or an engine that runs on both."""
    paths = {name: str(workplace[name]) for name in ("model", "samples")}
    with pytest.raises(ToolchainMissingError, match="the profile x86-amx names none") as caught:
        step("build_artifacts", **paths, out=str(tmp_path), targets=["tensorrt-fp32"], profile="x86-amx")
    assert "with --profile host" in str(caught.value.hint)
    env = {"FAKE_CUDA_CC": "8.6"}
    build_again(env)

    def build(**options: str) -> Any:
        folder, model = str(tmp_path / "engine"), str(workplace["model"])
        return step("build_engine", env=env, target="tensorrt-fp32", model=model, folder=folder, options=options)

    with pytest.raises(ToolchainMissingError, match=r"8\.6, and the profile made-up asks for 8\.9") as caught:
        build()
    assert "--option hardware-compatible=ampere-plus makes engines for others" in str(caught.value.hint)
    assert build(**{"hardware-compatible": "ampere-plus"})["requires"]["gpu"]["runs_on"] == ">=8.0"


def test_another_card_of_the_same_capability_runs_with_a_note(
    built: dict[str, Any], step: Step, workplace: dict[str, Path]
) -> None:
    folder = str(workplace["out"] / "tensorrt-fp32")
    note = step("verify", env={"FAKE_CUDA_NAME": "NVIDIA Fake L4"}, folder=folder)
    assert "it was built for NVIDIA Fake RTX 4090; on this NVIDIA Fake L4 NVIDIA warns of" in note


def test_another_version_is_told_before_anything_is_loaded(
    built: dict[str, Any],
    step: Step,
    workplace: dict[str, Path],
    build_again: Callable[..., str],
    other_version: dict[str, str],
    tmp_path: Path,
) -> None:
    folder, log = str(workplace["out"] / "tensorrt-fp32"), tmp_path / "loaded"
    with pytest.raises(MeasurementInvalidError, match=r"needs TensorRT 10\.13\.0\.35, and 10\.14\.1\.48 is installed"):
        step("verify", env=other_version, folder=folder)
    # The session looks at the module itself: metadata may be missing or lie.
    with pytest.raises(
        MeasurementInvalidError, match=r"built with TensorRT 10\.13\.0\.35, and 10\.14\.1\.48"
    ) as caught:
        step("load", env={**other_version, "STAND_IN_LOG": str(log)}, folder=folder)
    assert not log.exists()
    assert "build it again" in str(caught.value.hint)
    again = build_again(other_version)
    assert step("verify", env=other_version, folder=again) is None
    assert step("run_shape", env=other_version, folder=again, shape=[1, 3, 12, 12]) == [1, 5]


def test_version_compatible_engines_run_on_a_later_version(
    step: Step, workplace: dict[str, Path], other_version: dict[str, str], tmp_path: Path
) -> None:
    manifest = step(
        "build_artifacts",
        model=str(workplace["model"]),
        samples=str(workplace["samples"]),
        out=str(tmp_path),
        targets=["tensorrt-fp32"],
        options=["version-compatible=true", "hardware-compatible=ampere-plus"],
    )["manifests"]["tensorrt-fp32"]
    assert manifest["requires"]["packages"] == {"tensorrt": ">=10.13.0.35,<12"}
    assert manifest["requires"]["gpu"]["runs_on"] == ">=8.0"
    later = {**other_version, "FAKE_CUDA_CC": "12.0"}
    assert step("verify", env=later, folder=str(tmp_path / "tensorrt-fp32")) is None
    assert step("run_shape", env=later, folder=str(tmp_path / "tensorrt-fp32"), shape=[3, 3, 12, 12]) == [3, 5]
