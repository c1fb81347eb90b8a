"""What kind of network a graph is."""

from graph_models import make_model, random_array
from onnx import helper

from modelwright.targets.graphs.classify import classify_graph


def test_classify() -> None:
    dense = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": random_array(4, 3)})
    assert classify_graph(dense) == "dense"
    conv = [helper.make_node("Conv", ["x", "w"], ["y"])]
    assert classify_graph(make_model(conv, {"w": random_array(5, 3, 1, 1)})) == "cnn"
    attention = [
        helper.make_node("LayerNormalization", ["x", "g"], ["n"]),
        helper.make_node("MatMul", ["n", "w"], ["h"]),
        helper.make_node("Softmax", ["h"], ["y"]),
    ]
    constants = {"w": random_array(4, 3), "g": random_array(4)}
    assert classify_graph(make_model(attention, constants, opset=17)) == "transformer"
    assert classify_graph(make_model([helper.make_node("Relu", ["x"], ["y"])], {})) == "other"
