"""What is read from ONNX files, and how crashes and a full disk are told."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.outputs.reference import name_operator
from modelwright.core.process.child import run_in_child
from modelwright.exporters.onnx import file as onnx_file
from modelwright.exporters.onnx.validate import validate_model

HERE = {"PYTHONPATH": str(Path(__file__).parent)}


@pytest.fixture(autouse=True)
def _children_find_their_module(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    parts = [HERE["PYTHONPATH"], os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(part for part in parts if part))


def test_crash_names_the_phase(tmp_path: Path) -> None:
    path = models.make_cnn(tmp_path / "m.onnx")
    phases: list[str] = []
    with pytest.raises(BadInputError, match=r"crashed during onnx's shape inference: .*SIGABRT"):
        run_in_child(
            "crashing:crash_in_shape_inference",
            {"path": str(path)},
            purpose=f"checking {path}",
            crash_error=BadInputError,
            progress=phases.append,
        )
    assert phases == ["reading the ONNX file", "onnx's checker", "onnx's shape inference"]


def test_full_disk_is_explained(tmp_path: Path) -> None:
    path = models.make_cnn(tmp_path / "m.onnx")
    params = {"path": str(path), "directory": str(tmp_path / "staging")}
    with pytest.raises(BuildFailedError, match="no space left on the disk"):
        run_in_child("crashing:fill_disk", params, purpose="checking")


def test_unnamed_dimensions_get_names(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    x, y = ("x", TensorProto.FLOAT, [None, 3, -1, "width"]), ("y", TensorProto.FLOAT, None)
    path = models.save(tmp_path / "m.onnx", nodes, [x], [y], {})
    signature = onnx_file.read_signature(path, onnx.load(path))
    assert signature.inputs[0].shape == ("batch", 3, "dim_2", "width")
    assert signature.outputs[0].shape is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (
            "NOT_IMPLEMENTED : Could not find an implementation for Celu(12) node with name 'act'",
            "operator Celu, node act",
        ),
        ("Fatal error: com.example:Sorcery(-1) is not a registered function/op", "operator com.example:Sorcery"),
        (
            "Non-zero status code returned while running Gather node. Name:'pick' Status Message: out of bounds",
            "operator Gather, node pick",
        ),
        ("something else", None),
    ],
)
def test_blamed_operators_are_named(text: str, place: str | None) -> None:
    assert name_operator(text) == place


def test_a_source_with_quantized_weights_is_not_called_fp32(tmp_path: Path) -> None:
    """No operator of it quantizes anything: its weights were, once and for all."""
    shape = ["batch", 4]
    path = models.save(
        tmp_path / "m.onnx",
        [
            helper.make_node("DequantizeLinear", ["i", "s"], ["w"], "weights"),
            helper.make_node("MatMul", ["x", "w"], ["y"], "layer"),
        ],
        [("x", TensorProto.FLOAT, shape)],
        [("y", TensorProto.FLOAT, shape)],
        {"i": np.eye(4, dtype=np.int8), "s": np.float32(0.1)},
    )
    notes = validate_model(path, lambda _phase: None).notes
    assert notes == (
        "the model's weights are quantized already (DequantizeLinear): what is called FP32 here is float arithmetic "
        "with these weights, not the model that they were made from",
    )
    plain = models.make_cnn(tmp_path / "plain.onnx")
    assert not validate_model(plain, lambda _phase: None).notes
