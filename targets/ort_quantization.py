"""Writes the INT8 graphs that ONNX Runtime's CPU kernels fuse: static Q/DQ and dynamic quantization.

Where a pair of QuantizeLinear and DequantizeLinear stands decides whether a node runs in integers at all, so the
pairs are placed here node by node after what ONNX Runtime's selectors look for, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.targets.base import require_import
from modelwright.targets.onnx_graph import (
    ONNX_DOMAINS,
    PER_AXIS_OPSET,
    GraphIndex,
    find_opset,
    find_weight_matmuls,
    index_graph,
    prune_graph,
    read_attribute,
    read_names,
    require_domain,
)

Array = npt.NDArray[Any]
Ranges = Mapping[str, tuple[float, float]]

SHARED_RANGE_OPS = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split"})
"""Operators that move values about: their output keeps their input's scale, and they run on the integers."""
OWN_RANGE_OPS = frozenset({"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu"})
"""Operators with an integer kernel and a scale of their own for the result."""
_BIAS_LIMIT = 2**30
_LEAST_SCALE = 1e-12
MICROSOFT_DOMAIN = "com.microsoft"


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """Number formats.

    Attributes:
        signed_activations: int8 activations instead of uint8.
        weight_limit: Weights are rounded to -limit..limit: 127, or 63 where sums of two products may saturate.
    """

    signed_activations: bool
    weight_limit: int

    def to_dict(self) -> dict[str, Any]:
        """Returns what a recipe says of it."""
        return {
            "activations": "int8 asymmetric" if self.signed_activations else "uint8 asymmetric",
            "weights": "int8 symmetric, one scale a channel",
            "weight_bits": 8 if self.weight_limit == 127 else 7,
        }


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
            _plan_carried(node, index, plan)
    return plan


def quantize_static(
    model: Any, plan: StaticPlan, ranges: Ranges, scheme: Scheme, weights: dict[str, Any] | None = None
) -> Any:
    """Returns a new model with Q/DQ pairs as planned; the float weights of integer nodes are not copied.

    Args:
        model: The float model that was planned.
        plan: From `plan_static`.
        ranges: Tensor -> smallest and largest value, for all `plan.ranged_tensors()`.
        scheme: Number formats.
        weights: Keeps quantized weights between calls on one model, for candidates that differ in ranges only.
    """
    return _StaticWriter(model, plan, ranges, scheme, {} if weights is None else weights).write()


def quantize_weight(values: Array, axis: int, limit: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Rounds a weight symmetrically with one scale a channel; -128 is never used.

    Returns:
        int8 values of the same shape, and float32 scales [channels].
    """
    others = tuple(position for position in range(values.ndim) if position != axis)
    largest = np.abs(values).max(axis=others)
    scales = np.asarray(np.maximum(largest / limit, _LEAST_SCALE), np.float32)
    return _round_weight(values, scales, axis, limit), scales


def _round_weight(values: Array, scales: npt.NDArray[np.float32], axis: int, limit: int) -> npt.NDArray[np.int8]:
    shape = [-1 if position == axis else 1 for position in range(values.ndim)]
    scaled = values / scales.reshape(shape)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -limit, limit, out=scaled).astype(np.int8)


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


def _data_inputs(node: Any, index: GraphIndex) -> list[str]:
    """Returns the inputs that carry activations: all of an arithmetic operator, the first of one that moves values."""
    if node.op_type in SHARED_RANGE_OPS:
        return list(node.input[:1])
    return [name for name in node.input if name and not index.is_float_constant(name)]


class _StaticWriter:
    """Writes one quantized copy of a model."""

    def __init__(self, model: Any, plan: StaticPlan, ranges: Ranges, scheme: Scheme, weights: dict[str, Any]) -> None:
        self._onnx = require_import("onnx", "onnx")
        self._model = model
        self._plan = plan
        self._ranges = ranges
        self._scheme = scheme
        self._weights = weights
        self._index = index_graph(model)
        # Old opsets have no scale per channel; ONNX Runtime's own operators of the same names do.
        self._domain = "" if find_opset(model) >= PER_AXIS_OPSET else MICROSOFT_DOMAIN
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._skipped = {node.name for node in plan.absorbed.values()}

    def write(self) -> Any:
        working = {*self._plan.integer, *self._plan.carried}
        for value in self._model.graph.input:
            if value.name in self._plan.entries:
                self._add_pair(value.name, value.name, value.name)
        for node in self._model.graph.node:
            if node.name not in self._skipped:
                self._write_node(node, working)
        return self._assemble()

    def _write_node(self, node: Any, working: set[str]) -> None:
        copy = self._onnx.NodeProto()
        copy.CopyFrom(node)
        is_working = node.name in working
        for position, name in enumerate(node.input):
            if name in self._plan.sources or (is_working and name in self._plan.entries):
                copy.input[position] = _dequantized(name)
            elif is_working and node.op_type in OWN_RANGE_OPS and self._index.is_float_constant(name):
                copy.input[position] = self._add_constant_operand(name)
        if node.name in self._plan.integer:
            self._quantize_parameters(node, copy)
            if node.op_type == "MatMul" and node.output[0] not in self._plan.sources:
                copy = self._fuse_matmul(node)
        self._nodes.append(copy)
        self._quantize_results(node, copy)

    def _quantize_results(self, node: Any, copy: Any) -> None:
        """Adds the pairs behind a node that was just written, and renames its outputs where they take its place."""
        for position, name in enumerate(copy.output):
            last = name
            if node.name in self._plan.absorbed:
                last = self._plan.absorbed[node.name].output[0]
                copy.output[position] = last
            if last in self._plan.sources:
                leaves = last in self._index.outputs
                raw = f"{last}_float" if leaves else last
                copy.output[position] = raw
                self._add_pair(last, raw, self._plan.sources[last])
                if leaves:  # the graph's output keeps its name
                    self._nodes.append(self._onnx.helper.make_node("Identity", [_dequantized(last)], [last]))
            elif last in self._plan.entries:
                self._add_pair(last, last, last)

    def _add_pair(self, name: str, raw: str, ranged: str) -> None:
        """Adds QuantizeLinear and DequantizeLinear for a tensor, with the range of `ranged`."""
        scale, zero_point = self._activation_parameters(ranged)
        make = self._onnx.helper.make_node
        parameters = [f"{ranged}_scale", f"{ranged}_zero_point"]
        if parameters[0] not in self._constants:
            self._add_constant(parameters[0], np.float32(scale))
            self._add_constant(parameters[1], zero_point)
        quantized = f"{name}_quantized"
        self._nodes.append(make("QuantizeLinear", [raw, *parameters], [quantized], f"{name}_q", domain=self._domain))
        self._nodes.append(
            make("DequantizeLinear", [quantized, *parameters], [_dequantized(name)], f"{name}_dq", domain=self._domain)
        )

    def _activation_parameters(self, name: str) -> tuple[float, Array]:
        low, high = self._ranges[name]
        return _find_parameters(low, high, signed=self._scheme.signed_activations)

    def _add_constant_operand(self, name: str) -> str:
        """Quantizes the constant operand of an Add or Mul with one scale."""
        output = f"{name}_constant_dq"
        if f"{output}_q" not in self._constants:
            values = self._index.array(name)
            low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
            scale, zero_point = _find_parameters(low, high, signed=self._scheme.signed_activations)
            info = np.iinfo(zero_point.dtype)
            rounded = np.clip(np.rint(values / scale) + int(zero_point), info.min, info.max).astype(zero_point.dtype)
            self._add_dequantized(output, rounded, np.float32(scale), zero_point, None)
        return output

    def _quantize_parameters(self, node: Any, copy: Any) -> None:
        """Replaces weight and bias by integers; the bias has the scale of the products that it is added to."""
        axis = 0 if node.op_type == "Conv" or read_attribute(node, "transB", 0) else 1
        bias = node.input[2] if len(node.input) > 2 and node.input[2] and node.op_type != "MatMul" else None
        entry = self._plan.sources.get(node.input[0], node.input[0])
        input_scale, _ = self._activation_parameters(entry)
        alpha = float(read_attribute(node, "alpha", 1.0)) if node.op_type == "Gemm" else 1.0
        key = f"{node.input[1]}/{axis}"
        if key not in self._weights:
            self._weights[key] = quantize_weight(self._index.array(node.input[1]), axis, self._scheme.weight_limit)
        rounded, scales = self._weights[key]
        output = f"{node.name}_weight"
        if bias is not None:
            offsets = np.asarray(self._index.array(bias), np.float64).reshape(-1)
            # A channel of tiny weights would push its bias out of int32: it gets a coarser scale.
            floor = np.abs(offsets) / (input_scale * alpha * _BIAS_LIMIT)
            if (floor > scales).any():
                scales = np.asarray(np.maximum(scales, floor), np.float32)
                values = self._index.array(node.input[1])
                rounded = _round_weight(values, scales, axis, self._scheme.weight_limit)
            bias_scales = np.asarray(input_scale * alpha * scales.astype(np.float64), np.float32)
            integers = np.rint(offsets / bias_scales.astype(np.float64)).astype(np.int32)
            self._add_dequantized(f"{node.name}_bias_dq", integers, bias_scales, None, 0)
            copy.input[2] = f"{node.name}_bias_dq"
        self._add_dequantized(f"{output}_dq", rounded, scales, np.zeros(len(scales), np.int8), axis)
        copy.input[1] = f"{output}_dq"

    def _fuse_matmul(self, node: Any) -> Any:
        """Returns a MatMul with float result in ONNX Runtime's own operator, with the bias that is added to it.

        From Q/DQ pairs ONNX Runtime would make the same operator, but leave the bias behind as a node of its own:
        a fifth of a small transformer's time.
        """
        source, weight, output = node.input[0], f"{node.name}_weight_dq", node.output[0]
        ranged = self._plan.sources.get(source, source)
        inputs = [f"{source}_quantized", f"{weight}_q", f"{ranged}_scale", f"{weight}_scale"]
        inputs += [f"{ranged}_zero_point", f"{weight}_zero_point"]
        add = self._index.sole_consumer(output)
        if add is not None and add.op_type == "Add" and add.name not in self._plan.carried:
            bias = next((name for name in add.input if name != output), "")
            columns = self._index.constants[node.input[1]].dims[1]
            if self._index.is_float_constant(bias) and list(self._index.constants[bias].dims) == [columns]:
                self._skipped.add(add.name)
                inputs.append(bias)
                output = add.output[0]
        return self._onnx.helper.make_node("MatMulIntegerToFloat", inputs, [output], node.name, domain=MICROSOFT_DOMAIN)

    def _add_dequantized(
        self, output: str, values: Array, scale: Any, zero_point: Any | None, axis: int | None
    ) -> None:
        names = [f"{output}_q", f"{output}_scale"]
        self._add_constant(names[0], values)
        self._add_constant(names[1], scale)
        if zero_point is not None:
            names.append(f"{output}_zero_point")
            self._add_constant(names[2], zero_point)
        extra = {} if axis is None else {"axis": axis}
        make = self._onnx.helper.make_node
        self._nodes.append(make("DequantizeLinear", names, [output], f"{output}_node", domain=self._domain, **extra))

    def _add_constant(self, name: str, values: Any) -> None:
        self._constants[name] = self._onnx.numpy_helper.from_array(np.asarray(values), name)

    def _assemble(self) -> Any:
        wanted = set(self._index.outputs)
        alive: list[Any] = []
        for node in reversed(self._nodes):  # a fused MatMul leaves the DequantizeLinear before it without a reader
            if node.op_type != "DequantizeLinear" or node.output[0] in wanted:
                alive.append(node)
                wanted.update(read_names(node))
        return rebuild_model(self._model, alive[::-1], self._constants)


def rebuild_model(model: Any, nodes: list[Any], constants: Mapping[str, Any]) -> Any:
    """Returns a new model of other nodes: the initializers that they read are copied, the rest is left behind."""
    onnx = require_import("onnx", "onnx")
    made = onnx.ModelProto()
    made.ir_version = model.ir_version
    made.opset_import.extend(model.opset_import)
    made.functions.extend(model.functions)
    made.graph.name = model.graph.name or "graph"
    made.graph.input.extend(model.graph.input)
    made.graph.output.extend(model.graph.output)
    made.graph.node.extend(nodes)
    used = set(index_graph(made).consumers) | {value.name for value in model.graph.output}
    made.graph.initializer.extend(t for t in model.graph.initializer if t.name in used)
    made.graph.initializer.extend(constants.values())
    if any(node.domain == MICROSOFT_DOMAIN for node in nodes):
        require_domain(made, MICROSOFT_DOMAIN, 1)
    prune_graph(made)
    return made


def _find_parameters(low: float, high: float, *, signed: bool) -> tuple[float, Array]:
    """Returns scale and zero point that map [low, high], widened to hold 0, on the 256 levels."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / 255, _LEAST_SCALE)))
    info = np.iinfo(np.int8 if signed else np.uint8)
    zero_point = np.clip(np.rint(info.min - low / scale), info.min, info.max)
    return scale, np.array(zero_point, info.dtype)


def _dequantized(name: str) -> str:
    return f"{name}_dequantized"


def find_dynamic(model: Any, index: GraphIndex) -> list[str]:
    """Returns the MatMul, Gemm and LSTM nodes with constant weights that ONNX Runtime can quantize as it runs.

    GRU has no integer kernel; Conv has one (ConvInteger) that runs several times slower than float.
    """
    dense = {node.name for node in find_weight_matmuls(model, index) if not read_attribute(node, "transA", 0)}
    return [node.name for node in model.graph.node if node.name in dense or _is_quantizable_lstm(node, index)]


def quantize_dynamic(model: Any, names: Collection[str], scheme: Scheme) -> Any:
    """Returns a new model in which the named nodes measure their activations' range at each inference.

    Args:
        model: A normalized float model, its Gemms split (`split_gemms`), opset 11 or later.
        names: MatMul and LSTM nodes from `find_dynamic`.
        scheme: Number formats; the activations are uint8 whatever it says, the operator knows nothing else.
    """
    writer = _DynamicWriter(index_graph(model), scheme)
    for node in model.graph.node:
        if node.name not in names:
            writer.nodes.append(node)
        elif node.op_type == "LSTM":
            writer.write_lstm(node)
        else:
            writer.write_matmul(node)
    return rebuild_model(model, writer.nodes, writer.constants)


def _is_quantizable_lstm(node: Any, index: GraphIndex) -> bool:
    if node.op_type != "LSTM" or read_attribute(node, "layout", 0):
        return False
    return all(index.is_float_constant(name) for name in node.input[1:3])


class _DynamicWriter:
    """Writes the nodes that ONNX Runtime fuses into DynamicQuantizeMatMul and MatMulIntegerToFloat."""

    def __init__(self, index: GraphIndex, scheme: Scheme) -> None:
        self._onnx = require_import("onnx", "onnx")
        self._index = index
        self._limit = scheme.weight_limit
        self._measured: set[str] = set()
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def write_matmul(self, node: Any) -> None:
        """Rounds the activation to uint8 as it comes, multiplies integers, and scales the sums back to float."""
        source, weight = node.input[0], f"{node.name}_weight"
        values, scales = quantize_weight(self._index.array(node.input[1]), 1, self._limit)
        self._add(f"{weight}_q", values)
        self._add(f"{weight}_scale", scales)
        self._add(f"{weight}_zero_point", np.zeros(len(scales), np.int8))
        integers, scale, zero_point = (f"{source}_{part}" for part in ("quantized", "scale", "zero_point"))
        make = self._onnx.helper.make_node
        if source not in self._measured:  # MatMuls that read one tensor share its measuring
            self._measured.add(source)
            self.nodes.append(make("DynamicQuantizeLinear", [source], [integers, scale, zero_point], f"{source}_q"))
        sums, floats, factors = (f"{node.name}_{part}" for part in ("sums", "floats", "factors"))
        operands = [integers, f"{weight}_q", zero_point, f"{weight}_zero_point"]
        self.nodes += [
            make("MatMulInteger", operands, [sums], node.name),
            make("Cast", [sums], [floats], f"{node.name}_cast", to=self._onnx.TensorProto.FLOAT),
            make("Mul", [scale, f"{weight}_scale"], [factors], f"{node.name}_scales"),
            make("Mul", [floats, factors], [node.output[0]], f"{node.name}_scaled"),
        ]

    def write_lstm(self, node: Any) -> None:
        inputs = list(node.input) + [""] * (8 - len(node.input))
        parameters = []
        for position in (1, 2):
            name = f"{node.name}_{'WR'[position - 1]}"
            values = self._index.array(inputs[position])  # [directions, 4 * hidden, inputs]
            rows = values.reshape(-1, values.shape[-1])
            rounded, scales = quantize_weight(rows, 0, self._limit)
            self._add(f"{name}_q", np.ascontiguousarray(rounded.reshape(values.shape).transpose(0, 2, 1)))
            self._add(f"{name}_scale", scales.reshape(values.shape[:2]))
            self._add(f"{name}_zero_point", np.zeros(values.shape[:2], np.int8))
            inputs[position] = f"{name}_q"
            parameters += [f"{name}_scale", f"{name}_zero_point"]
        made = self._onnx.helper.make_node(
            "DynamicQuantizeLSTM", inputs + parameters, list(node.output), node.name, domain=MICROSOFT_DOMAIN
        )
        made.attribute.extend(attribute for attribute in node.attribute if attribute.name != "layout")
        self.nodes.append(made)

    def _add(self, name: str, values: Array) -> None:
        self.constants[name] = self._onnx.numpy_helper.from_array(values, name)
