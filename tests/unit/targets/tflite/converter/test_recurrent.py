"""LSTM, GRU and RNN written as their steps, against ONNX Runtime's own operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.targets.tflite.converter import recurrent
from modelwright.targets.tflite.converter.graph import Graph
from modelwright.targets.tflite.converter.prepare import prepare_graph

RNG = np.random.default_rng(0)
STEPS, BATCH, WIDTH, HIDDEN = 4, 2, 3, 5
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STATES = {"LSTM": ("h0", "c0"), "GRU": ("h0",), "RNN": ("h0",)}
DIRECTIONS = ["forward", "reverse", "bidirectional"]


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32) * 0.7


def make_model(
    kind: str,
    direction: str = "forward",
    *,
    bias: bool = True,
    states: str = "none",
    opset: int = 17,
    steps: int = STEPS,
    **attributes: Any,
) -> onnx.ModelProto:
    """One recurrent layer with all its outputs; its initial states are absent, inputs, constants or zeros."""
    count = 2 if direction == "bidirectional" else 1
    rows = GATES[kind] * HIDDEN
    constants = {"w": floats(count, rows, WIDTH), "r": floats(count, rows, HIDDEN)}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (steps, BATCH, WIDTH))]
    if bias:
        constants["b"] = floats(count, 2 * rows)
    for name in STATES[kind]:
        shape = (count, BATCH, HIDDEN)
        if states == "inputs":
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        elif states != "none":
            constants[name] = floats(*shape) * (states == "constants")
    given = {*constants, *(value.name for value in inputs)}
    names = [name if name in given else "" for name in ("x", "w", "r", "b", "", *STATES[kind])]
    outputs = ["all", "last", "cell"][: 1 + len(STATES[kind])]
    node = helper.make_node(kind, names, outputs, "layer", hidden_size=HIDDEN, direction=direction, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def prepare(model: onnx.ModelProto) -> Graph:
    """Prepares the model and proves that every output still has the same numbers."""
    shapes = {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in model.graph.input}
    graph = prepare_graph(model, shapes)
    feeds = {name: floats(*shape) for name, shape in shapes.items()}
    for actual, expected in zip(run(graph.to_model(), feeds), run(model, feeds), strict=True):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    return graph


def is_unrolled(graph: Graph) -> bool:
    return not {node.op_type for node in graph.nodes} & set(GATES)


@pytest.mark.parametrize("states", ["none", "inputs", "constants"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", GATES)
def test_every_direction_and_initial_state(kind: str, direction: str, states: str) -> None:
    assert is_unrolled(prepare(make_model(kind, direction, states=states)))


@pytest.mark.parametrize("states", ["none", "inputs"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gru_that_resets_after_the_product(direction: str, states: str) -> None:
    assert is_unrolled(prepare(make_model("GRU", direction, states=states, linear_before_reset=1)))


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("change", [{"bias": False}, {"steps": 1}, {"opset": 11}])
def test_without_bias_for_one_step_and_with_an_older_opset(kind: str, change: dict[str, Any]) -> None:
    assert is_unrolled(prepare(make_model(kind, "bidirectional", states="inputs", **change)))


def test_the_usual_activations_by_name() -> None:
    assert is_unrolled(prepare(make_model("GRU", "bidirectional", activations=["Sigmoid", "Tanh"] * 2)))


def test_states_of_zeros_leave_no_trace() -> None:
    with_zeros, without = (prepare(make_model("LSTM", states=states)) for states in ("zeros", "none"))
    assert len(with_zeros.nodes) == len(without.nodes)


def test_an_lstm_step_by_hand() -> None:
    """Weights of zero and biases of 0, ln 3 and 0 for the gates: c = c0 * 3/4 + 0, h = tanh(c) / 2."""
    model = make_model("LSTM", states="inputs", steps=1)
    by_name = {tensor.name: tensor for tensor in model.graph.initializer}
    bias = np.zeros((1, 2, 4, HIDDEN), np.float32)
    bias[0, 0, 2] = np.log(3)  # i, o, f, c: the gate that keeps the cell opens to 3/4
    for name, value in (("w", 0), ("r", 0), ("b", bias.reshape(1, -1))):
        old = numpy_helper.to_array(by_name[name])
        by_name[name].CopyFrom(numpy_helper.from_array(np.broadcast_to(value, old.shape).astype(np.float32), name))
    state = (1, BATCH, HIDDEN)
    prepared = prepare_graph(model, {"x": (1, BATCH, WIDTH), "h0": state, "c0": state}).to_model()
    feeds = {"x": floats(1, BATCH, WIDTH), "h0": floats(*state), "c0": np.full(state, 2, np.float32)}
    _, hidden, cell = ReferenceEvaluator(prepared).run(None, feeds)
    np.testing.assert_allclose(cell, np.full(state, 1.5), rtol=1e-6)
    np.testing.assert_allclose(hidden, np.full(state, np.tanh(1.5) / 2), rtol=1e-6)


def test_only_the_outputs_that_are_read_are_made() -> None:
    model = make_model("LSTM")
    del model.graph.output[0], model.graph.output[1]
    graph = prepare(model)
    assert graph.outputs == ["last"]
    assert "Concat" not in {node.op_type for node in graph.nodes}


def test_weights_are_held_once_for_all_steps() -> None:
    graph = prepare(make_model("LSTM"))
    assert [array.shape for array in graph.constants.values()].count((4 * HIDDEN, HIDDEN)) == 1


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("RNN", {"activations": ["Relu"]}),
        ("LSTM", {"clip": 0.5}),
        ("LSTM", {"input_forget": 1}),
        ("GRU", {"activations": ["HardSigmoid", "Tanh"]}),
    ],
)
def test_unusual_layers_keep_their_operator(kind: str, attributes: dict[str, Any]) -> None:
    assert not is_unrolled(prepare(make_model(kind, **attributes)))


def test_sequences_beyond_the_limit_keep_their_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recurrent.STEP_LIMITS, "RNN", STEPS)
    assert is_unrolled(prepare(make_model("RNN")))
    assert not is_unrolled(prepare(make_model("RNN", steps=STEPS + 1)))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_sequence_lengths_and_peepholes_keep_their_operator(kind: str) -> None:
    model = make_model(kind)
    node = model.graph.node[0]
    if kind == "GRU":
        node.input[4] = "lengths"
        model.graph.initializer.append(numpy_helper.from_array(np.array([2, 4], np.int32), "lengths"))
    else:
        node.input.append("peepholes")
        model.graph.initializer.append(numpy_helper.from_array(floats(1, 3 * HIDDEN), "peepholes"))
    assert not is_unrolled(prepare(model))
