"""A request for one precision that yields another is an error: by the engine's layers, else by the graph's types."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelwright.core.errors import BuildFailedError
from modelwright.targets.tensorrt.engine import BuiltEngine
from modelwright.targets.tensorrt.layers import Layer
from modelwright.targets.tensorrt.proof import note_shares, prove_precision


def engine(*layers: Layer) -> BuiltEngine:
    return BuiltEngine(plan=b"", dynamic=True, layers=layers, layers_source="a listing", memory_bytes=None)


def layer(node: str, *reads: str) -> Layer:
    return Layer(name=node, kind="gemm", reads=reads, writes=("fp32",), nodes=(node,))


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Nodes conv1, depthwise and head multiply."""
    return models.make_cnn(tmp_path / "cnn.onnx")


def test_int8_engine_with_a_float_head(graph: Path) -> None:
    built = engine(layer("conv1", "int8", "fp32"), layer("depthwise", "int8"), layer("head", "fp16"))
    proof = prove_precision("int8", "tensorrt-int8", built, graph)
    assert proof == {
        "source": "a listing",
        "layers": {"int8": 2, "fp16": 1},
        "nodes": {"int8": 2, "fp16": 1},
        "work": None,
        "wider_nodes": ["head"],
        "widened_nodes": [],
    }
    assert note_shares("int8", proof) == []


def test_the_share_of_the_multiplications_is_told_where_it_is_small(graph: Path) -> None:
    built = engine(layer("conv1", "fp16"), layer("depthwise", "int8"), layer("head", "fp32"))
    proof = prove_precision("int8", "tensorrt-int8", built, graph, {"conv1": 600.0, "depthwise": 300.0, "head": 100.0})
    assert proof["work"] == {"fp16": 0.6, "int8": 0.3, "fp32": 0.1}
    (note,) = note_shares("int8", proof)
    assert note.startswith("only 30% of the multiplications run in INT8, 60% in FP16, 10% in FP32")
    mostly = prove_precision("int8", "tensorrt-int8", built, graph, {"conv1": 4.0, "depthwise": 6.0})
    assert note_shares("int8", mostly) == []


def make_half(graph: Path, path: Path) -> Path:
    """Writes the same network with all its tensors in float16."""
    model = onnx.load(graph)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        half = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        tensor.CopyFrom(half)
    onnx.save(model, path)
    return path


def test_layers_that_tensorrt_computes_wider_than_the_graph_has_them_are_told(graph: Path, tmp_path: Path) -> None:
    built = engine(layer("conv1", "fp32"), layer("depthwise", "fp16"), layer("head", "fp16"))
    proof = prove_precision("fp16", "tensorrt-fp16", built, make_half(graph, tmp_path / "half.onnx"))
    assert (proof["wider_nodes"], proof["widened_nodes"]) == (["conv1"], ["conv1"])
    assert note_shares("fp16", proof) == ["TensorRT computes layers wider than the graph has them (1): conv1"]


def test_fp16_that_yields_fp32_is_an_error(graph: Path) -> None:
    built = engine(*(layer(name, "fp32") for name in ("conv1", "depthwise", "head")))
    with pytest.raises(BuildFailedError, match=r"a request for FP16 that yields an engine without it.*3 in FP32"):
        prove_precision("fp16", "tensorrt-fp16", built, graph)


def test_int8_that_yields_fp16_is_an_error(graph: Path) -> None:
    # A layer around the multiplications that reads INT8 does not count.
    built = engine(layer("conv1", "fp16"), layer("relu1", "int8"))
    with pytest.raises(BuildFailedError, match="a request for INT8 that yields an engine without it"):
        prove_precision("int8", "tensorrt-int8", built, graph)


def test_fp32_that_yields_fp16_is_an_error(graph: Path) -> None:
    built = engine(layer("conv1", "fp32"), layer("head", "fp16"))
    with pytest.raises(BuildFailedError, match="a request for FP32 that yields FP16"):
        prove_precision("fp32", "tensorrt-fp32", built, graph)


def test_layers_that_name_no_nodes_count_themselves(graph: Path) -> None:
    built = engine(Layer(name="fused", kind="gemm", reads=("fp16",), writes=(), nodes=()))
    assert prove_precision("fp16", "tensorrt-fp16", built, graph)["nodes"] == {"fp16": 1}


def test_nodes_without_a_name_are_found_by_tensorrts_name_for_them(tmp_path: Path) -> None:
    path = models.save(
        tmp_path / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, ["batch", 4])],
        [("y", TensorProto.FLOAT, ["batch", 4])],
        {"w": np.eye(4, dtype=np.float32)},
    )
    assert prove_precision("fp32", "tensorrt-fp32", engine(layer("node_of_y", "fp32")), path)["nodes"] == {"fp32": 1}


def test_without_a_listing_the_types_of_the_graph_prove_it(graph: Path, tmp_path: Path) -> None:
    assert prove_precision("fp32", "tensorrt-fp32", engine(), graph)["nodes"] == {"fp32": 3}
    with pytest.raises(BuildFailedError, match="a request for FP16") as caught:
        prove_precision("fp16", "tensorrt-fp16", engine(), graph)
    assert "types of the ONNX graph" in str(caught.value.detail)
    proof = prove_precision("fp16", "tensorrt-fp16", engine(), make_half(graph, tmp_path / "half.onnx"))
    assert proof["nodes"] == {"fp16": 3}
    assert "which a strongly typed network obeys" in proof["source"]
