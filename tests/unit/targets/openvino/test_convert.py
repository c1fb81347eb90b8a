"""What OpenVINO's words say of a model that does not convert, and what is fixed for one that does then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import numpy as np
import onnx
import pytest
from onnx import helper

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.machine import Machine
from modelwright.core.records.shapes import ShapeRange
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.contract import BuildRequest
from modelwright.targets.openvino.convert import convert_model, name_obstacle

STFT = """Check 'false' failed at src/frontends/common_translators/src/unconverted_ops_report.cpp:151:
FrontEnd API failed with OpConversionFailure:
Model wasn't fully converted. Failed operations detailed log:
-- ReduceSum-17 with a message:
[ONNX Frontend] Conversion failed for ReduceSum-17
Check '(supported_types.find(ov_input.get_element_type()) != supported_types.end())' failed at op/reduce.cpp:134:
While validating ONNX node '<Node(ReduceSum): pow>':
Unsupported input type dynamic

-- STFT-17 with a message:
[ONNX Frontend] Conversion failed for STFT-17
Check '(signal_param_shape.is_static() && signal_param_shape.size() == 3)' failed at op/stft.cpp:54:
While validating ONNX node '<Node(STFT): spec>':
Shape of signal input must be static with the rank equal to 3.

Summary:
-- Conversion is failed for: ReduceSum-17, STFT-17
"""
NO_RULE = """Model wasn't fully converted.
Summary:
-- No conversion rule found for operations: com.microsoft.Sorcery, Det-17
"""
MISSING = """Check 'false' failed at src/frontends/common/src/frontend.cpp:47:
Loading input model
Input tensor isn't found for node "W"

"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    nodes = [
        helper.make_node("Sorcery", ["x"], ["a"], name="spell", domain="com.microsoft"),
        helper.make_node("Det", ["a"], ["d"]),
        helper.make_node("STFT", ["d"], ["spec"]),
        helper.make_node("ReduceSum", ["spec"], ["pow"]),
    ]
    return models.save(tmp_path / "m.onnx", nodes, [("x", 1, ["n", 4])], [("pow", 1, ["n"])], {})


@pytest.mark.parametrize(
    ("text", "obstacle"),
    [
        (STFT, "operator STFT (node spec): Shape of signal input must be static with the rank equal to 3."),
        (NO_RULE, "it has no conversion for com.microsoft.Sorcery (node spell), Det (node d)"),
        (MISSING, 'Input tensor isn\'t found for node "W"'),
        ("", "it does not say why"),
    ],
)
def test_the_cause_is_named_not_what_follows_of_it(path: Path, text: str, obstacle: str) -> None:
    assert name_obstacle(text, path) == obstacle


class Fake:
    """Converts only where some dimensions are fixed."""

    def __init__(self, needed: tuple[int, ...]) -> None:
        self.needed, self.tried = needed, []

    def convert_model(self, path: str, input: dict[str, list[int]] | None = None) -> Any:  # noqa: A002 - the vendor's
        shape = (input or {"x": [-1, -1, 8]})["x"]
        self.tried.append(shape)
        if any(shape[axis] == -1 for axis in self.needed):
            raise RuntimeError(STFT)
        port = SimpleNamespace(get_names=lambda: {"x", "pow"})
        return SimpleNamespace(inputs=[port], outputs=[port])


def make_request(tmp_path: Path, lengths: tuple[int, int], dtype: str = "float32") -> BuildRequest:
    constant = {"w": np.ones((8, 8), dtype)}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["pow"])]
    shape = ["batch", "length", 8]
    path = models.save(tmp_path / "m.onnx", nodes, [("x", kind, shape)], [("pow", kind, shape)], constant)
    spec = TensorSpec(name="x", dtype=dtype, shape=("batch", "length", 8))
    return BuildRequest(
        model_path=path,
        signature=Signature(inputs=(spec,), outputs=(TensorSpec(name="pow", dtype=dtype, shape=spec.shape),)),
        directory=tmp_path,
        machine=Machine(name="box", architecture="x86_64", instruction_sets=frozenset(), cores=2),
        calibration=None,
        tuning=None,
        reference=None,
        scratch=tmp_path,
        shared=tmp_path,
        progress=lambda line: None,
        shapes={"x": ShapeRange(minimum=(1, lengths[0], 8), optimum=(1, lengths[1], 8), maximum=(32, lengths[1], 8))},
    )


def test_what_converts_as_it_is_keeps_its_dimensions(tmp_path: Path) -> None:
    fake = Fake(())
    converted = convert_model(fake, make_request(tmp_path, (16, 16)))
    assert converted.signature.inputs[0].shape == ("batch", "length", 8)
    assert converted.notes == ()
    assert len(fake.tried) == 1


def test_the_batch_is_fixed_first_and_said(tmp_path: Path) -> None:
    converted = convert_model(Fake((0,)), make_request(tmp_path, (16, 16)))
    assert converted.signature.inputs[0].shape == (1, "length", 8)
    assert converted.signature.outputs[0].shape == (1, "length", 8)
    (note,) = converted.notes
    assert "batch is fixed at 1: OpenVINO cannot convert it otherwise (operator STFT (node spec): Shape" in note


def test_a_length_that_never_varies_is_fixed_where_the_batch_does_not_suffice(tmp_path: Path) -> None:
    fake = Fake((0, 1))
    converted = convert_model(fake, make_request(tmp_path, (16, 16)))
    assert fake.tried == [[-1, -1, 8], [1, -1, 8], [1, 16, 8]]
    assert converted.signature.inputs[0].shape == (1, 16, 8)
    assert "batch is fixed at 1, length is fixed at 16" in converted.notes[0]


def test_a_length_that_varies_is_not_fixed_and_the_refusal_names_the_node(tmp_path: Path) -> None:
    fake = Fake((1,))
    with pytest.raises(BuildFailedError, match=r"operator STFT \(node spec\): Shape of signal") as caught:
        convert_model(fake, make_request(tmp_path, (8, 16)))
    assert fake.tried == [[-1, -1, 8], [1, -1, 8]]
    assert "the ort-* targets" in (caught.value.hint or "")


def test_float64_is_float32_in_the_artifact_and_said(tmp_path: Path) -> None:
    request = make_request(tmp_path, (16, 16), "float64")
    converted = convert_model(Fake(()), request)
    assert [spec.dtype for spec in (*converted.signature.inputs, *converted.signature.outputs)] == ["float32"] * 2
    assert "float64 is float32 here" in converted.notes[0]
    assert onnx.load(tmp_path / "adapted.onnx").graph.input[0].type.tensor_type.elem_type == 1
    assert onnx.load(request.model_path).graph.input[0].type.tensor_type.elem_type == 11
