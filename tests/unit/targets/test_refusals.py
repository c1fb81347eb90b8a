"""What targets refuse before any toolchain is asked; then the hint is followed, and it helps. See `refusals/`."""

from __future__ import annotations

import dataclasses
import platform
import re
from typing import Any

import numpy as np
import pytest
from graph_models import make_model
from onnx import helper

from modelwright.core.errors import BuildFailedError, UsageError
from modelwright.core.records.machine import Machine
from modelwright.profiles import load_profile
from modelwright.targets.building.choices import read_options
from modelwright.targets.graphs.rewrite import raise_opset
from modelwright.targets.openvino.target import OpenvinoBf16
from modelwright.targets.ort.target import OrtFp32
from modelwright.targets.table import TABLE, get_target


def make_machine(*features: str, architecture: str = "x86_64") -> Machine:
    return Machine(name="box", architecture=architecture, instruction_sets=frozenset(features), cores=2)


@pytest.mark.parametrize("name", ["ort-in8", "openvino", "tflite-int", "nothing like it"])
def test_a_target_that_is_suggested_is_one(name: str) -> None:
    with pytest.raises(UsageError, match="there is no target") as caught:
        get_target(name)
    told = re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)+", caught.value.hint or "")
    assert told
    assert all(get_target(suggested).record.name == suggested for suggested in told)
    assert name != "nothing like it" or set(told) == set(TABLE)


@pytest.mark.parametrize(
    ("text", "words", "hint", "mended"),
    [
        ("workspace-mb", "is no option", "write NAME=VALUE", "workspace-mb=512"),
        ("ort-fp32:workspace-mb=512", "is not among the targets", "tensorrt-fp32", "tensorrt-fp32:workspace-mb=512"),
        ("workspace=512", "none of the targets has", "did you mean workspace-mb?", "workspace-mb=512"),
    ],
)
def test_options_written_as_told_are_taken(text: str, words: str, hint: str, mended: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        read_options([text], ["tensorrt-fp32"])
    assert hint in (caught.value.hint or "")
    assert read_options([mended], ["tensorrt-fp32"]) == {"tensorrt-fp32": {"workspace-mb": 512}}


def test_what_builds_at_home_only_builds_there() -> None:
    class Local(OrtFp32):
        record = dataclasses.replace(OrtFp32.record, build_anywhere=False)

    refused = Local().check_build(make_machine(architecture="riscv64"))
    assert "builds only on the architecture it is for" in (refused.reason or "")
    assert "on that machine, with --profile host" in (refused.hint or "")
    assert Local().check_build(make_machine(architecture=platform.machine())).ok


def test_an_artifact_runs_where_its_instructions_are() -> None:
    requires = {"instruction_sets": ["avx2"], "any_instruction_set": ["avx512_vnni", "avx_vnni"]}
    refused = OrtFp32().check_artifact(requires, make_machine("sse4_2"))
    assert refused.reason == "it needs avx2, avx512_vnni or avx_vnni, which this CPU lacks"
    assert "build it for this machine" in (refused.hint or "")
    # Built for this machine, it needs nothing that this machine lacks.
    assert OrtFp32().check_artifact({"instruction_sets": ["sse4_2"]}, make_machine("sse4_2")).ok
    assert OrtFp32().check_artifact(requires, make_machine("avx2", "avx_vnni")).ok


def test_a_machine_without_bf16_takes_the_other_openvino_targets() -> None:
    machine = make_machine("avx512_vnni")
    refused = OpenvinoBf16().check_build(machine)
    assert "neither avx512_bf16 nor amx_bf16" in (refused.reason or "")
    told = re.findall(r"openvino-\w+", refused.hint or "")
    assert told == ["openvino-fp32", "openvino-int8"]
    for name in told:
        readiness = get_target(name).check_build(machine)
        assert readiness.ok or "not installed" in (readiness.reason or "")
    with_it = OpenvinoBf16().check_build(load_profile("x86-amx").machine())
    assert with_it.ok or "not installed" in (with_it.reason or "")


def test_a_model_of_a_later_opset_needs_no_converting() -> None:
    """Opset 9 took away what `spatial=0` means."""
    constants: dict[str, Any] = {"s": np.ones(4, np.float32)}
    names = ["x", "s", "s", "s", "s"]
    old = make_model([helper.make_node("BatchNormalization", names, ["y"], spatial=0)], constants, opset=7)
    with pytest.raises(BuildFailedError, match="cannot convert the model from opset 7 to 13") as caught:
        raise_opset(old, 13)
    assert caught.value.hint == "export it again at opset 13 or later"
    later = make_model([helper.make_node("BatchNormalization", names, ["y"])], constants, opset=13)
    assert raise_opset(later, 13) is later


def test_an_engine_ahead_of_time_is_built_for_a_profile_with_a_gpu() -> None:
    target = get_target("tensorrt-rtx-fp16")
    refused = target.check_build(make_machine())
    assert "builds ahead of time for a GPU, and the profile box names none" in (refused.reason or "")
    (told,) = re.findall(r"--profile (\S+)", refused.hint or "")
    readiness = target.check_build(load_profile(told).machine())
    assert readiness.ok or "names none" not in (readiness.reason or "")


def test_a_gpu_that_rtx_does_not_build_for_has_the_other_targets() -> None:
    machine = load_profile("nvidia-h200").machine()
    refused = get_target("tensorrt-rtx-fp16").check_build(machine)
    assert "does not build for compute capability 9.0" in (refused.reason or "")
    assert "use the targets of TensorRT" in (refused.hint or "")
    readiness = get_target("tensorrt-fp16").check_build(machine)
    assert readiness.ok or "compute capability 9.0" not in (readiness.reason or "")
