"""What ONNX Runtime's operators are on a CPU: which multiply, which only convert, and which have no integer kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelwright.core.records.operators import Kind, Remedy

FLOAT_COMPUTE = frozenset(
    {"Attention", "Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "GRU", "Gemm", "LSTM", "MatMul"}
    | {"GroupQueryAttention", "MatMulNBits", "MultiHeadAttention", "NhwcFusedConv", "RNN"}
)
INTEGER_COMPUTE = frozenset(
    {"ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat"}
    | {"QAttention", "QGemm", "QLinearConv", "QLinearMatMul"}
)
_CONVERSIONS = frozenset(
    {"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear", "ReorderInput", "ReorderOutput", "Transpose"}
    | {"MemcpyFromHost", "MemcpyToHost"}
)
_SHAPES = frozenset({"Shape", "Size"})
"""They read no value of their input."""
_PRECISIONS: Mapping[str, str] = {
    "bfloat16": "bf16",
    "double": "fp64",
    "float": "fp32",
    "float16": "fp16",
    "int8": "int8",
    "uint8": "int8",
}
_FREE = "Relu, which costs nothing after a convolution"
_CHANGES: Mapping[str, str | None] = {
    "BiasGelu": "replace Gelu by Relu before training",
    "ConvTranspose": "replace ConvTranspose by Resize (mode nearest) and Conv before training",
    "Elu": f"replace Elu by {_FREE}, or by LeakyRelu, before training",
    "FastGelu": "replace Gelu by Relu before training",
    "GRU": None,
    "Gelu": "replace Gelu by Relu before training",
    "GlobalMaxPool": "replace GlobalMaxPool by GlobalAveragePool before training",
    "HardSigmoid": f"replace HardSwish by {_FREE}, and HardSigmoid by Sigmoid, before training",
    "HardSwish": f"replace HardSwish by {_FREE}, before training",
    "InstanceNormalization": "replace InstanceNormalization by BatchNormalization, which convolutions absorb, before "
    "training",
    "LSTM": "build ort-int8-dynamic, which quantizes LSTM",
    "LayerNormalization": None,
    "PRelu": f"replace PRelu by LeakyRelu, or by {_FREE}, before training",
    "RNN": None,
    "Selu": f"replace Selu by {_FREE}, before training",
    "SkipLayerNormalization": None,
    "Softplus": f"replace Mish and Softplus by {_FREE}, before training",
    "Tanh": None,
}
"""Operators that ran in float between quantized convolutions (onnxruntime 1.31.1, x86-64), and what to do instead."""
REMEDIES: Mapping[str, Remedy] = {
    name: Remedy(type=name, reason="has no integer kernel in ONNX Runtime", change=change)
    for name, change in _CHANGES.items()
} | {
    "Resize": Remedy(
        type="Resize",
        reason="has an integer kernel in ONNX Runtime for mode nearest only",
        change="use Resize with mode nearest",
    )
}


def classify(operator: str, types: Sequence[str]) -> tuple[Kind, str | None]:
    """Returns what an operator does, and the precision that it executes in.

    Args:
        operator: Its type after ONNX Runtime's optimizations.
        types: Of its inputs in ONNX Runtime's words, or of its outputs where it has no inputs.
    """
    if operator in INTEGER_COMPUTE:
        return "compute", "int8"
    precision = _PRECISIONS.get(types[0]) if types and operator not in _SHAPES else None
    if operator == "Cast" and precision is not None:
        return "conversion", None
    if operator in _CONVERSIONS:
        return "conversion", None
    return "compute" if operator in FLOAT_COMPUTE else "other", precision
