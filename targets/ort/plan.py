"""Decides which nodes of a graph run in integers in ONNX Runtime, after what its selectors look for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelwright.core.onnx.facts import ONNX_DOMAINS, find_opset, read_attribute
from modelwright.targets.graphs.index import GraphIndex, find_weight_matmuls, index_graph
from modelwright.targets.graphs.rewrite import PER_AXIS_OPSET

SHARED_RANGE_OPS = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split"})
"""Operators that move values about: their output keeps their input's scale, and they run on the integers."""
PADDING_OP = "Pad"
"""Keeps its input's scale too, but ONNX Runtime knows no Q/DQ around it: it is written on the integers themselves."""
OWN_RANGE_OPS = frozenset({"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu"})
"""Operators with an integer kernel and a scale of their own for the result."""


@dataclass(kw_only=True)
class StaticPlan:
    """Which nodes of a graph run in integers, and which tensors need a range for that.

    Attributes:
        integer: Names of the Conv, MatMul and Gemm nodes that run in integers.
        carried: Names of the nodes between them that do, too.
        absorbed: Node name -> the Relu or Clip after it, which the saturation of the quantizer does for free.
        sources: Tensor that is quantized where it is made -> the tensor whose range it has.
        entries: Tensors that stay float and are quantized only for the integer nodes that read them.
    """

    integer: list[str] = field(default_factory=list)
    carried: set[str] = field(default_factory=set)
    absorbed: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    entries: dict[str, None] = field(default_factory=dict)

    def quantize_result(self, node: Any, output: str, activation: Any | None) -> None:
        """Notes that a node's result is quantized where it is made, after the activation that this replaces."""
        self.sources[output] = output
        if activation is not None:
            self.absorbed[node.name] = activation

    def ranged_tensors(self) -> list[str]:
        """Returns the tensors whose ranges have to be known."""
        return list(dict.fromkeys([*self.sources.values(), *self.entries]))


def find_quantizable(model: Any, index: GraphIndex) -> list[str]:
    """Returns the nodes that carry constant weights and have a static integer kernel, in the graph's order."""
    dense = {node.name for node in find_weight_matmuls(model, index) if _has_integer_form(node, index)}
    return [node.name for node in model.graph.node if node.name in dense or _is_quantizable_conv(node, index)]


def plan_static(model: Any, kept_float: Collection[str], *, carry: bool) -> StaticPlan:
    """Decides what runs in integers.

    Args:
        model: A normalized float model.
        kept_float: Names of nodes that must not.
        carry: Whether the operators between the weighted ones run in integers as well. Pays in a CNN; in a
            transformer it would put sums and normalizations into 8 bits, which costs accuracy for nothing.
    """
    index = index_graph(model)
    plan = StaticPlan(integer=[name for name in find_quantizable(model, index) if name not in kept_float])
    integer = set(plan.integer)
    for node in model.graph.node:
        if node.name in integer:
            if node.input[0] not in plan.sources:
                plan.entries[node.input[0]] = None
            output, activation = _find_activation(node, index)
            # A Conv has an integer kernel only with an integer result; MatMul and Gemm may give floats, and do
            # unless everything after them wants integers. A float result still needs its activation.
            readers = index.consumers.get(output, [])
            wanted = carry and bool(readers) and output not in index.outputs
            if node.op_type == "Conv" or (wanted and all(reader.name in integer for reader in readers)):
                plan.quantize_result(node, output, activation)
        elif carry and node.domain in ONNX_DOMAINS and node.name not in kept_float:
            if node.op_type == PADDING_OP and find_opset(model) >= PER_AXIS_OPSET:
                _plan_padding(node, index, plan, integer)
            else:
                _plan_carried(node, index, plan)
    return plan


def find_dynamic(model: Any, index: GraphIndex) -> list[str]:
    """Returns the MatMul, Gemm and LSTM nodes with constant weights that ONNX Runtime can quantize as it runs.

    GRU has no integer kernel; Conv has one (ConvInteger) that runs several times slower than float.
    """
    dense = {node.name for node in find_weight_matmuls(model, index) if not read_attribute(node, "transA", 0)}
    return [node.name for node in model.graph.node if node.name in dense or _is_quantizable_lstm(node, index)]


def _has_integer_form(node: Any, index: GraphIndex) -> bool:
    """Whether ONNX Runtime's integer Gemm takes the node: it has no beta and wants its bias as a vector."""
    if node.op_type == "MatMul":
        return True
    if read_attribute(node, "beta", 1.0) != 1.0 or read_attribute(node, "transA", 0):
        return False
    if len(node.input) < 3 or not node.input[2]:
        return True
    columns = index.constants[node.input[1]].dims[0 if read_attribute(node, "transB", 0) else 1]
    return index.is_float_constant(node.input[2]) and list(index.constants[node.input[2]].dims) in (
        [columns],
        [1, columns],
    )


def _is_quantizable_conv(node: Any, index: GraphIndex) -> bool:
    if node.op_type != "Conv" or node.domain not in ONNX_DOMAINS or not index.is_float_constant(node.input[1]):
        return False
    return len(node.input) < 3 or not node.input[2] or index.is_float_constant(node.input[2])


def _find_activation(node: Any, index: GraphIndex) -> tuple[str, Any | None]:
    """Finds a Relu or Clip that quantizing the node's result would make superfluous: its output and itself."""
    output = str(node.output[0])
    reader = index.sole_consumer(output)
    if reader is None or reader.domain not in ONNX_DOMAINS:
        return output, None
    if reader.op_type == "Relu" or (reader.op_type == "Clip" and _clips_around_zero(reader, index)):
        return str(reader.output[0]), reader
    return output, None


def _clips_around_zero(node: Any, index: GraphIndex) -> bool:
    """Whether [0, x] or [-x, y] bounds a Clip: ranges always contain zero, so only these lie within the bounds."""
    low = read_attribute(node, "min", -np.inf)
    high = read_attribute(node, "max", np.inf)
    for position, name in enumerate(node.input[1:3]):
        if name and name not in index.constants:
            return False
        if name:
            value = float(index.array(name).reshape(-1)[0])
            low, high = (value, high) if position == 0 else (low, value)
    return bool(low <= 0 <= high)


def _plan_carried(node: Any, index: GraphIndex, plan: StaticPlan) -> None:
    if not node.input or any(name not in plan.sources for name in _data_inputs(node, index)):
        return
    if node.op_type in SHARED_RANGE_OPS and node.input[0] in plan.sources:
        if node.op_type == "MaxPool" and len(node.output) > 1:
            return  # the indices need the float kernel
        plan.carried.add(node.name)
        for output in node.output:
            plan.sources[output] = plan.sources[node.input[0]]
    elif node.op_type in OWN_RANGE_OPS and any(name in plan.sources for name in node.input):
        if node.op_type == "AveragePool" and read_attribute(node, "dilations", None) is not None:
            return
        plan.carried.add(node.name)
        plan.quantize_result(node, *_find_activation(node, index))


def _plan_padding(node: Any, index: GraphIndex, plan: StaticPlan, integer: Collection[str]) -> None:
    """Carries a Pad with zeros that reads integers, or that only integer layers read: its input is quantized then."""
    output, source = str(node.output[0]), str(node.input[0])
    value = str(node.input[2]) if len(node.input) > 2 else ""
    if output in index.outputs or (value and not (index.is_float_constant(value) and not index.array(value).any())):
        return
    if source not in plan.sources:
        if any(reader.name not in integer for reader in index.consumers.get(output, [])):
            return
        plan.entries[source] = None
    plan.carried.add(node.name)
    plan.sources[output] = plan.sources.get(source, source)


def _data_inputs(node: Any, index: GraphIndex) -> list[str]:
    """Returns the inputs that carry activations: all of an arithmetic operator, the first of one that moves values."""
    if node.op_type in SHARED_RANGE_OPS:
        return list(node.input[:1])
    return [name for name in node.input if name and not index.is_float_constant(name)]


def _is_quantizable_lstm(node: Any, index: GraphIndex) -> bool:
    if node.op_type != "LSTM" or read_attribute(node, "layout", 0):
        return False
    return all(index.is_float_constant(name) for name in node.input[1:3])
