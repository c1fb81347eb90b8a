"""Writes the INT8 graphs that ONNX Runtime's CPU kernels fuse: static Q/DQ and dynamic quantization.

Where a pair of QuantizeLinear and DequantizeLinear stands decides whether a node runs in integers at all, so the
pairs are placed here node by node after what ONNX Runtime's selectors look for, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.onnx.facts import find_opset, read_attribute
from modelwright.core.onnx.walk import read_names
from modelwright.targets.graphs.index import GraphIndex, index_graph
from modelwright.targets.graphs.rewrite import MICROSOFT_DOMAIN, PER_AXIS_OPSET, rebuild_model
from modelwright.targets.ort.plan import OWN_RANGE_OPS, PADDING_OP, StaticPlan
from modelwright.targets.quantization.formats import Scheme, find_parameters, quantize_weight, round_weight
from modelwright.targets.readiness import require_import

Array = npt.NDArray[Any]
Ranges = Mapping[str, tuple[float, float]]

_BIAS_LIMIT = 2**30


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


def find_weight_axis(node: Any) -> int:
    """Returns the axis of a weight along which each channel of the result has its scale."""
    return 0 if node.op_type == "Conv" or read_attribute(node, "transB", 0) else 1


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
            if node.op_type == PADDING_OP and node.name in working:
                self._write_padding(node)
            elif node.name not in self._skipped:
                self._write_node(node, working)
        return self._assemble()

    def _write_padding(self, node: Any) -> None:
        """Pads the integers, with the one that stands for zero."""
        source, output = node.input[0], node.output[0]
        parameters = [f"{self._plan.sources[output]}_{part}" for part in ("scale", "zero_point")]
        copy = self._onnx.helper.make_node(
            node.op_type,
            [f"{source}_quantized", node.input[1], parameters[1], *node.input[3:]],
            [f"{output}_quantized"],
            node.name,
        )
        copy.attribute.extend(node.attribute)
        self._nodes.append(copy)
        made = [f"{output}_quantized", *parameters]
        self._nodes.append(
            self._onnx.helper.make_node(
                "DequantizeLinear", made, [_dequantized(output)], f"{output}_dq", domain=self._domain
            )
        )

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
        return find_parameters(low, high, signed=self._scheme.signed_activations)

    def _add_constant_operand(self, name: str) -> str:
        """Quantizes the constant operand of an Add or Mul with one scale."""
        output = f"{name}_constant_dq"
        if f"{output}_q" not in self._constants:
            values = self._index.array(name)
            low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
            scale, zero_point = find_parameters(low, high, signed=self._scheme.signed_activations)
            info = np.iinfo(zero_point.dtype)
            rounded = np.clip(np.rint(values / scale) + int(zero_point), info.min, info.max).astype(zero_point.dtype)
            self._add_dequantized(output, rounded, np.float32(scale), zero_point, None)
        return output

    def _quantize_parameters(self, node: Any, copy: Any) -> None:
        """Replaces weight and bias by integers; the bias has the scale of the products that it is added to."""
        axis = find_weight_axis(node)
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
                rounded = round_weight(values, scales, axis, self._scheme.weight_limit)
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


def _dequantized(name: str) -> str:
    return f"{name}_dequantized"


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
