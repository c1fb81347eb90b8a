"""ONNX Runtime on CUDA: its artifacts are built for real anywhere; running them needs onnxruntime-gpu and a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from fake_driver.build import build_fake_driver
from onnx import TensorProto, helper

from modelwright.core.errors import MeasurementInvalidError, ToolchainMissingError
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.process.child import run_in_child
from modelwright.core.records.artifact_files import hash_files
from modelwright.core.records.codec import encode
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.profiles import detect_host
from modelwright.targets.contract import BuildRequest, BuildResult, RunSettings, Target
from modelwright.targets.ort import cuda_target as ort_cuda
from modelwright.targets.ort.cuda_placement import RECORD_ENTRY, find_shape_nodes, read_placement
from modelwright.targets.ort.cuda_session import judge_placement

MACHINE = Machine(name="box", architecture="x86_64", instruction_sets=frozenset(), cores=2)
CNN = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 3, 12, 12)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 5)),),
)
TARGETS: tuple[type[Target], ...] = (ort_cuda.OrtCudaFp32, ort_cuda.OrtCudaFp16)


def build(target: type[Target], model: Path, folder: Path, *, allow: bool = False) -> BuildResult:
    folder.mkdir()
    scratch = folder.with_name(f"{folder.name}-scratch")
    scratch.mkdir()
    samples = open_samples(SampleRef(path=models.make_samples(scratch / "s.npz", x=(3, 12, 12))), CNN)
    request = BuildRequest(
        model_path=model, signature=CNN, directory=folder, machine=MACHINE, calibration=samples, tuning=None,
        reference=None, scratch=scratch, shared=scratch, progress=lambda _: None,
        options={"allow-cpu-fallback": allow},
    )  # fmt: skip
    return target().build(request)


@pytest.fixture
def feeds() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(3).standard_normal((2, 3, 12, 12)).astype(np.float32)}


@pytest.mark.parametrize("target", TARGETS)
def test_artifacts_are_built_without_a_gpu_and_follow_fp32(
    tmp_path: Path, feeds: dict[str, np.ndarray], target: type[Target]
) -> None:
    readiness = target().check_build(MACHINE)
    if not readiness.ok:
        pytest.skip(str(readiness.reason))
    model = models.make_cnn(tmp_path / "cnn.onnx")
    built = build(target, model, tmp_path / "a", allow=True)
    path = tmp_path / "a" / built.model_file
    types = {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) > 1}
    half = target is ort_cuda.OrtCudaFp16
    assert types == {TensorProto.FLOAT16 if half else TensorProto.FLOAT}
    assert (built.recipe["precision"], built.recipe["tf32"]) == ("fp16" if half else "fp32", False)
    assert built.recipe["allow_cpu_fallback"] is True
    assert built.requires == {"packages": {"onnxruntime-gpu": ">=1.24"}}
    with ReferenceModel(model) as reference, ReferenceModel(path) as graph, ReferenceModel(built.emulation) as emulated:
        expected = reference.run(feeds)["y"]
        for outputs in (graph.run(feeds), emulated.run(feeds)):
            np.testing.assert_allclose(outputs["y"], expected, atol=(5e-3 if half else 1e-6) * np.abs(expected).max())


def test_weights_in_files_of_their_own_come_along(tmp_path: Path) -> None:
    model = onnx.load(models.make_cnn(tmp_path / "cnn.onnx"))
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "m.onnx"
    onnx.save(model, source, save_as_external_data=True, location="weights.bin", size_threshold=0)
    built = build(ort_cuda.OrtCudaFp32, source, tmp_path / "a")
    assert {path.name for path in (tmp_path / "a").iterdir()} == {built.model_file, "weights.bin"}
    with ReferenceModel(tmp_path / "a" / built.model_file) as graph:
        assert graph.run({"x": np.ones((1, 3, 12, 12), np.float32)})["y"].shape == (1, 5)


def make_odd_graph(path: Path) -> Path:
    """A shape computation, and a node (`odd`) besides."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], name="shape"),
        helper.make_node("Gather", ["s", "zero"], ["n"], name="take"),
        helper.make_node("Concat", ["n", "minus"], ["to"], axis=0, name="join"),
        helper.make_node("Reshape", ["x", "to"], ["f"], name="flatten"),
        helper.make_node("Det", ["m"], ["d"], name="odd"),
        helper.make_node("Add", ["f", "d"], ["y"], name="add"),
    ]
    constants = {"zero": np.array([0], np.int64), "minus": np.array([-1], np.int64)}
    inputs = [("x", TensorProto.FLOAT, ["batch", "a", "b"]), ("m", TensorProto.FLOAT, [4, 4])]
    return models.save(path, nodes, inputs, [("y", TensorProto.FLOAT, None)], constants)


def open_on_cpu(path: Path) -> Any:
    """Opens a model as the session does, with the provider that every ONNX Runtime has."""
    ort = pytest.importorskip("onnxruntime", minversion="1.24", reason="needs ONNX Runtime 1.24 for node assignments")
    options = ort.SessionOptions()
    options.add_session_config_entry(RECORD_ENTRY, "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def test_assignment_is_read_back_from_onnx_runtime_itself(tmp_path: Path) -> None:
    path = make_odd_graph(tmp_path / "odd.onnx")
    placed = {node.name: (node.operator, node.provider) for node in read_placement(open_on_cpu(path))}
    assert placed["odd"] == ("Det", "CPUExecutionProvider")
    assert placed["add"] == ("Add", "CPUExecutionProvider")


def test_nodes_on_the_cpu_fail_the_artifact_unless_allowed(tmp_path: Path) -> None:
    path = make_odd_graph(tmp_path / "odd.onnx")
    session = open_on_cpu(path)
    recipe = {"shape_nodes": find_shape_nodes(onnx.load(path)), "lookalikes": []}
    with pytest.raises(MeasurementInvalidError) as caught:
        judge_placement(session, recipe)
    assert "Det (node odd)" in caught.value.message
    assert "Shape" not in caught.value.message
    assert "allow-cpu-fallback" in (caught.value.hint or "")
    nodes, fallbacks = judge_placement(session, recipe | {"allow_cpu_fallback": True})
    assert {node.name for node in fallbacks} == {"odd", "add", "flatten"}
    assert len(nodes) >= len(fallbacks)


def test_without_a_gpu_loading_ends_in_one_clear_error(tmp_path: Path) -> None:
    readiness = ort_cuda.OrtCudaFp32().check_run(detect_host().machine())
    if readiness.ok:
        pytest.skip("there is a GPU and onnxruntime-gpu")
    assert readiness.hint
    build(ort_cuda.OrtCudaFp32, models.make_cnn(tmp_path / "cnn.onnx"), tmp_path / "a")
    with pytest.raises(ToolchainMissingError) as caught:
        run_in_child(
            "modelwright.targets.building.prove:prove_in_child",
            {
                "target": "ort-cuda-fp32", "directory": str(tmp_path / "a"), "model_file": "model.onnx", "recipe": {},
                "device": "cuda", "files": hash_files(tmp_path / "a"), "options": {}, "signature": encode(CNN),
                "reference": str(tmp_path), "chain": None, "chains": str(tmp_path),
                "evaluation": encode(SampleRef(path=tmp_path / "a-scratch" / "s.npz")), "threads": 1,
                "roles": {}, "answers": None, "kept": None,
            },
            purpose="loading",
        )  # fmt: skip
    assert caught.value.message


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_the_session_on_a_fake_driver(tmp_path: Path, feeds: dict[str, np.ndarray], cuda_graph: bool) -> None:
    """All but CUDA itself: memory, copies, streams and bindings, with ONNX Runtime's CPU provider as a stand-in."""
    pytest.importorskip("onnxruntime", minversion="1.24", reason="needs ONNX Runtime 1.24 for node assignments")
    model = models.make_cnn(tmp_path / "cnn.onnx")
    built = build(ort_cuda.OrtCudaFp32, model, tmp_path / "a")
    with ReferenceModel(model) as reference:
        expected = [reference.run({"x": feeds["x"][:1]})["y"], reference.run(feeds)["y"]]
    told = run_in_child(
        "ort_cuda_checks:run_on_stand_in",
        {
            "directory": str(tmp_path / "a"),
            "model_file": built.model_file,
            "recipe": dict(built.recipe),
            "cuda_graph": cuda_graph,
            "x": feeds["x"].tolist(),
        },
        purpose="running on a fake driver",
        timeout_s=120,
        environment={
            "PYTHONPATH": str(Path(__file__).parent),
            "LD_LIBRARY_PATH": str(build_fake_driver(tmp_path / "driver")),
        },
    )
    for outputs in (told["plain"], told["bound"][:2], told["bound"][2:]):
        for found, wanted in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert told["options"]["user_compute_stream"] == str(told["stream"])
    assert told["options"]["use_tf32"] == "0"
    assert told["options"]["enable_cuda_graph"] == str(int(cuda_graph))
    # A captured graph reads and writes fixed addresses: each bound input has one of its own.
    assert told["graphs"] == (["1", "2", "3"] if cuda_graph else ["-1"])
    assert told["uses_graph"] == cuda_graph
    assert told["executed"]["precision"] == "fp32"
    assert set(told["executed"]["nodes"]) == {"CUDAExecutionProvider"}


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_on_the_gpu(tmp_path: Path, feeds: dict[str, np.ndarray], target: type[Target], cuda_graph: bool) -> None:
    host = detect_host().machine()
    for readiness in (target().check_build(host), target().check_run(host)):
        if not readiness.ok:
            pytest.skip(f"{target.record.name}: {readiness.reason}")
    model = models.make_cnn(tmp_path / "cnn.onnx")
    built = build(target, model, tmp_path / "a")
    with ReferenceModel(model) as reference:
        expected = reference.run(feeds)["y"]
    told = run_in_child(
        "ort_cuda_checks:run_on_gpu",
        {
            "target": target.record.name,
            "directory": str(tmp_path / "a"),
            "model_file": built.model_file,
            "recipe": dict(built.recipe),
            "cuda_graph": cuda_graph,
            "x": feeds["x"].tolist(),
        },
        purpose=f"running {target.record.name} on the GPU",
        timeout_s=300,
        environment={"PYTHONPATH": str(Path(__file__).parent)},
    )
    limit = 5e-3 if target is ort_cuda.OrtCudaFp16 else 1e-5
    for outputs in told["outputs"]:
        np.testing.assert_allclose(outputs, expected, atol=limit * np.abs(expected).max())
    assert told["stream"] != 0
    assert told["uses_graph"] == cuda_graph
    executed = told["executed"]
    assert executed["cpu_fallback"] == []
    assert executed["nodes"]["CUDAExecutionProvider"] >= 5, executed
    assert executed["tf32"] is False
    assert executed["device"] == "cuda"


@pytest.mark.gpu
def test_several_streams_are_refused_on_the_gpu(tmp_path: Path) -> None:
    host = detect_host().machine()
    readiness = ort_cuda.OrtCudaFp32().check_run(host)
    if not readiness.ok:
        pytest.skip(str(readiness.reason))
    built = build(ort_cuda.OrtCudaFp32, models.make_cnn(tmp_path / "cnn.onnx"), tmp_path / "a")
    settings = RunSettings(device="cuda", streams=2)
    with (
        pytest.raises(MeasurementInvalidError, match="several streams"),
        ort_cuda.OrtCudaFp32().load(tmp_path / "a", built.model_file, built.recipe, CNN, settings),
    ):
        pass
