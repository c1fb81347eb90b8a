"""Who reads what in a graph."""

import numpy as np
from graph_models import make_model, random_array
from onnx import helper

from modelwright.targets.graphs.index import index_graph


def test_an_initializer_that_callers_may_override_is_no_constant() -> None:
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": random_array(4, 3)})
    model.graph.input.append(helper.make_tensor_value_info("w", 1, (4, 3)))
    assert not index_graph(model).is_float_constant("w")


def test_subgraphs_count_as_readers() -> None:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["h"], ["r"])], "then", [], [helper.make_tensor_value_info("r", 1, None)]
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("If", ["flag"], ["y"], "if", then_branch=inner, else_branch=inner),
    ]
    model = make_model(nodes, {"w": random_array(4, 3), "flag": np.array(True)})
    reader = index_graph(model).sole_consumer("h")
    assert reader is not None
    assert reader.op_type == "If"
