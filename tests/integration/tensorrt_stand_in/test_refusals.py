"""What building and running is refused for; then what the hint says is done, and it helps. See `refusals/`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from onnx import TensorProto, helper
from stand_in.steps import Step

from modelwright.core.errors import (
    BuildFailedError,
    MeasurementInvalidError,
    ModelwrightError,
    ToolchainMissingError,
)


@pytest.mark.parametrize(
    ("env", "kind", "message"),
    [
        ({"STAND_IN_FAIL": "deserialize:oom"}, MeasurementInvalidError, "load the engine: there is not enough GPU mem"),
        ({"STAND_IN_FAIL": "context:oom"}, MeasurementInvalidError, "execution context: there is not enough GPU mem"),
        ({"STAND_IN_FAIL": "enqueue:unknown"}, MeasurementInvalidError, "run the engine: Internal Error"),
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


def test_an_output_whose_shape_the_values_decide_is_cut_off(step: Step, tmp_path: Path) -> None:
    """The build finds it where it proves the engine, before anything is delivered."""
    shape = ["batch", 4]
    nodes = [
        helper.make_node("Relu", ["x"], ["kept"], name="relu"),
        helper.make_node("NonZero", ["kept"], ["places"], name="find"),
    ]
    kept, places = ("kept", TensorProto.FLOAT, shape), ("places", TensorProto.INT64, [2, "found"])
    model, x = tmp_path / "places.onnx", [("x", TensorProto.FLOAT, shape)]
    models.save(model, nodes, x, [kept, places], {})
    samples = models.make_samples(tmp_path / "samples.npz", count=8, labelled=False, x=(4,))

    def build() -> Any:
        paths = {"model": str(model), "samples": str(samples), "out": str(tmp_path / "out")}
        return step("build_artifacts", **paths, targets=["tensorrt-fp32"])

    words = "the shape of the output places depends on the values of the inputs"
    with pytest.raises(ModelwrightError, match=words) as caught:
        build()
    assert "cut the network before the operator that does so (NonZero," in str(caught.value.hint)
    assert not (tmp_path / "out" / "tensorrt-fp32").exists()
    models.save(model, nodes[:1], x, [kept], {})
    assert build()["manifests"]


def test_a_network_in_float16_is_exported_in_float32(step: Step, workplace: dict[str, Path], tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    shape = ["batch", 4]
    nodes = [
        helper.make_node("Cast", ["x"], ["low"], name="lower", to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["low", "w"], ["product"], name="layer"),
        helper.make_node("Cast", ["product"], ["y"], name="raise", to=TensorProto.FLOAT),
    ]
    ports = [("x", TensorProto.FLOAT, shape)], [("y", TensorProto.FLOAT, shape)]

    def build() -> Any:
        return step("build_engine", target="tensorrt-fp32", model=str(half), folder=str(tmp_path / "out"))

    models.save(half, nodes, *ports, {"w": np.eye(4, dtype=np.float16)})
    with pytest.raises(BuildFailedError, match=r"a request for FP32 that yields FP16: .* 1 in FP16") as caught:
        build()
    assert caught.value.hint == "the model holds such types itself: export it in float32"
    layer = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    models.save(half, [layer], *ports, {"w": np.eye(4, dtype=np.float32)})
    assert build()["recipe"]["precision_proof"]["nodes"] == {"fp32": 1}


def test_an_engine_of_other_outputs_is_built_again(
    built: dict[str, Any], step: Step, workplace: dict[str, Path], build_again: Callable[..., str]
) -> None:
    folder = str(workplace["out"] / "tensorrt-fp32")
    with pytest.raises(
        MeasurementInvalidError, match="the engine has y where the manifest's signature has z"
    ) as caught:
        step("load", folder=folder, output="z")
    assert caught.value.hint == "build it again"
    assert step("load", folder=build_again({}), output="y")


def test_a_manifest_that_does_not_say_what_it_needs_is_built_again(
    built: dict[str, Any], step: Step, build_again: Callable[..., str]
) -> None:
    ok, reason, hint = step("check_artifact", target="tensorrt-fp32", requires={"packages": {}})
    assert (ok, reason) == (False, "its manifest does not say which GPU and version it needs")
    assert hint == "build it again for this machine: modelwright build ... --target tensorrt-fp32 --profile host"
    assert step("verify", folder=build_again({})) is None
    requires = built["tensorrt-fp32"]["requires"]
    assert step("check_artifact", target="tensorrt-fp32", requires=requires)[0]
