"""What `targets/ort/kernels.py` says of ONNX Runtime, asked of ONNX Runtime: which operators it runs in integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import documents
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from modelwright.core.records.codec import encode
from modelwright.core.records.operators import OperatorProfile
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.contract import RunSettings
from modelwright.targets.ort.kernels import REMEDIES
from modelwright.targets.ort.session import OrtSession

CHANNELS, SIZE = 16, 32
RNG = np.random.default_rng(0)


class Graph:
    """A graph of quantized operators, as quantizers write them: everything between a Q and a DQ."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def quantize(self, tensor: str, zero_point: int = 128) -> str:
        scale, zero = self.constant(f"{tensor}_s", np.float32(0.05)), self.constant(f"{tensor}_z", np.uint8(zero_point))
        self.add("QuantizeLinear", [tensor, scale, zero], f"{tensor}_q")
        return self.add("DequantizeLinear", [f"{tensor}_q", scale, zero], f"{tensor}_dq")

    def convolve(self, tensor: str, output: str) -> str:
        weight = self.constant(f"{output}_w", RNG.integers(-99, 99, (CHANNELS, CHANNELS, 3, 3), dtype=np.int8))
        scale = self.constant(f"{output}_ws", np.float32(0.003))
        bias = self.constant(f"{output}_b", RNG.integers(-99, 99, CHANNELS, dtype=np.int32))
        bias_scale = self.constant(f"{output}_bs", np.float32(0.003 * 0.05))
        inputs = [tensor, *(self.add("DequantizeLinear", pair, f"{pair[0]}_dq") for pair in (
            [weight, scale], [bias, bias_scale]))]  # fmt: skip
        return self.add("Conv", inputs, output, pads=[1, 1, 1, 1])


def profile_between_convolutions(
    folder: Path, operator: str, *inputs: Any, direct: bool = False, **attributes: Any
) -> OperatorProfile:
    """Profiles an operator whose input and output are quantized, between two quantized convolutions.

    Args:
        folder: For the model.
        operator: Its type.
        inputs: Its constants; a text for a tensor.
        direct: Whether it reads the convolution as it is, not quantized first, and makes nothing below zero.
        attributes: Of the operator.
    """
    graph = Graph()
    first = graph.convolve(graph.quantize("x"), "first")
    quantized = first if direct else graph.quantize(first)
    others = [one if isinstance(one, str) else graph.constant(f"e{i}", one) for i, one in enumerate(inputs)]
    graph.add(operator, [quantized, *others], "probed", **attributes)
    last = graph.quantize(graph.convolve(graph.quantize("probed", 0 if direct else 128), "last"))
    shape = (1, CHANNELS, SIZE, SIZE)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "g",
            [helper.make_tensor_value_info("x", 1, shape)],
            [helper.make_tensor_value_info(last, 1, None)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(model, folder / "m.onnx")
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=shape),),
        outputs=(TensorSpec(name=last, dtype="float32", shape=(None, None, None, None)),),
    )
    session = OrtSession(folder / "m.onnx", signature, RunSettings(profiled=True), is_float=False, profiles_in=folder)
    return session.profile_operators({"x": RNG.standard_normal(shape).astype(np.float32)})


ONES, ZEROS = np.ones(CHANNELS, np.float32), np.zeros(CHANNELS, np.float32)
NO_INTEGER: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "ConvTranspose": ("ConvTranspose", (RNG.standard_normal((CHANNELS, CHANNELS, 2, 2)).astype(np.float32),), {}),
    "Elu": ("Elu", (), {}),
    "Gelu": ("Gelu", (), {}),
    "GlobalMaxPool": ("GlobalMaxPool", (), {}),
    "HardSigmoid": ("HardSwish", (), {}),
    "InstanceNormalization": ("InstanceNormalization", (ONES, ZEROS), {}),
    "LayerNormalization": ("LayerNormalization", (np.ones(SIZE, np.float32),), {}),
    "PRelu": ("PRelu", (np.full((CHANNELS, 1, 1), 0.2, np.float32),), {}),
    "Resize": ("Resize", (np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)), {"mode": "linear"}),
    "Selu": ("Selu", (), {}),
    "Softplus": ("Softplus", (), {}),
    "Tanh": ("Tanh", (), {}),
}
"""Type as it runs -> the operator in the model."""


@pytest.mark.parametrize("ran", NO_INTEGER)
def test_what_has_no_integer_kernel_runs_in_float(tmp_path: Path, ran: str) -> None:
    operator, inputs, attributes = NO_INTEGER[ran]
    profile = profile_between_convolutions(tmp_path, operator, *inputs, **attributes)
    found = [entry.precision for entry in profile.types if entry.type == ran]
    assert found == ["fp32"]
    assert ran in [remedy.type for remedy in profile.remedies]


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes"),
    [
        ("LeakyRelu", (), {"alpha": 0.1}),
        ("Sigmoid", (), {}),
        ("GlobalAveragePool", (), {}),
        ("Resize", NO_INTEGER["Resize"][1], {"mode": "nearest"}),
    ],
)
def test_what_is_proposed_instead_has_one(
    tmp_path: Path, operator: str, inputs: tuple[Any, ...], attributes: dict[str, Any]
) -> None:
    profile = profile_between_convolutions(tmp_path, operator, *inputs, **attributes)
    assert {entry.precision for entry in profile.types} == {"int8", None}
    assert any(operator in entry.type for entry in profile.types)
    assert profile.remedies == ()


def test_relu_costs_nothing_after_a_convolution(tmp_path: Path) -> None:
    profile = profile_between_convolutions(tmp_path, "Relu", direct=True)
    assert {entry.precision for entry in profile.types} == {"int8", None}
    assert not any("Relu" in entry.type for entry in profile.types)


def test_each_remedy_is_asked_of_the_runtime() -> None:
    fused = {"BiasGelu", "FastGelu", "HardSwish", "SkipLayerNormalization"}
    recurrent = {"GRU", "LSTM", "RNN"}
    assert REMEDIES.keys() - fused - recurrent == NO_INTEGER.keys()


def explain(profile: OperatorProfile, ratio: float) -> str:
    """What a verdict says of an INT8 artifact with this profile that runs `ratio` times as fast as FP32."""
    rows = [
        documents.make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=1.0, agreement=1.0),
        documents.make_row(
            "ort-int8", "ONNX Runtime INT8", latency_ms=1 / ratio, ratio=ratio, agreement=1.0, operators=encode(profile)
        ),
    ]
    warnings = documents.judge(documents.make_document(rows)).warnings
    return " ".join(text for text in warnings if "ONNX Runtime INT8" in text)


@pytest.mark.parametrize("ran", ["HardSigmoid", "InstanceNormalization", "Tanh"])
def test_the_verdict_names_an_island_and_what_to_do(tmp_path: Path, ran: str) -> None:
    operator, inputs, attributes = NO_INTEGER[ran]
    text = explain(profile_between_convolutions(tmp_path, operator, *inputs, **attributes), 0.9)
    assert f"1 {ran} in FP32" in text
    assert f"{ran} has no integer kernel in ONNX Runtime" in text
    change = REMEDIES[ran].change
    assert change is None or change in text


def test_the_verdict_has_no_complaint_about_what_is_all_integers(tmp_path: Path) -> None:
    profile = profile_between_convolutions(tmp_path, "Relu", direct=True)
    assert "in FP32" not in explain(profile, 0.9)
    assert explain(profile, 2.5) == ""
