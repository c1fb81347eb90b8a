"""Finds what TensorRT's parser rejects or misreads in an ONNX graph, before it is asked.

What counts as a fault was tried out on the parser of TensorRT for RTX 1.7.1 and read in the importer of NVIDIA's
onnx-tensorrt (`QuantDequantLinearHelper`, docs/operators.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.facts import ONNX_DOMAINS
from modelwright.targets.graphs.dtypes import PAIR_OPERATORS, name_type, read_ir, walk_nodes
from modelwright.targets.readiness import require_import

_INTEGER_OPERATORS = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
)
"""ONNX's operators on integers, none of which TensorRT has (onnx-tensorrt, docs/operators.md)."""
_LISTED_FAULTS = 12
_OTHER_TYPES = ("float8_e4m3fn", "int4", "float4_e2m1fn")
"""What TensorRT takes besides int8 (its documentation, "Working with Quantized Types")."""

Effect = Literal["rejected", "misread", "not fused"]
_Finding = tuple[str, str, Effect]
"""Problem, cure and effect."""


@dataclass(frozen=True, kw_only=True)
class GraphFault:
    """One thing in a graph that TensorRT does not take as it is meant.

    Attributes:
        node: Name of the node, or its first output when it has none; of one in a subgraph with the owner before it.
        operator: Its operator, with the domain when it is not ONNX's own.
        problem: What is wrong.
        cure: What to do about it.
        effect: `rejected` by the parser, `misread` (taken with other numbers), or `not fused` (taken, but computed in
            float).
    """

    node: str
    operator: str
    problem: str
    cure: str
    effect: Effect = "rejected"

    def describe(self) -> str:
        return f"{self.node} ({self.operator}): {self.problem}; {self.cure}"


def check_graph(model: Any) -> list[GraphFault]:
    """Finds what TensorRT rejects or misreads in a quantized graph, subgraphs and functions included.

    Args:
        model: An ONNX model; its external data may be left out, then only what the graph itself says is checked.
    """
    typed = read_ir(model)
    faults = [fault for node, prefix in walk_nodes(typed.graph) for fault in _check_node(node, prefix)]
    for function in typed.functions.values():
        for node, prefix in walk_nodes(function, f"{function.name}/"):
            faults += _check_node(node, prefix)
    return faults


def require_legal(model: Any, target_name: str) -> None:
    """Checks a graph before TensorRT is asked. What would only run in float is let through.

    Raises:
        BuildFailedError: Lists node, operator, problem and cure.
    """
    faults = [fault for fault in check_graph(model) if fault.effect != "not fused"]
    if not faults:
        return
    shown = [fault.describe() for fault in faults[:_LISTED_FAULTS]]
    if len(faults) > _LISTED_FAULTS:
        shown.append(f"and {len(faults) - _LISTED_FAULTS} more")
    raise BuildFailedError(
        f"{target_name}: TensorRT does not take this graph: {faults[0].describe()}",
        hint="give the float model that it was made from: the quantized targets quantize it themselves",
        detail="\n".join(shown),
    )


def _check_node(node: Any, prefix: str) -> list[GraphFault]:
    operator = node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}.{node.op_type}"
    name = prefix + (node.name or (node.outputs[0].name if node.outputs else node.op_type))
    is_pair = node.op_type in PAIR_OPERATORS
    found = _check_pair(node) if is_pair else list(_check_operator(node))
    return [
        GraphFault(node=name, operator=operator, problem=problem, cure=cure, effect=effect)
        for problem, cure, effect in found
    ]


def _check_operator(node: Any) -> Iterator[_Finding]:
    onnx = require_import("onnx", "onnx")
    if node.op_type in _INTEGER_OPERATORS:
        static = node.op_type.startswith("QLinear")
        yield (
            "TensorRT has no operators on integers",
            "quantize with QuantizeLinear and DequantizeLinear around the float operator"
            + (" (QuantFormat.QDQ instead of QOperator)" if static else ": ranges must be known, so calibrate"),
            "rejected",
        )
    elif node.domain == "com.microsoft" and not onnx.defs.has(node.op_type):
        yield (
            "an operator of ONNX Runtime's own, which TensorRT does not have",
            "export without ONNX Runtime's optimizer and quantizer, in ONNX's own operators",
            "rejected",
        )


def _check_pair(node: Any) -> list[_Finding]:
    faults: list[_Finding] = []
    kind = _find_quantized_type(node)
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if kind == "int32":
        faults.append(
            (
                "a quantized bias: TensorRT dequantizes no int32",
                "leave the bias in float (QuantizeBias=False)",
                "rejected",
            )
        )
    elif kind == "uint8" and node.op_type == "QuantizeLinear":
        faults.append(
            (
                "quantizes to uint8"
                + ("" if zero_point is not None else ", ONNX's default where no zero point is given")
                + ", which TensorRT reads as int8: values above 127 are cut off",
                "use int8 (QuantType.QInt8) with a zero point of int8 0",
                "misread",
            )
        )
    elif kind not in (None, "int8", *_OTHER_TYPES):
        faults.append((f"the quantized type is {kind}", "use int8 (QuantType.QInt8)", "rejected"))
    if kind in ("int8", "uint8") and np.any(_read_values(_find_constant(zero_point), 0)):
        faults.append(
            (
                "its zero point is not 0: TensorRT quantizes symmetrically only",
                "quantize symmetrically (ActivationSymmetric=True, WeightSymmetric=True)",
                "rejected",
            )
        )
    return faults + _check_scale(node)


def _check_scale(node: Any) -> list[_Finding]:
    scale = _find_constant(node.inputs[1])
    if scale is None:
        return []
    faults: list[_Finding] = []
    if not np.all(_read_values(scale, 1) > 0):
        faults.append(
            ("a scale is not positive", "give channels without any weight a small positive scale", "rejected")
        )
    if not scale.shape.rank():
        return faults
    if _is_fed_by_pair(node):
        return faults  # its shape is checked at the node that quantizes
    source = _find_constant(node.inputs[0])
    if source is None:
        faults.append(
            (
                f"an activation with a scale of shape {list(scale.shape)}",
                "give activations one scalar scale: TensorRT runs the layer in float otherwise",
                "not fused",
            )
        )
        return faults
    return faults + list(_check_axis(node, list(source.shape), scale.size))


def _is_fed_by_pair(node: Any) -> bool:
    producer = node.inputs[0].producer()
    return node.op_type == "DequantizeLinear" and producer is not None and producer.op_type == "QuantizeLinear"


def _check_axis(node: Any, dims: list[int], count: int) -> Iterator[_Finding]:
    axis = node.attributes.get_int("axis", 1)
    if not -len(dims) <= axis < len(dims):
        yield f"its axis {axis} is no dimension of {dims}", "quantize along the output channels", "rejected"
        return
    if node.attributes.get_int("block_size", 0):
        return
    if dims[axis] != count:
        yield f"{count} scales for {dims[axis]} channels", "give one scale a channel, or one in all", "rejected"
        return
    for reader, position in _find_readers(node):
        wanted = _find_channel_axis(reader, position, len(dims))
        if wanted is not None and axis % len(dims) != wanted:
            yield (
                f"one scale for each index of axis {axis}, but {reader.op_type} {reader.name} has its output "
                f"channels on axis {wanted}",
                f"quantize this weight along axis {wanted}: TensorRT runs the layer in float otherwise",
                "not fused",
            )


def _find_readers(node: Any) -> Iterator[tuple[Any, int]]:
    """Yields the layers that read a Q/DQ node's result, through the pair's other node, and as which of their inputs."""
    for reader, position in node.outputs[0].uses():
        if node.op_type == "QuantizeLinear" and reader.op_type == "DequantizeLinear":
            yield from _find_readers(reader)
        else:
            yield reader, position


def _find_channel_axis(reader: Any, position: int, rank: int) -> int | None:
    """Returns the axis of a weight's output channels; None where the reader has none or reads it as something else."""
    if position != 1:
        return None
    if reader.op_type == "Conv":
        return 0
    if reader.op_type == "Gemm":
        return 0 if reader.attributes.get_int("transB", 0) else 1
    return rank - 1 if reader.op_type == "MatMul" else None


def _find_quantized_type(node: Any) -> str | None:
    """Returns the integer type of a Q/DQ node; None when the graph does not say."""
    if node.op_type == "QuantizeLinear":
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            return _find_declared_type(node.inputs[2])
        said = node.attributes.get_int("output_dtype", 0)
        return name_type(require_import("onnx_ir", "modelopt").DataType(said)) if said else "uint8"
    if _is_fed_by_pair(node):
        return None  # reported at the node that quantizes
    return _find_declared_type(node.inputs[0])


def _find_declared_type(value: Any) -> str | None:
    constant = _find_constant(value)
    return name_type(value.dtype if constant is None else constant.dtype)


def _find_constant(value: Any | None) -> Any | None:
    """Returns the values of a constant as onnx-ir's tensor, looking through Identity; None of what is none."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "Identity":
        return _find_constant(producer.inputs[0])
    return None if value is None else require_import("onnx_ir", "modelopt").convenience.get_const_tensor(value)


def _read_values(tensor: Any | None, unknown: int) -> Any:
    """Returns a constant's values; `unknown` for none, and for one kept in another file that was not loaded."""
    ir = require_import("onnx_ir", "modelopt")
    if tensor is None or isinstance(tensor, ir.ExternalTensor):
        return np.array(unknown)
    return np.asarray(tensor.numpy(), np.float64)
