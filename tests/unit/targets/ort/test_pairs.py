"""Narrow convolutions over pairs of pixels: the same integers to the last one, and only where they gain."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.targets.graphs.index import index_graph
from modelwright.targets.ort.pairs import pair_pixels

RNG = np.random.default_rng(3)
# Powers of two: every sum is exact, whatever its order.
STEP, FINE = np.float32(2**-5), np.float32(2**-9)


def make_model(
    kernel: tuple[int, int] = (3, 3),
    outputs: int = 8,
    inputs: int = 4,
    size: tuple[Any, Any] = (8, 16),
    *,
    convolutions: int = 1,
    padded: bool = False,
    bias: bool = True,
    zero: int = 7,
    opset: int = 21,
    **given: Any,
) -> Any:
    """Returns convolutions between Q/DQ pairs, all of which read the same, behind a Pad of channels where asked for."""
    make = helper.make_node
    constants: dict[str, Any] = {"s": STEP, "z": np.uint8(zero), "fine": FINE, "u": np.uint8(128)}
    nodes = [make("QuantizeLinear", ["x", "s", "z"], ["q"], "x_q")]
    if padded:
        constants["ends"] = np.array([0, 0, 0, 0, 0, inputs - 3, 0, 0])
        nodes.append(make("Pad", ["q", "ends", "z"], ["p"], "pad"))
    nodes.append(make("DequantizeLinear", ["p" if padded else "q", "s", "z"], ["d"], "x_dq"))
    for name in map(str, range(convolutions)):
        weights = RNG.integers(-127, 128, (outputs, inputs // given.get("group", 1), *kernel)).astype(np.int8)
        constants |= {f"w{name}": weights, f"ws{name}": np.full(outputs, FINE), f"wz{name}": np.zeros(outputs, np.int8)}
        parameters = [f"w{name}", f"ws{name}", f"wz{name}"]
        nodes.append(make("DequantizeLinear", parameters, [f"wd{name}"], f"w_dq{name}", axis=0))
        read = ["d", f"wd{name}"]
        if bias:
            values = RNG.integers(-900, 900, outputs).astype(np.int32)
            constants |= {f"b{name}": values, f"bs{name}": np.full(outputs, STEP * FINE)}
            nodes.append(make("DequantizeLinear", [f"b{name}", f"bs{name}"], [f"bd{name}"], f"b_dq{name}", axis=0))
            read.append(f"bd{name}")
        usual = {"pads": [kernel[0] // 2, kernel[1] // 2] * 2, "kernel_shape": list(kernel)}
        nodes.append(make("Conv", read, [f"c{name}"], f"conv{name}", **(usual | given)))
        nodes.append(make("QuantizeLinear", [f"c{name}", "fine", "u"], [f"y{name}"], f"y_q{name}"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3 if padded else inputs, *size])],
        [helper.make_tensor_value_info(f"y{name}", 2, None) for name in range(convolutions)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run(model: Any) -> list[Any]:
    dims = [dim.dim_value or 2 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).standard_normal(dims).astype(np.float32)
    return list(ReferenceEvaluator(model).run(None, {"x": x}))


def find_kernels(model: Any) -> list[tuple[int, ...]]:
    index = index_graph(model)
    weights = [index.producers[node.input[1]].input[0] for node in model.graph.node if node.op_type == "Conv"]
    return [tuple(index.constants[name].dims) for name in weights]


@pytest.mark.parametrize(
    ("given", "paired"),
    [
        ({}, (16, 8, 3, 2)),
        ({"kernel": (1, 5)}, (16, 8, 1, 3)),
        ({"kernel": (5, 7), "outputs": 12}, (24, 8, 5, 4)),
        ({"bias": False, "inputs": 2}, (16, 4, 3, 2)),
        ({"strides": [2, 1], "size": (33, 16)}, (16, 8, 3, 2)),
        ({"dilations": [2, 1], "pads": [2, 1, 0, 1], "size": (18, 16)}, (16, 8, 3, 2)),
        ({"outputs": 16, "inputs": 16, "size": (32, 32)}, (32, 32, 3, 2)),
        ({"padded": True}, (16, 8, 3, 2)),
    ],
)
def test_pairs_of_pixels_give_the_same_integers(given: dict[str, Any], paired: tuple[int, ...]) -> None:
    model = make_model(**given)
    before = model.SerializeToString()
    changed = pair_pixels(model)
    assert model.SerializeToString() == before
    assert find_kernels(changed) == [paired]
    (expected,), (found,) = run(model), run(changed)
    assert len(np.unique(expected)) > 100
    np.testing.assert_array_equal(found, expected)


def test_a_shift_is_one_pad_for_all_that_read_it_and_for_a_channel_that_is_added() -> None:
    changed = pair_pixels(make_model(padded=True))
    (pad,) = (node for node in changed.graph.node if node.op_type == "Pad")
    assert index_graph(changed).array(pad.input[1]).tolist() == [0, 0, 0, 1, 0, 1, 0, 1]
    model = make_model(convolutions=2, padded=True)
    changed = pair_pixels(model)
    assert Counter(node.op_type for node in changed.graph.node)["Pad"] == 2, "the channel's Pad has two readers"
    for found, expected in zip(run(changed), run(model), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert "Pad" not in {node.op_type for node in pair_pixels(make_model(kernel=(3, 5))).graph.node}


@pytest.mark.parametrize(
    "given",
    [
        {"size": (8, 15)},
        {"size": (8, "w")},
        {"size": ("h", 16)},
        {"size": (7, 18)},
        {"outputs": 6},
        {"outputs": 18},
        {"outputs": 9},
        {"inputs": 3},
        {"outputs": 16},
        {"outputs": 16, "inputs": 18, "size": (32, 32)},
        {"kernel": (3, 1)},
        {"kernel": (3, 4)},
        {"pads": [1, 0, 1, 0]},
        {"pads": [1, 2, 1, 0]},
        {"auto_pad": "SAME_UPPER", "pads": None},
        {"strides": [1, 2], "size": (16, 32)},
        {"dilations": [1, 2]},
        {"group": 2},
        {"opset": 12},
    ],
)
def test_what_gains_nothing_stays_as_it_is(given: dict[str, Any]) -> None:
    model = make_model(**{"size": (8, 16)} | given)
    assert pair_pixels(model) is model


def test_a_convolution_that_others_read_in_float_stays_as_it_is() -> None:
    model = make_model()
    model.graph.output.append(helper.make_tensor_value_info("c0", 1, None))
    assert pair_pixels(model) is model


def test_nodes_without_names_and_weights_that_are_shared_are_told_apart() -> None:
    model = make_model(convolutions=2)
    for node in model.graph.node:
        node.name = ""
    shared = [node for node in model.graph.node if node.op_type == "Conv"]
    shared[1].input[1], shared[1].input[2] = shared[0].input[1], shared[0].input[2]
    changed = pair_pixels(model)
    assert find_kernels(changed) == [(16, 8, 3, 2)] * 2
    made = [output for node in changed.graph.node for output in node.output]
    assert len(made) == len(set(made))
    for found, expected in zip(run(changed), run(model), strict=True):
        np.testing.assert_array_equal(found, expected)
