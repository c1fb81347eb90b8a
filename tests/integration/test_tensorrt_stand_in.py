"""The whole path of TensorRT's targets without a GPU: a stand-in for the vendor's module on a fake CUDA driver.

What is under test is real: building, manifests, checks, sessions and the harness. `test_tensorrt_rtx.py` asks the real
vendor's builder, `test_tensorrt_on_gpu.py` real hardware.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from fake_driver.build import build_fake_driver
from onnx import TensorProto, helper
from stand_in import tensorrt as stand_in

from modelwright.core.errors import (
    BadInputError,
    BuildFailedError,
    MeasurementInvalidError,
    ModelwrightError,
    ToolchainMissingError,
)
from modelwright.core.process.child import Child, run_in_child

NAME = "NVIDIA Fake RTX 4090"
STEPS = ":".join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
MAGIC = b"stand-in engine\n"

Step = Callable[..., Any]


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def step(environment: dict[str, str]) -> Iterator[Step]:
    """Calls a function of `tensorrt_steps` in a child: one for all, or one of its own with some more environment."""
    with Child("using TensorRT", environment=environment) as shared:

        def call(function: str, *, env: dict[str, str] | None = None, **params: Any) -> Any:
            if env is None:
                return shared.call(f"tensorrt_steps:{function}", params)
            both = {**environment, **env}
            return run_in_child(f"tensorrt_steps:{function}", params, purpose="using TensorRT", environment=both)

        yield call


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tensorrt")
    return {
        "folder": folder,
        "model": models.make_cnn(folder / "cnn.onnx"),
        "samples": models.make_samples(folder / "samples.npz", x=(3, 12, 12)),
        "out": folder / "artifacts",
    }


@pytest.fixture(scope="module")
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


def build_again(step: Step, workplace: dict[str, Path], out: Path, env: dict[str, str], *shapes: str) -> str:
    """Builds the FP32 engine with `--profile host` in an environment, and returns its folder."""
    paths = {name: str(workplace[name]) for name in ("model", "samples")}
    targets = ["tensorrt-fp32"]
    made = step("build_artifacts", env=env, **paths, out=str(out), targets=targets, profile="host", shapes=shapes)
    assert not made["absent"]
    return str(out / "tensorrt-fp32")


def test_an_engine_that_is_built_again_on_the_other_gpu_runs_there(
    built: dict[str, Any], step: Step, workplace: dict[str, Path], tmp_path: Path
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
    again = build_again(step, workplace, tmp_path, env)
    assert step("verify", env=env, folder=again) is None
    assert step("run_shape", env=env, folder=again, shape=[1, 3, 12, 12]) == [1, 5]


def test_an_engine_for_a_gpu_that_is_not_here(step: Step, workplace: dict[str, Path], tmp_path: Path) -> None:
    """The profile's has none, or another; the cure is the host's own profile, or an engine that runs on both."""
    paths = {name: str(workplace[name]) for name in ("model", "samples")}
    with pytest.raises(ToolchainMissingError, match="the profile x86-amx names none") as caught:
        step("build_artifacts", **paths, out=str(tmp_path), targets=["tensorrt-fp32"], profile="x86-amx")
    assert "with --profile host" in str(caught.value.hint)
    env = {"FAKE_CUDA_CC": "8.6"}
    build_again(step, workplace, tmp_path, env)

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


@pytest.fixture(scope="module")
def other_version(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of another version of TensorRT."""
    site = tmp_path_factory.mktemp("other")
    shutil.copy(stand_in.__file__, site / "tensorrt.py")
    information = site / "tensorrt-10.14.1.48.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorrt\nVersion: 10.14.1.48\n")
    return {"PYTHONPATH": f"{site}:{STEPS}", "STAND_IN_VERSION": "10.14.1.48"}


def test_another_version_is_told_before_anything_is_loaded(
    built: dict[str, Any], step: Step, workplace: dict[str, Path], other_version: dict[str, str], tmp_path: Path
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
    again = build_again(step, workplace, tmp_path, other_version)
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


def test_shape_outside_the_range(built: dict[str, Any], workplace: dict[str, Path], step: Step, tmp_path: Path) -> None:
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
    wider = build_again(step, workplace, tmp_path, {}, told)
    assert step("run_shape", folder=wider, shape=[17, 3, 12, 12]) == [17, 5]


@pytest.mark.parametrize(
    ("env", "kind", "message"),
    [
        ({"STAND_IN_FAIL": "deserialize:oom"}, MeasurementInvalidError, "load the engine: there is not enough GPU mem"),
        ({"STAND_IN_FAIL": "context:oom"}, MeasurementInvalidError, "execution context: there is not enough GPU mem"),
        ({"STAND_IN_FAIL": "enqueue:unknown"}, MeasurementInvalidError, "run the engine: Internal Error"),
        ({"STAND_IN_FAIL": "shape:data"}, MeasurementInvalidError, "output y depends on the values of the inputs"),
        ({"STAND_IN_MEMORY_BYTES": "99000000000"}, MeasurementInvalidError, "which takes 94,414 MiB"),
        ({"FAKE_CUDA_MEMORY_BYTES": "500000"}, MeasurementInvalidError, "load the engine, which takes 1 MiB"),
        (
            {"FAKE_CUDA_CC": "9.0"},
            MeasurementInvalidError,
            "the engine runs on compute capability 8.9, and CUDA's first",
        ),
        ({"LD_LIBRARY_PATH": ""}, ToolchainMissingError, "no NVIDIA driver"),
        ({"FAKE_CUDA_INIT_ERROR": "803"}, ToolchainMissingError, "kernel module and its libcuda.so.1"),
        ({"CUDA_VISIBLE_DEVICES": ""}, ToolchainMissingError, "hides every GPU"),
    ],
)
def test_running_fails_with_one_clear_error(
    env: dict[str, str],
    kind: type[ModelwrightError],
    message: str,
    built: dict[str, Any],
    step: Step,
    workplace: dict[str, Path],
) -> None:
    with pytest.raises(ModelwrightError) as caught:
        step("run_shape", env=env, folder=str(workplace["out"] / "tensorrt-fp32"), shape=[1, 3, 12, 12])
    assert type(caught.value) is kind
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("env", "kind", "message", "hint"),
    [
        ({"STAND_IN_FAIL": "build:oom"}, BuildFailedError, "there is not enough GPU memory", "--shapes"),
        ({"STAND_IN_FAIL": "build:workspace"}, BuildFailedError, "no kernel fits the workspace", "workspace-mb"),
        ({"STAND_IN_FAIL": "build:capability"}, BuildFailedError, "this compute capability cannot", "support matrix"),
        ({"STAND_IN_FAIL": "build:unknown"}, BuildFailedError, "Could not find any implementation", None),
        ({"STAND_IN_FAIL": "deserialize:unknown"}, BuildFailedError, "cannot load the engine", None),
        ({"FAKE_CUDA_CC": "8.6"}, ToolchainMissingError, "has compute capability 8.6, and the profile", "host"),
        ({"LD_LIBRARY_PATH": ""}, ToolchainMissingError, "no NVIDIA driver", "install the NVIDIA driver"),
        ({"STAND_IN_VERSION": "10.11.0.33"}, ToolchainMissingError, "10.11.0.33 is too old", "tensorrt>=10.12"),
    ],
)
def test_building_fails_with_one_clear_error(
    env: dict[str, str],
    kind: type[ModelwrightError],
    message: str,
    hint: str | None,
    step: Step,
    workplace: dict[str, Path],
    tmp_path: Path,
) -> None:
    with pytest.raises(ModelwrightError) as caught:
        step(
            "build_engine", env=env, target="tensorrt-fp32", model=str(workplace["model"]), folder=str(tmp_path / "out")
        )
    assert type(caught.value) is kind
    assert message in caught.value.message
    assert hint is None or hint in str(caught.value.hint)
    assert not (tmp_path / "out" / "model.engine").exists()


def test_a_request_for_fp16_that_yields_fp32_is_an_error(
    step: Step, workplace: dict[str, Path], tmp_path: Path
) -> None:
    def build(target: str) -> Any:
        return step(
            "build_engine",
            env={"STAND_IN_PRECISION": "Float"},
            target=target,
            model=str(workplace["model"]),
            samples=str(workplace["samples"]),
            folder=str(tmp_path / target),
        )

    wanted = r"a request for FP16 that yields an engine without it: .*3 in FP32"
    with pytest.raises(BuildFailedError, match=wanted) as caught:
        build("tensorrt-fp16")
    assert caught.value.hint == "use another precision of this runtime"
    assert build("tensorrt-fp32")["recipe"]["precision_proof"]["nodes"] == {"fp32": 3}


def test_parser_errors_name_node_and_operator(step: Step, tmp_path: Path) -> None:
    model = models.make_foreign_operator(tmp_path / "spell.onnx")
    with pytest.raises(BuildFailedError, match=r"cannot read the model: node spell \(Sorcery\): Plugin not found"):
        step("build_engine", target="tensorrt-fp32", model=str(model), folder=str(tmp_path / "out"))


def test_an_input_that_decides_shapes_is_refused(step: Step, tmp_path: Path) -> None:
    model = models.save(
        tmp_path / "reshape.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="reshape")],
        [("x", TensorProto.FLOAT, [2, 6]), ("shape", TensorProto.INT64, [2])],
        [("y", TensorProto.FLOAT, ["a", "b"])],
        {},
    )
    with pytest.raises(BuildFailedError, match="the values of the input shape decide shapes") as caught:
        step("build_engine", target="tensorrt-fp32", model=str(model), folder=str(tmp_path / "out"))
    assert caught.value.hint == "export the model with that input as a constant"
    models.save(
        model,
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="reshape")],
        [("x", TensorProto.FLOAT, [2, 6])],
        [("y", TensorProto.FLOAT, [3, 4])],
        {"shape": np.array([3, 4])},
    )
    assert step("build_engine", target="tensorrt-fp32", model=str(model), folder=str(tmp_path / "out"))


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
    from concurrent.futures import ThreadPoolExecutor

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


def _signatures(function: Any) -> list[list[str]]:
    """Returns the argument names of each overload of a function that pybind made, `self` left out."""
    text = (function.__doc__ or "").strip()
    found = re.findall(rf"^(?:\d+\. )?{function.__name__}\((.*?)\) ->", text, re.MULTILINE)
    names = [re.findall(r"(?:^|, )(\w+):", arguments) for arguments in found]
    return [[name for name in overload if name != "self"] for overload in names]


def test_the_stand_in_has_the_names_of_the_real_module() -> None:
    """Classic TensorRT cannot be installed here; TensorRT for RTX has the same API, and its real module is compared."""
    real = pytest.importorskip(
        "tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed", exc_type=ImportError
    )
    compared = 0
    for name, mine in vars(stand_in).items():
        if name.startswith("_") or not inspect.isclass(mine) or mine.__module__ != stand_in.__name__:
            continue
        theirs = getattr(real, name)
        for member, function in vars(mine).items():
            if member.startswith("_"):
                continue
            assert hasattr(theirs, member) or member in _OWN.get(name, ()), f"{name}.{member}"
            if inspect.isfunction(function) and hasattr(theirs, member):
                arguments = [argument for argument in inspect.signature(function).parameters if argument != "self"]
                overloads = _signatures(getattr(theirs, member))
                if overloads:
                    # The vendor's further arguments have defaults.
                    fits = any(overload[: len(arguments)] == arguments for overload in overloads)
                    assert fits, f"{name}.{member}{arguments}: {overloads}"
                    compared += 1
    assert compared > 30
    assert _signatures(real.init_libnvinfer_plugins) == [["logger", "namespace"]]
    # What only TensorRT for RTX has and sessions use: it cannot run here.
    assert _signatures(real.ICudaEngine.create_execution_context)[1] == ["runtime_config"]
    assert hasattr(real.ICudaEngine, "create_runtime_config")
    assert hasattr(real.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    assert hasattr(real.DynamicShapesKernelSpecializationStrategy, "EAGER")
    for name in ("BuilderFlag", "DataType", "ErrorCode", "HardwareCompatibilityLevel", "LayerInformationFormat"):
        assert set(getattr(stand_in, name).__members__) <= set(getattr(real, name).__members__), name
    for name in ("MemoryPoolType", "NetworkDefinitionCreationFlag", "ProfilingVerbosity", "TensorIOMode"):
        assert set(getattr(stand_in, name).__members__) <= set(getattr(real, name).__members__), name
    assert set(stand_in.ILogger.Severity.__members__) == set(real.ILogger.Severity.__members__)


_OWN = {
    "INetworkDefinition": ("fill",),
    "ICudaEngine": ("input_names", "output_names"),
}
"""What only the stand-in has, for its own use."""
