"""Writes LSTM, GRU and RNN as their time steps: TFLite's own sequence operator keeps its state between calls.

The input's part of all steps is one matrix product; each step adds the state's part. Everything is FULLY_CONNECTED and
elementwise, so the result can be resized and quantized.
"""

from __future__ import annotations

import numpy as np
import onnx

from modelwright.core.onnx.facts import read_attribute

from .graph import Array, Graph, Shape

STEP_LIMITS = {"LSTM": 256, "GRU": 1024, "RNN": 256}
"""Longer sequences keep their operator: the time onnx2tf takes grows faster than the graph. It has none for GRU."""

_State = tuple[str, str]
"""Names of the hidden and the cell state; empty where they are zero or there is none."""

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def unroll_recurrent(graph: Graph) -> None:
    """Replaces every recurrent node that has the usual activations and a known length."""
    unrolled: list[onnx.NodeProto] = []
    for node in graph.nodes:
        unrolled.extend(_Unroller(graph, node).write() if _can_unroll(node, graph) else [node])
    graph.nodes = unrolled


def _can_unroll(node: onnx.NodeProto, graph: Graph) -> bool:
    if node.op_type not in _GATES:
        return False
    inputs = [*node.input, *[""] * 8]
    shape = graph.shapes.get(inputs[0])
    directions = 2 if _direction(node) == "bidirectional" else 1
    activations = [_text(a) for a in read_attribute(node, "activations", [])]
    return (
        shape is not None
        and len(shape) == 3
        and 0 < shape[0] <= STEP_LIMITS[node.op_type]
        and all(name in graph.constants for name in inputs[1:3])
        and (not inputs[3] or inputs[3] in graph.constants)
        and not inputs[4]
        and not inputs[7]
        and activations in ([], _ACTIVATIONS[node.op_type] * directions)
        and read_attribute(node, "layout", 0) == 0
        and read_attribute(node, "clip", None) is None
        and read_attribute(node, "input_forget", 0) == 0
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _direction(node: onnx.NodeProto) -> str:
    return _text(read_attribute(node, "direction", b"forward"))


class _Unroller:
    """Writes one recurrent node."""

    def __init__(self, graph: Graph, node: onnx.NodeProto) -> None:
        self._graph = graph
        self._node = node
        self._inputs = [*node.input, *[""] * 8]
        self._outputs = [*node.output, *[""] * 3]
        self._stem = node.name or node.output[0] or node.op_type
        self._nodes: list[onnx.NodeProto] = []
        self._steps, self._batch, self._width = graph.shapes[node.input[0]]
        self._hidden = graph.constants[self._inputs[2]].shape[-1]
        self._shared: dict[object, str] = {}

    def write(self) -> list[onnx.NodeProto]:
        direction = _direction(self._node)
        reversals = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
        runs = [self._run_direction(index, is_reversed) for index, is_reversed in enumerate(reversals)]
        sequence, hidden, cell = self._outputs[:3]
        if sequence:
            shape = (self._steps, 1, self._batch, self._hidden)
            parts = [self._stack(states, shape) for states, _ in runs]
            self._join(parts, sequence, axis=1, shape=(self._steps, len(runs), self._batch, self._hidden))
        last_shape = (1, self._batch, self._hidden)
        last_hidden = [states[0 if back else -1] for (states, _), back in zip(runs, reversals, strict=True)]
        for output, lasts in ((hidden, last_hidden), (cell, [last for _, last in runs])):
            if output:
                parts = [self._reshape(last, last_shape) for last in lasts]
                self._join(parts, output, axis=0, shape=(len(runs), self._batch, self._hidden))
        return self._nodes

    def _run_direction(self, index: int, is_reversed: bool) -> tuple[list[str], str]:
        """Returns the hidden states in the order of the input's steps, and the last cell state."""
        constants = self._graph.constants
        weight, recurrence = (constants[name][index] for name in self._inputs[1:3])
        gates = _GATES[self._node.op_type] * self._hidden
        both = constants[self._inputs[3]][index] if self._inputs[3] else np.zeros(2 * gates, dtype=weight.dtype)
        projected = self._project(weight, *np.split(both, 2))
        step = {"LSTM": self._lstm_step, "GRU": self._gru_step, "RNN": self._rnn_step}[self._node.op_type]
        hidden, cell = self._initial(5, index), self._initial(6, index)
        states = [""] * self._steps
        order = range(self._steps - 1, -1, -1) if is_reversed else range(self._steps)
        for moment in order:
            hidden, cell = step(projected[moment], (hidden, cell), recurrence, both[gates:])
            states[moment] = hidden
        return states, cell

    def _project(self, weight: Array, input_bias: Array, state_bias: Array) -> list[str]:
        """Returns every step's `x @ weight`, with the biases that do not pass through a gate."""
        bias = input_bias + state_bias if self._node.op_type != "GRU" else input_bias
        gates = weight.shape[0]
        flat = self._reshape(self._inputs[0], (self._steps * self._batch, self._width), target=(-1, self._width))
        product = self._gemm(flat, weight, bias, rows=self._steps * self._batch)
        if self._steps == 1:
            return [product]
        steps = self._reshape(product, (self._steps, self._batch, gates))
        pieces = self._split(steps, [1] * self._steps, axis=0, shape=(self._steps, self._batch, gates))
        return [self._reshape(piece, (self._batch, gates), target=(-1, gates)) for piece in pieces]

    def _initial(self, position: int, index: int) -> str:
        """Returns an initial state [batch, hidden]; an empty name when it is zero."""
        name = self._inputs[position]
        if not name or (name in self._graph.constants and not self._graph.constants[name].any()):
            return ""
        directions = 2 if _direction(self._node) == "bidirectional" else 1
        shape = (directions, self._batch, self._hidden)
        piece = name if directions == 1 else self._split(name, [1, 1], axis=0, shape=shape)[index]
        return self._reshape(piece, (self._batch, self._hidden), target=(-1, self._hidden))

    def _lstm_step(self, x: str, state: _State, recurrence: Array, _bias: Array) -> _State:
        hidden, cell = state
        total = self._op("Add", x, self._gemm(hidden, recurrence, None)) if hidden else x
        enter, leave, keep, candidate = self._split_gates(total, 4)
        fresh = self._op("Mul", self._op("Sigmoid", enter), self._op("Tanh", candidate))
        cell = self._op("Add", self._op("Mul", self._op("Sigmoid", keep), cell), fresh) if cell else fresh
        return self._op("Mul", self._op("Sigmoid", leave), self._op("Tanh", cell)), cell

    def _gru_step(self, x: str, state: _State, recurrence: Array, bias: Array) -> _State:
        hidden, _ = state
        size = self._hidden
        x_update, x_reset, x_new = self._split_gates(x, 3)
        reset_after = bool(read_attribute(self._node, "linear_before_reset", 0))
        h_new = ""
        if hidden and reset_after:
            h_update, h_reset, h_new = self._split_gates(self._gemm(hidden, recurrence, bias), 3)
        elif hidden:
            h_update, h_reset = self._split_gates(self._gemm(hidden, recurrence[: 2 * size], bias[: 2 * size]), 2)
        else:
            h_update, h_reset, h_new = (self._share("gate_bias", part[None]) for part in np.split(bias, 3))
        update = self._op("Sigmoid", self._op("Add", x_update, h_update))
        reset = self._op("Sigmoid", self._op("Add", x_reset, h_reset))
        if reset_after:
            gated = self._op("Mul", reset, h_new)
        elif hidden:
            gated = self._gemm(self._op("Mul", reset, hidden), recurrence[2 * size :], bias[2 * size :])
        else:
            gated = h_new
        new = self._op("Tanh", self._op("Add", x_new, gated))
        if not hidden:
            return self._op("Sub", new, self._op("Mul", update, new)), ""
        return self._op("Add", new, self._op("Mul", update, self._op("Sub", hidden, new))), ""

    def _rnn_step(self, x: str, state: _State, recurrence: Array, _bias: Array) -> _State:
        hidden, _ = state
        total = self._op("Add", x, self._gemm(hidden, recurrence, None)) if hidden else x
        return self._op("Tanh", total), ""

    def _split_gates(self, name: str, count: int) -> list[str]:
        # Even parts become SPLIT; uneven ones would become SLICE, which the XNNPACK delegate leaves out.
        return self._split(name, [self._hidden] * count, axis=1, shape=(self._batch, count * self._hidden))

    def _op(self, op_type: str, *inputs: str) -> str:
        shape = max((self._graph.shapes[name] for name in inputs), key=lambda s: int(np.prod(s)))
        output = self._graph.new_name(f"{self._stem}_{op_type.lower()}")
        self._nodes.append(self._graph.make_node(op_type, inputs, output, stem=f"{output}_node", shape=shape))
        return output

    def _gemm(self, rows_name: str, weight: Array, bias: Array | None, rows: int | None = None) -> str:
        output = self._graph.new_name(f"{self._stem}_product")
        inputs = [rows_name, self._share("weight", weight)]
        if bias is not None:
            inputs.append(self._share("bias", bias))
        shape = (self._batch if rows is None else rows, weight.shape[0])
        self._nodes.append(self._graph.make_node("Gemm", inputs, output, stem=f"{output}_node", shape=shape, transB=1))
        return output

    def _share(self, kind: str, array: Array) -> str:
        """Returns a constant's name; the same one for every step, so that the file holds it once."""
        key = (kind, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self._graph.add_constant(f"{self._stem}_{kind}", np.ascontiguousarray(array))
        return self._shared[key]

    def _reshape(self, name: str, shape: Shape, target: tuple[int, ...] | None = None) -> str:
        output = self._graph.new_name(f"{self._stem}_reshaped")
        into = self._graph.add_constant(f"{output}_shape", np.array(target or shape, dtype=np.int64))
        self._nodes.append(self._graph.make_node("Reshape", [name, into], output, stem=f"{output}_node", shape=shape))
        return output

    def _split(self, name: str, sizes: list[int], *, axis: int, shape: Shape) -> list[str]:
        outputs = [self._graph.new_name(f"{self._stem}_part") for _ in sizes]
        for output, size in zip(outputs, sizes, strict=True):
            self._graph.shapes[output] = tuple(size if i == axis else d for i, d in enumerate(shape))
            self._graph.dtypes[output] = self._graph.dtypes[name]
        inputs, attributes = [name], {"axis": axis}
        if self._graph.opset >= 13:
            inputs.append(self._graph.add_constant(f"{outputs[0]}_sizes", np.array(sizes, dtype=np.int64)))
        else:
            attributes["split"] = sizes  # type: ignore[assignment]
        node_name = self._graph.new_name(f"{outputs[0]}_node")
        self._nodes.append(onnx.helper.make_node("Split", inputs, outputs, name=node_name, **attributes))
        return outputs

    def _stack(self, states: list[str], shape: Shape) -> str:
        parts = [self._reshape(state, (1, *shape[1:])) for state in states]
        output = self._graph.new_name(f"{self._stem}_sequence")
        self._join(parts, output, axis=0, shape=shape)
        return output

    def _join(self, parts: list[str], output: str, *, axis: int, shape: Shape) -> None:
        op_type, attributes = ("Concat", {"axis": axis}) if len(parts) > 1 else ("Identity", {})
        node = self._graph.make_node(op_type, parts, output, stem=f"{output}_node", shape=shape, **attributes)
        self._nodes.append(node)
