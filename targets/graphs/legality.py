"""Finds what TensorRT's parser rejects or misreads in an ONNX graph, before it is asked.

What counts as a fault was tried out on the parser of TensorRT for RTX 1.7.1 and read in the importer of NVIDIA's
onnx-tensorrt (`QuantDequantLinearHelper`, docs/operators.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.facts import ONNX_DOMAINS, find_opset, read_attribute
from modelwright.core.onnx.walk import find_subgraphs
from modelwright.targets.graphs.dtypes import PAIR_OPERATORS, name_type
from modelwright.targets.readiness import require_import

_INTEGER_OPERATORS = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
)
"""ONNX's operators on integers, none of which TensorRT has (onnx-tensorrt, docs/operators.md)."""
_LISTED_FAULTS = 12
_OTHER_TYPES = ("float8_e4m3fn", "int4", "float4_e2m1fn")
"""What TensorRT takes besides int8 (its documentation, "Working with Quantized Types")."""
_BLOCKED_OPSET = 21
"""The first opset with scales for blocks of values."""

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
    faults = _check_nodes(model.graph, _Scope(), "", model)
    for function in model.functions:
        faults += _check_nodes(function, _Scope(), f"{function.name}/", model)
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


@dataclass(kw_only=True)
class _Scope:
    """What is known of the tensors that a graph can read: its own and those of the graphs around it."""

    constants: dict[str, Any] = field(default_factory=dict)
    producers: dict[str, Any] = field(default_factory=dict)
    consumers: dict[str, list[Any]] = field(default_factory=dict)

    def enter(self, graph: Any) -> _Scope:
        inner = _Scope(constants=dict(self.constants), producers=dict(self.producers))
        inner.constants.update({tensor.name: tensor for tensor in getattr(graph, "initializer", ())})
        for node in graph.node:
            inner.producers.update(dict.fromkeys(node.output, node))
            if node.op_type == "Constant":
                values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
                inner.constants.update(zip(node.output, values, strict=False))
            for name in node.input:
                inner.consumers.setdefault(name, []).append(node)
        return inner

    def find_constant(self, name: str) -> Any | None:
        """Returns a constant's tensor, looking through Identity."""
        producer = self.producers.get(name)
        if name not in self.constants and producer is not None and producer.op_type == "Identity":
            return self.find_constant(producer.input[0])
        return self.constants.get(name)


def _check_nodes(graph: Any, outer: _Scope, prefix: str, model: Any) -> list[GraphFault]:
    scope = outer.enter(graph)
    faults = []
    for node in graph.node:
        faults += _check_node(node, scope, prefix, model)
        for inner in find_subgraphs(node):
            faults += _check_nodes(inner, scope, f"{prefix}{node.name or node.op_type}/", model)
    return faults


def _check_node(node: Any, scope: _Scope, prefix: str, model: Any) -> list[GraphFault]:
    operator = node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}.{node.op_type}"
    name = prefix + (node.name or (node.output[0] if node.output else node.op_type))
    is_pair = node.op_type in PAIR_OPERATORS
    found = _check_pair(node, scope, model) if is_pair else list(_check_operator(node))
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


def _check_pair(node: Any, scope: _Scope, model: Any) -> list[_Finding]:
    faults: list[_Finding] = []
    kind = _find_quantized_type(node, scope, model)
    if kind == "int32":
        faults.append(
            (
                "a quantized bias: TensorRT dequantizes no int32",
                "leave the bias in float (QuantizeBias=False)",
                "rejected",
            )
        )
    elif kind == "uint8" and node.op_type == "QuantizeLinear":
        said = len(node.input) > 2 and node.input[2]
        faults.append(
            (
                "quantizes to uint8"
                + ("" if said else ", ONNX's default where no zero point is given")
                + ", which TensorRT reads as int8: values above 127 are cut off",
                "use int8 (QuantType.QInt8) with a zero point of int8 0",
                "misread",
            )
        )
    elif kind not in (None, "int8", *_OTHER_TYPES):
        faults.append((f"the quantized type is {kind}", "use int8 (QuantType.QInt8)", "rejected"))
    zero_point = scope.find_constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if zero_point is not None and kind in ("int8", "uint8") and np.any(_read_values(zero_point, 0)):
        faults.append(
            (
                "its zero point is not 0: TensorRT quantizes symmetrically only",
                "quantize symmetrically (ActivationSymmetric=True, WeightSymmetric=True)",
                "rejected",
            )
        )
    return faults + _check_scale(node, scope, model)


def _check_scale(node: Any, scope: _Scope, model: Any) -> list[_Finding]:
    scale = scope.find_constant(node.input[1])
    if scale is None:
        return []
    faults: list[_Finding] = []
    if not np.all(_read_values(scale, 1) > 0):
        faults.append(
            ("a scale is not positive", "give channels without any weight a small positive scale", "rejected")
        )
    if not list(scale.dims):
        return faults
    if _is_fed_by_pair(node, scope):
        return faults  # its shape is checked at the node that quantizes
    source = scope.find_constant(node.input[0])
    if source is None:
        faults.append(
            (
                f"an activation with a scale of shape {list(scale.dims)}",
                "give activations one scalar scale: TensorRT runs the layer in float otherwise",
                "not fused",
            )
        )
        return faults
    return faults + list(_check_axis(node, list(source.dims), int(np.prod(scale.dims)), scope, model))


def _is_fed_by_pair(node: Any, scope: _Scope) -> bool:
    producer = scope.producers.get(node.input[0])
    return node.op_type == "DequantizeLinear" and producer is not None and producer.op_type == "QuantizeLinear"


def _check_axis(node: Any, dims: list[int], count: int, scope: _Scope, model: Any) -> Iterator[_Finding]:
    axis = read_attribute(node, "axis", 1)
    if not -len(dims) <= axis < len(dims):
        yield f"its axis {axis} is no dimension of {dims}", "quantize along the output channels", "rejected"
        return
    if find_opset(model) >= _BLOCKED_OPSET and read_attribute(node, "block_size", 0):
        return
    if dims[axis] != count:
        yield f"{count} scales for {dims[axis]} channels", "give one scale a channel, or one in all", "rejected"
        return
    for reader, name in _find_readers(node, scope):
        wanted = _find_channel_axis(reader, name, len(dims))
        if wanted is not None and axis % len(dims) != wanted:
            yield (
                f"one scale for each index of axis {axis}, but {reader.op_type} {reader.name} has its output "
                f"channels on axis {wanted}",
                f"quantize this weight along axis {wanted}: TensorRT runs the layer in float otherwise",
                "not fused",
            )


def _find_readers(node: Any, scope: _Scope) -> Iterator[tuple[Any, str]]:
    """Yields the layers that read a Q/DQ node's result, through the pair's other node, and the name that they read."""
    name = node.output[0]
    for reader in scope.consumers.get(name, []):
        if node.op_type == "QuantizeLinear" and reader.op_type == "DequantizeLinear":
            yield from _find_readers(reader, scope)
        else:
            yield reader, name


def _find_channel_axis(reader: Any, name: str, rank: int) -> int | None:
    """Returns the axis of a weight's output channels; None where the reader has none or reads it as something else."""
    if len(reader.input) < 2 or reader.input[1] != name:
        return None
    if reader.op_type == "Conv":
        return 0
    if reader.op_type == "Gemm":
        return 0 if read_attribute(reader, "transB", 0) else 1
    return rank - 1 if reader.op_type == "MatMul" else None


def _find_quantized_type(node: Any, scope: _Scope, model: Any) -> str | None:
    """Returns the integer type of a Q/DQ node; None when the graph does not say."""
    if node.op_type == "QuantizeLinear":
        if len(node.input) > 2 and node.input[2]:
            return _find_declared_type(node.input[2], scope, model)
        said = read_attribute(node, "output_dtype", 0)
        return name_type(said) if said else "uint8"
    if _is_fed_by_pair(node, scope):
        return None  # reported at the node that quantizes
    return _find_declared_type(node.input[0], scope, model)


def _find_declared_type(name: str, scope: _Scope, model: Any) -> str | None:
    constant = scope.find_constant(name)
    if constant is not None:
        return name_type(constant.data_type)
    for value in (*model.graph.input, *model.graph.value_info):
        if value.name == name:
            return name_type(value.type.tensor_type.elem_type)
    return None


def _read_values(tensor: Any, unknown: int) -> Any:
    """Returns a constant's values; `unknown` for one kept in another file that was not loaded."""
    numpy_helper = require_import("onnx.numpy_helper", "onnx")
    if tensor.external_data and not tensor.raw_data:
        return np.array(unknown)
    return np.asarray(numpy_helper.to_array(tensor), np.float64)
