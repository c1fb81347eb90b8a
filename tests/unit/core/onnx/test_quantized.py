"""What of a model is quantized already, and how many weights it has."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import onnx
from onnx import TensorProto, helper

from modelwright.core.onnx.quantized import count_parameters, find_own_scales

_X = ("x", TensorProto.FLOAT, ["batch", 4])
_Y = ("y", TensorProto.FLOAT, ["batch", 3])


def _make(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    return onnx.load(models.save(path / "m.onnx", nodes, [_X], [_Y], constants))


def _weights() -> dict[str, np.ndarray]:
    return {"i": np.ones((4, 3), np.int8), "s": np.full(3, 0.1, np.float32), "z": np.zeros(3, np.int8)}


def test_parameters_are_counted_in_subgraphs_and_constants() -> None:
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=models.constant("c", np.zeros((2, 3), np.float32)))],
        "branch",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [2, 3])],
        initializer=[models.constant("unused", np.zeros(5, np.float16))],
    )
    node = helper.make_node("If", ["cond"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([node], "g", [], [], initializer=[models.constant("i", np.zeros(100, np.int64))])
    assert count_parameters(helper.make_model(graph)) == 2 * (6 + 5)


def test_a_pair_around_an_activation_is_the_models_own_and_its_weights_count(tmp_path: Path) -> None:
    model = models.quantize_by_pairs(tmp_path / "m.onnx")
    own = find_own_scales(model)
    assert own is not None
    assert own.activations == 2, "the input and what comes out of the first layer; the weight's own rounding is none"
    assert own.operators == ()
    assert own.describe() == "it rounds 2 activations by QuantizeLinear"
    # 4 x 8 weights as integers with a bias of 8 in INT32, and 8 x 3 as floats that a pair of constants rounds.
    assert count_parameters(model) == 4 * 8 + 8 + 8 * 3


def test_integers_that_only_weights_are_stored_in_leave_activations_alone(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["i", "s", "z"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    model = _make(tmp_path, nodes, _weights())
    assert find_own_scales(model) is None
    assert count_parameters(model) == 12


def test_operators_that_compute_in_integers_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
        helper.make_node("MatMulInteger", ["q", "i", "qz"], ["product"]),
        helper.make_node("Cast", ["product"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "qs"], ["y"]),
    ]
    model = _make(tmp_path, nodes, {"i": np.ones((4, 3), np.int8)})
    own = find_own_scales(model)
    assert own is not None
    assert own.describe() == "it computes in DynamicQuantizeLinear, MatMulInteger"
    assert count_parameters(model) == 12


def test_packed_weights_count_by_the_size_of_their_matrix(tmp_path: Path) -> None:
    packed = {"b": np.zeros((3, 1, 16), np.uint8), "s": np.ones((3, 1), np.float32)}
    node = helper.make_node("MatMulNBits", ["x", "b", "s"], ["y"], domain="com.microsoft", K=4, N=3, block_size=32)
    model = _make(tmp_path, [node], packed)
    assert find_own_scales(model) is None
    assert count_parameters(model) == 12


def test_a_float_model_has_no_scales_of_its_own(tmp_path: Path) -> None:
    model = onnx.load(models.make_cnn(tmp_path / "m.onnx"))
    assert find_own_scales(model) is None
    assert count_parameters(model) == 16 * 27 + 16 + 16 * 9 + 80 + 5


def test_weights_that_a_branch_takes_from_around_it_are_no_activations() -> None:
    """A pair in a branch, around a constant of the main graph, was counted as an activation that the model rounds."""

    def make(rounded: str) -> onnx.ModelProto:
        then = helper.make_graph(
            [
                helper.make_node("QuantizeLinear", [rounded, "s", "z"], ["q"]),
                helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            ],
            "then",
            [],
            [helper.make_tensor_value_info("d", TensorProto.FLOAT, None)],
        )
        other = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["e"])],
            "else",
            [],
            [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
        )
        nodes = [
            helper.make_node("Identity", ["w"], ["copy"]),
            helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        ]
        constants = {"w": np.ones((4, 3), np.float32), "s": np.float32(0.1), "z": np.int8(0)}
        held = [models.constant(name, np.asarray(value)) for name, value in constants.items()]
        return helper.make_model(helper.make_graph(nodes, "g", [], [], initializer=held))

    assert find_own_scales(make("copy")) is None
    assert find_own_scales(make("w")) is None
    own = find_own_scales(make("x"))
    assert own is not None
    assert own.activations == 1
