"""What an ONNX model and its nodes say of themselves."""

from __future__ import annotations

import onnx
import pytest

from modelwright.core.onnx.facts import is_quantized_operator


def test_of_onnxs_own_operators_seven_are_quantized() -> None:
    names = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert {name for name in names if is_quantized_operator(name)} == {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
        *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"),
    }


@pytest.mark.parametrize(
    ("name", "quantized"),
    [
        ("MatMulNBits", True),
        ("MatMulBnb4", True),
        ("MatMulFpQ4", True),
        ("MatMulIntegerToFloat", True),
        ("DynamicQuantizeLSTM", True),
        ("GatherBlockQuantized", True),
        ("QAttention", True),
        ("QMoE", True),
        ("QuickGelu", False),
        ("FusedConv", False),
    ],
)
def test_of_onnx_runtimes_own_they_are_told_by_their_names(name: str, quantized: bool) -> None:
    assert is_quantized_operator(name) is quantized
