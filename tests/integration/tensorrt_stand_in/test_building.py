"""Engines that are built: as asked for, proved, with the timings of earlier builds."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
from onnx import TensorProto, helper
from stand_in.steps import NAME, Step
from stand_in.tensorrt.types import MAGIC


def read_header(folder: Path) -> dict[str, Any]:
    data = (folder / "model.engine").read_bytes()
    assert data.startswith(MAGIC)
    return json.loads(data[len(MAGIC) :].split(b"\n", 1)[0])


def test_engine_was_built_as_asked_and_the_manifest_says_so(built: dict[str, Any], workplace: dict[str, Path]) -> None:
    header = read_header(workplace["out"] / "tensorrt-fp32")
    assert header["strongly_typed"]
    assert not header["tf32"]
    assert header["workspace"] == 64 * 10**6
    assert header["level"] == 4
    assert header["ranges"] == {"x": [[1, 3, 12, 12], [2, 3, 12, 12], [16, 3, 12, 12]]}
    engine = built["tensorrt-fp32"]["recipe"]["engine"]
    assert engine["tf32"] is False
    assert engine["workspace_mb"] == 64
    assert engine["optimization_level"] == 4
    assert engine["shapes"]["x"] == {
        "minimum": [1, 3, 12, 12],
        "optimum": [2, 3, 12, 12],
        "maximum": [16, 3, 12, 12],
    }
    assert engine["version"] == built["tensorrt-fp32"]["versions"]["tensorrt"] == "10.13.0.35"
    assert built["tensorrt-int8"]["recipe"]["engine"]["workspace_mb"] is None


def test_what_the_engine_needs_is_in_the_manifest(built: dict[str, Any]) -> None:
    requires = built["tensorrt-int8"]["requires"]
    assert requires["packages"] == {"tensorrt": "==10.13.0.35"}
    gpu = requires["gpu"]
    assert (gpu["name"], gpu["compute_capability"], gpu["runs_on"]) == (NAME, "8.9", ["8.9"])
    assert (gpu["driver_version"], gpu["cuda_version"]) == ("580.65.06", "13.0")
    assert 2**20 < gpu["memory_bytes"] < 2**21


def test_precision_is_proved_by_the_inspector_and_values_on_the_device(built: dict[str, Any]) -> None:
    proof = built["tensorrt-int8"]["recipe"]["precision_proof"]
    assert proof["source"] == "engine inspector of TensorRT 10.13.0.35"
    assert proof["nodes"]["int8"] >= 2
    assert built["tensorrt-fp32"]["recipe"]["precision_proof"]["nodes"] == {"fp32": 3}
    for manifest in built.values():
        assert manifest["proof"]["device"] == "cuda"
        assert manifest["proof"]["emulated"] is None
    assert built["tensorrt-fp32"]["proof"]["fidelity"]["cosine"] > 0.999999
    assert built["tensorrt-int8"]["proof"]["fidelity"]["cosine"] > 0.999


def test_static_networks_get_no_profile_and_other_types_pass(step: Step, tmp_path: Path) -> None:
    model = models.save(
        tmp_path / "types.onnx",
        [
            helper.make_node("Add", ["ids", "one"], ["next"], name="add"),
            helper.make_node("Not", ["mask"], ["inverse"], name="not"),
        ],
        [("ids", TensorProto.INT64, [2, 3]), ("mask", TensorProto.BOOL, [2])],
        [("next", TensorProto.INT64, [2, 3]), ("inverse", TensorProto.BOOL, [2])],
        {"one": np.array(1, np.int64)},
    )
    samples = tmp_path / "samples.npz"
    ids, mask = np.arange(48).reshape(8, 2, 3), np.array([[True, False]] * 8)
    np.savez(samples, ids=ids, mask=mask)
    built = step("build_engine", target="tensorrt-fp32", model=str(model), folder=str(tmp_path / "out"))
    assert built["recipe"]["engine"]["optimization_profile"] is False
    assert onnx.load(model).graph.input[0].name == "ids"


def test_two_builds_at_once_share_their_timings(
    step: Step, environment: dict[str, str], workplace: dict[str, Path], tmp_path: Path
) -> None:
    """Both read an empty cache before either writes; afterwards it holds the kernels of both."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "STAND_IN_BARRIER": f"{meeting}:2"}
    other = models.make_two_by_two(tmp_path / "two.onnx")

    def build(number: int) -> Any:
        model = (workplace["model"], other)[number]
        folder = str(tmp_path / str(number))
        return step("build_engine", env=env, target="tensorrt-fp32", model=str(model), folder=folder)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(build, (0, 1)))
    assert [result["recipe"]["engine"]["timing_cache"]["state"] for result in results] == ["new", "new"]
    (file,) = (tmp_path / "cache" / "modelwright" / "tensorrt").glob("*.timings")
    assert file.name == "tensorrt-10.13.0.35-nvidia-fake-rtx-4090-sm8.9-cuda-13.0.timings"
    stored = json.loads(file.read_bytes().split(b"\n", 1)[1])
    count = len(onnx.load(workplace["model"]).graph.node) + len(onnx.load(other).graph.node)
    assert len(stored["entries"]) == count


def test_a_damaged_timing_cache_costs_a_note(step: Step, workplace: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "modelwright" / "tensorrt"
    folder.mkdir(parents=True)
    (folder / "tensorrt-10.13.0.35-nvidia-fake-rtx-4090-sm8.9-cuda-13.0.timings").write_bytes(b"rubbish")
    result = step(
        "build_engine",
        env={"XDG_CACHE_HOME": str(tmp_path / "cache")},
        target="tensorrt-fp32",
        model=str(workplace["model"]),
        folder=str(tmp_path / "out"),
    )
    assert any("was not used: it is damaged" in note for note in result["notes"])
