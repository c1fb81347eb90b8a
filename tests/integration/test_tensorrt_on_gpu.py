"""TensorRT on a real GPU: `pytest -m "gpu and tensorrt"`.

Every flavour and precision that the machine can build and run goes the whole way; the others skip with their reason.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import pytest

from modelwright.core.errors import BadInputError, BuildFailedError, MeasurementInvalidError
from modelwright.core.process.child import Child, run_in_child
from modelwright.profiles import detect_host
from modelwright.targets.table import get_target

pytestmark = [pytest.mark.gpu, pytest.mark.tensorrt]

NAMES = tuple(
    f"{flavour}-{precision}" for flavour in ("tensorrt", "tensorrt-rtx") for precision in ("fp32", "fp16", "int8")
)
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.1}
"""Between one row alone and the same in a batch, which other kernels may compute; relative to the largest output."""

Step = Callable[..., Any]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        "PYTHONPATH": ":".join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))),
        "MODELWRIGHT_CACHE": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture(scope="module")
def step(environment: dict[str, str]) -> Iterator[Step]:
    with Child("using TensorRT on the GPU", environment=environment) as child:
        yield lambda function, **params: child.call(f"tensorrt_steps:{function}", params)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tensorrt")
    return {
        "model": models.make_cnn(folder / "cnn.onnx"),
        "samples": models.make_samples(folder / "samples.npz", x=(3, 12, 12)),
        "out": folder / "artifacts",
    }


def require(name: str) -> None:
    """Skips where this machine cannot build or run a target."""
    machine = detect_host().machine()
    for readiness in (get_target(name).check_run(machine), get_target(name).check_build(machine)):
        if not readiness.ok:
            pytest.skip(f"{name}: {readiness.reason}")


@pytest.fixture(scope="module", params=NAMES)
def built(request: pytest.FixtureRequest, step: Step, workplace: dict[str, Path]) -> tuple[str, dict[str, Any], str]:
    """Name, manifest and folder of an artifact that was built for this GPU."""
    name = request.param
    require(name)
    result = step(
        "build_artifacts",
        model=str(workplace["model"]),
        samples=str(workplace["samples"]),
        out=str(workplace["out"]),
        targets=[name],
        shapes=["x=1x3x12x12:2x3x12x12:16x3x12x12"],
    )
    assert result["absent"] == {}
    return name, result["manifests"][name], str(workplace["out"] / name)


def test_it_is_proved_on_the_gpu(built: tuple[str, dict[str, Any], str]) -> None:
    name, manifest, _ = built
    assert manifest["proof"]["device"] == "cuda"
    assert manifest["proof"]["emulated"] is None
    assert manifest["proof"]["fidelity"]["cosine"] > (0.99999 if name.endswith("fp32") else 0.99)


def test_the_precision_is_the_one_that_was_asked_for(built: tuple[str, dict[str, Any], str]) -> None:
    name, manifest, _ = built
    assert manifest["recipe"]["precision_proof"]["nodes"][name.rpartition("-")[2]] >= 1
    assert manifest["recipe"]["engine"]["tf32"] is False


def test_the_manifest_names_this_gpu(built: tuple[str, dict[str, Any], str], step: Step) -> None:
    _, manifest, folder = built
    gpu, here = manifest["requires"]["gpu"], detect_host().machine().gpu
    assert here is not None
    assert (gpu["name"], gpu["compute_capability"]) == (here.name, here.compute_capability)
    assert gpu["driver_version"] == here.driver_version
    assert step("verify", folder=folder) is None


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_all_ways_to_run_give_the_same(
    cuda_graph: bool, built: tuple[str, dict[str, Any], str], step: Step, workplace: dict[str, Path]
) -> None:
    name, _, folder = built
    precision = name.rpartition("-")[2]
    seen = step("compare_ways_to_run", folder=folder, samples=str(workplace["samples"]), cuda_graph=cuda_graph)
    assert seen["spread"] > 0.01 * seen["scale"]
    for way in ("alone", "again", "bound", "computed"):
        assert seen[way] <= 1e-5 * seen["scale"], way
    assert seen["batched"] <= TOLERANCES[precision] * seen["scale"]
    assert seen["streams"] == 2
    assert seen["graphs"] == [cuda_graph]
    executed = seen["executed"]
    assert executed["precision"] == precision
    assert "inspector" in executed["source"] or "table of layers" in executed["source"]


def test_it_is_measured(built: tuple[str, dict[str, Any], str], step: Step) -> None:
    _, _, folder = built
    for settings in ({}, {"cuda_graph": True, "streams": 2}, {"spin": True, "batch": 8}):
        measured = step("measure", folders={"a": folder}, **settings)["a"]
        assert measured["failure"] is None
        assert measured["rounds"] == 3
        assert min(measured["computations"]) > 0
        assert measured["cosine"] > 0.99
        assert measured["settings"]["cuda_graph"] is settings.get("cuda_graph", False)


def test_a_shape_outside_the_range(built: tuple[str, dict[str, Any], str], step: Step) -> None:
    _, _, folder = built
    assert step("run_shape", folder=folder, shape=[16, 3, 12, 12]) == [16, 5]
    with pytest.raises(MeasurementInvalidError, match="the input x has the shape 17x3x12x12") as caught:
        step("run_shape", folder=folder, shape=[17, 3, 12, 12])
    assert "--shapes" in str(caught.value.hint)


def test_a_changed_engine_is_never_loaded(built: tuple[str, dict[str, Any], str], step: Step, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(built[2], copy)
    data = bytearray((copy / "model.engine").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (copy / "model.engine").write_bytes(bytes(data))
    with pytest.raises(BadInputError, match="was changed"):
        step("load", folder=str(copy))


def test_too_little_gpu_memory_is_one_clear_error(
    built: tuple[str, dict[str, Any], str], environment: dict[str, str]
) -> None:
    with pytest.raises(MeasurementInvalidError, match="memory"):
        run_in_child(
            "tensorrt_steps:load_with_little_memory",
            {"folder": built[2], "left_bytes": 2**20},
            purpose="loading",
            environment=environment,
        )


def test_timings_are_reused(step: Step, workplace: dict[str, Path], tmp_path: Path) -> None:
    require("tensorrt-fp32")
    states = [
        step(
            "build_artifacts",
            model=str(workplace["model"]),
            samples=str(workplace["samples"]),
            out=str(tmp_path / str(number)),
            targets=["tensorrt-fp32"],
        )["manifests"]["tensorrt-fp32"]["recipe"]["engine"]["timing_cache"]["state"]
        for number in range(2)
    ]
    assert states[1] == "reused"


def test_engines_for_other_machines(step: Step, workplace: dict[str, Path], tmp_path: Path) -> None:
    """Version- and hardware-compatible engines load where they were built, which is the least they must do."""
    require("tensorrt-fp32")
    gpu = detect_host().machine().gpu
    assert gpu is not None
    options = ["version-compatible=true"]
    if float(gpu.compute_capability) >= 8.0:
        options.append("hardware-compatible=ampere-plus")
    manifest = step(
        "build_artifacts",
        model=str(workplace["model"]),
        samples=str(workplace["samples"]),
        out=str(tmp_path),
        targets=["tensorrt-fp32"],
        options=options,
    )["manifests"]["tensorrt-fp32"]
    assert manifest["proof"]["device"] == "cuda"
    assert manifest["requires"]["packages"]["tensorrt"].startswith(">=")


def test_parser_errors_name_node_and_operator(step: Step, tmp_path: Path) -> None:
    require("tensorrt-fp32")
    model = models.make_foreign_operator(tmp_path / "spell.onnx")
    here = detect_host().machine().gpu
    assert here is not None
    with pytest.raises(BuildFailedError, match=r"node spell \(Sorcery\)"):
        step(
            "build_engine",
            target="tensorrt-fp32",
            model=str(model),
            folder=str(tmp_path / "out"),
            capability=here.compute_capability,
        )
