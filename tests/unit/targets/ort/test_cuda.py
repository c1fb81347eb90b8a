"""ONNX Runtime on CUDA: readiness from the files that are installed, and which nodes on the CPU count as fallbacks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.nvidia.probe import DriverStatus
from modelwright.core.records.machine import Machine
from modelwright.targets.ort import cuda_target as ort_cuda
from modelwright.targets.ort.cuda_placement import (
    PlacedNode,
    describe_placement,
    find_fallbacks,
    find_lookalikes,
    find_shape_nodes,
    name_nodes,
    word_fallbacks,
)
from modelwright.targets.ort.cuda_session import captured_stderr

HERE = Machine(name="box", architecture=os.uname().machine, instruction_sets=frozenset(), cores=2)


def pretend_ort(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, top: str, packages: tuple[str, ...], cuda: str | None
) -> None:
    """Lays out the files of an installed ONNX Runtime; nothing of it can be imported."""
    capi = folder / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (capi.parent / "__init__.py").write_text("raise AssertionError('imported')\n")
    info = f"package_name = '{top}'\n__version__ = '1.31.1'\n" + (f"cuda_version = '{cuda}'\n" if cuda else "")
    (capi / "build_and_package_info.py").write_text(info)
    if "onnxruntime-gpu" in packages:
        (capi / "libonnxruntime_providers_cuda.so").touch()
    for name in packages:
        meta = folder / f"{name.replace('-', '_')}-1.31.1.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.31.1\n")
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)


def pretend_driver(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    reason = None if version else "no NVIDIA driver: libcuda.so.1 is not there"
    status = DriverStatus(
        ok=version is not None, reason=reason, hint="install it", cuda_version=version, device_count=int(bool(version))
    )
    monkeypatch.setattr(ort_cuda, "probe_driver", lambda: status)


@pytest.mark.parametrize(
    ("top", "packages", "cuda", "driver", "reason"),
    [
        ("onnxruntime", ("onnxruntime",), None, "13.0", "the ONNX Runtime here is onnxruntime, which has no CUDA"),
        ("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), None, "13.0", "the files of the CPU package lie on top"),
        ("onnxruntime-gpu", ("onnxruntime-gpu",), "13.0", None, "no NVIDIA driver"),
        ("onnxruntime-gpu", ("onnxruntime-gpu",), "13.0", "12.8", "CUDA 13.0, and the driver supports CUDA 12.8"),
        ("onnxruntime-gpu", ("onnxruntime-gpu",), "12.8", "13.0", None),
        ("onnxruntime-gpu", ("onnxruntime", "onnxruntime-gpu"), "13.0", "13.1", None),
    ],
)  # fmt: skip
def test_readiness_from_what_is_installed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    top: str,
    packages: tuple[str, ...],
    cuda: str | None,
    driver: str | None,
    reason: str | None,
) -> None:
    pretend_ort(monkeypatch, tmp_path, top=top, packages=packages, cuda=cuda)
    pretend_driver(monkeypatch, driver)
    readiness = ort_cuda.OrtCudaFp32().check_run(HERE)
    assert readiness.ok == (reason is None)
    assert (reason or "") in (readiness.reason or "")
    assert readiness.ok or readiness.hint


def test_nothing_installed_and_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    assert "onnxruntime-gpu is not installed" in (ort_cuda.check_installed().reason or "")
    other = Machine(name="jetson", architecture="sparc", instruction_sets=frozenset(), cores=1)
    assert "another machine" in (ort_cuda.OrtCudaFp16().check_run(other).reason or "")


def make_shape_graph() -> onnx.ModelProto:
    """An embedding, a reshape whose shape is computed, and a `Gather` for each of the two purposes."""
    constants = {
        "table": np.zeros((30, 8), np.float32),
        "zero": np.array(0, np.int64),
        "minus": np.array([-1], np.int64),
        "axis": np.array([0], np.int64),
        "big": np.zeros(200, np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"], name="embed"),
        helper.make_node("Shape", ["x"], ["s"], name="shape"),
        helper.make_node("Gather", ["s", "zero"], ["n"], name="take_batch"),
        helper.make_node("Unsqueeze", ["n", "axis"], ["n1"], name="widen"),
        helper.make_node("Concat", ["n1", "minus"], ["to"], axis=0, name="join"),
        helper.make_node("Concat", ["to", "big"], ["large"], axis=0, name="large"),
        helper.make_node("Reshape", ["x", "to"], ["flat"], name="flatten"),
        helper.make_node("Relu", ["flat"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_shape_computations_are_told_from_tensors() -> None:
    model = make_shape_graph()
    shape_nodes = find_shape_nodes(model)
    assert shape_nodes == {"shape": "Shape", "take_batch": "Gather", "widen": "Unsqueeze", "join": "Concat"}
    assert find_lookalikes(model, shape_nodes) == ["embed", "large"]


def test_unnamed_nodes_get_names_of_their_own() -> None:
    model = make_shape_graph()
    model.graph.node[0].name = "Relu_7"
    assert name_nodes(model)
    assert [node.name for node in model.graph.node][-1] == "Relu_7_"
    assert not name_nodes(model)


def place(provider: str, **operators: str) -> list[PlacedNode]:
    return [PlacedNode(name=name, operator=operator, provider=provider) for name, operator in operators.items()]


def test_fallbacks_are_named_and_shapes_are_not_blamed() -> None:
    shape_nodes = {"shape": "Shape", "take_batch": "Gather"}
    nodes = [
        *place("CUDAExecutionProvider", conv="Conv", embed="Gather"),
        *place("CPUExecutionProvider", shape="Shape", take_batch="Gather", made="Gather", nms="NonMaxSuppression"),
    ]  # fmt: skip
    fallbacks = find_fallbacks(nodes, shape_nodes, {"embed"})
    assert [node.name for node in fallbacks] == ["nms"]
    assert word_fallbacks(fallbacks) == "NonMaxSuppression (node nms)"
    assert describe_placement(nodes, fallbacks) == {
        "nodes": {"CUDAExecutionProvider": 2, "CPUExecutionProvider": 4},
        "cpu_fallback": [{"node": "nms", "operator": "NonMaxSuppression"}],
        "shape_operators_on_cpu": {"Shape": 1, "Gather": 2},
    }
    # The embedding on the CPU is a fallback, though its operator also computes shapes.
    moved = place("CPUExecutionProvider", embed="Gather", take_batch="Gather")
    assert [node.name for node in find_fallbacks(moved, shape_nodes, {"embed"})] == ["embed"]


def test_many_fallbacks_are_cut_short() -> None:
    nodes = place("CPUExecutionProvider", **{f"n{number}": "Odd" for number in range(7)})
    assert word_fallbacks(nodes) == ", ".join(f"Odd (node n{number})" for number in range(5)) + " and 2 more"


def test_native_output_is_captured_and_standard_error_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_stderr() as printed:
        os.write(2, b"library not found\n")
    os.write(2, b"afterwards\n")
    assert printed() == "library not found"
    assert capfd.readouterr().err == "afterwards\n"
