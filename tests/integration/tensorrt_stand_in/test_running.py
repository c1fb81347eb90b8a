"""Engines that run: all ways give the same, and what they are built for is kept to."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from stand_in.steps import NAME, Step

from modelwright.core.errors import BadInputError, MeasurementInvalidError
from modelwright.core.records.operators import OperatorProfile


def test_an_engine_whose_hash_is_not_the_manifests_is_never_loaded(
    built: dict[str, Any], step: Step, workplace: dict[str, Path], tmp_path: Path
) -> None:
    copy, log = tmp_path / "copy", tmp_path / "loaded"
    shutil.copytree(workplace["out"] / "tensorrt-fp32", copy)
    with (copy / "model.engine").open("ab") as file:
        file.write(b"\0")
    measured = step("measure", env={"STAND_IN_LOG": str(log)}, folders={"a": str(copy)})["a"]
    assert "was changed" in measured["failure"]["message"]
    assert measured["failure"]["kind"] == BadInputError.__name__
    assert not log.exists()


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_all_ways_to_run_give_the_same(
    cuda_graph: bool, built: dict[str, Any], step: Step, workplace: dict[str, Path]
) -> None:
    folder = str(workplace["out"] / "tensorrt-fp32")
    seen = step("compare_ways_to_run", folder=folder, samples=str(workplace["samples"]), cuda_graph=cuda_graph)
    assert seen["spread"] > 0.01 * seen["scale"], "the rows differ, or the test would see nothing"
    for way in ("alone", "batched", "again", "bound", "computed"):
        assert seen[way] <= 1e-5 * seen["scale"], way
    assert seen["graphs"] == [cuda_graph]
    assert seen["streams"] == 2
    assert seen["contexts"] == 2
    assert seen["executed"]["precision"] == "fp32"
    assert seen["executed"].get("cuda_graph") == ("used" if cuda_graph else None)


def test_values_are_those_of_the_model(built: dict[str, Any], workplace: dict[str, Path], step: Step) -> None:
    """The INT8 engine's outputs, taken from the device, against FP32 by a known answer: its packed reference."""
    measured = step("measure", folders={"int8": str(workplace["out"] / "tensorrt-int8")})["int8"]
    assert measured["failure"] is None
    assert measured["cosine"] > 0.999
    assert measured["executed"]["precision"] == "int8"
    assert measured["executed"]["layers"]["int8"] >= 2
    assert measured["executed"]["device"] == NAME
    assert measured["executed"]["driver_version"] == "580.65.06"


def test_layers_are_profiled(built: dict[str, Any], workplace: dict[str, Path], step: Step) -> None:
    """The stand-in reports 10 µs for the first layer, 20 for the second, and so on."""
    told = step("profile_operators", folder=str(workplace["out"] / "tensorrt-int8"))
    profile = msgspec.convert(told, OperatorProfile)
    assert "layer times of TensorRT" in profile.source
    times_us = sorted(one.time_us for one in profile.operators)
    assert times_us == pytest.approx([10.0 * number for number in range(1, profile.count + 1)])
    convolutions = [one for one in profile.operators if one.type == "Conv"]
    assert convolutions
    assert all((one.kind, one.precision, one.nodes) == ("compute", "int8", (one.name,)) for one in convolutions)


def test_measured_with_graphs_on_two_streams(built: dict[str, Any], workplace: dict[str, Path], step: Step) -> None:
    folders = {"a": str(workplace["out"] / "tensorrt-fp32")}
    measured = step("measure", folders=folders, cuda_graph=True, streams=2, batch=4)["a"]
    assert measured["failure"] is None
    assert measured["rounds"] == 3
    assert min(measured["computations"]) > 0
    assert measured["settings"]["cuda_graph"] is True
    assert measured["settings"]["streams"] == 2


def test_a_graph_that_cannot_be_captured_is_told(built: dict[str, Any], workplace: dict[str, Path], step: Step) -> None:
    folders = {"a": str(workplace["out"] / "tensorrt-fp32")}
    measured = step("measure", env={"STAND_IN_FAIL": "capture:refused"}, folders=folders, cuda_graph=True)["a"]
    assert measured["failure"] is None
    assert measured["settings"]["cuda_graph"] is False
    assert "allocates or synchronizes" in measured["executed"]["cuda_graph"]


def test_shape_outside_the_range(
    built: dict[str, Any], workplace: dict[str, Path], step: Step, build_again: Callable[..., str]
) -> None:
    folder = str(workplace["out"] / "tensorrt-fp32")
    assert step("run_shape", folder=folder, shape=[16, 3, 12, 12]) == [16, 5]
    with pytest.raises(MeasurementInvalidError) as caught:
        step("run_shape", folder=folder, shape=[17, 3, 12, 12])
    assert caught.value.message == (
        "the input x has the shape 17x3x12x12, and the engine takes 1x3x12x12:2x3x12x12:16x3x12x12 "
        "(smallest:tuned for:largest)"
    )
    assert caught.value.hint == (
        "build the engine for it: modelwright build ... --shapes 'x=1x3x12x12:2x3x12x12:17x3x12x12'"
    )
    for shape in ([0, 3, 12, 12], [3, 12, 12]):
        with pytest.raises(MeasurementInvalidError, match="the engine takes"):
            step("run_shape", folder=folder, shape=shape)
    (told,) = re.findall(r"--shapes '(.*)'", caught.value.hint)
    wider = build_again({}, told)
    assert step("run_shape", folder=wider, shape=[17, 3, 12, 12]) == [17, 5]
