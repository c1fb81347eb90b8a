"""What is refused before minutes are spent on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelwright.core.errors import ToolchainMissingError
from modelwright.harness.preconditions import require_gpu_for, require_one_buildable
from modelwright.harness.run.effort import get_effort
from modelwright.harness.run.runner import MeasureSettings
from modelwright.profiles import load_profile

SETTINGS = MeasureSettings(effort=get_effort("quick"))


@pytest.fixture(autouse=True)
def _without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (replace(SETTINGS, device="cuda"), "--device cuda"),
        (replace(SETTINGS, cuda_graph=True), "--cuda-graph"),
        (replace(SETTINGS, spin=True, streams=4), "--spin, --streams 4"),
    ],
)
def test_what_is_asked_of_a_gpu_is_refused_without_one(asked: MeasureSettings, words: str) -> None:
    with pytest.raises(ToolchainMissingError) as caught:
        require_gpu_for(asked)
    assert caught.value.message.startswith(f"{words}: there is no GPU to use here: ")


def test_nothing_asked_of_a_gpu_needs_none() -> None:
    require_gpu_for(SETTINGS)
    require_gpu_for(replace(SETTINGS, device="cpu"))


def test_a_build_of_which_nothing_can_come_is_refused_with_what_each_lacks() -> None:
    pi = load_profile("raspberry-pi-5").machine()  # no GPU, and another architecture than the engines'
    with pytest.raises(ToolchainMissingError) as caught:
        require_one_buildable(["tensorrt-rtx-fp16", "openvino-bf16"], pi)
    lines = str(caught.value.detail).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["tensorrt-rtx-fp16", "openvino-bf16"]
    with pytest.raises(ToolchainMissingError, match="tensorrt-rtx-fp16, tensorrt-rtx-int8 cannot be built here"):
        require_one_buildable(["tensorrt-rtx-fp16", "tensorrt-rtx-int8"], pi)


def test_one_that_can_be_built_is_enough() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    require_one_buildable(["tensorrt-fp16", "ort-fp32"], load_profile("raspberry-pi-5").machine())
