"""Gelu spelled by erf becomes one operator: in every order of its factors, and nothing else does."""

import math
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.targets.graphs.rewrite import MICROSOFT_DOMAIN
from modelwright.targets.ort.gelus import fuse_gelus

CONSTANTS = {"root": math.sqrt(2), "inverse": math.sqrt(0.5), "one": 1.0, "half": 0.5, "other": 1.702}
SCALED = {"divided": ("Div", ["x", "root"]), "multiplied": ("Mul", ["inverse", "x"])}
FACTORS = {
    "half of the sum first": [("Mul", ["half", "sum"], "h"), ("Mul", ["x", "h"], "y")],
    "the input first": [("Mul", ["x", "sum"], "h"), ("Mul", ["h", "half"], "y")],
    "half of the input first": [("Mul", ["x", "half"], "h"), ("Mul", ["sum", "h"], "y")],
}


def make_model(scaled: Any, factors: Any, total: Any = ("Add", ["e", "one"]), opset: int = 20) -> Any:
    make = helper.make_node
    nodes = [
        make(scaled[0], scaled[1], ["s"], "scale"),
        make("Erf", ["s"], ["e"], "erf"),
        make(total[0], total[1], ["sum"], "sum"),
        *(make(operator, given, [result], f"make_{result}") for operator, given, result in factors),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 9]), helper.make_tensor_value_info("z", 1, ["n", 9])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.float32(value), name) for name, value in CONSTANTS.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("scaled", SCALED)
@pytest.mark.parametrize("factors", FACTORS)
def test_every_spelling_becomes_one_operator(scaled: str, factors: str) -> None:
    model = make_model(SCALED[scaled], FACTORS[factors])
    x = np.linspace(-4, 4, 18, dtype=np.float32).reshape(2, 9)
    expected = ReferenceEvaluator(model).run(None, {"x": x, "z": x})[0]
    assert fuse_gelus(model) == ["make_y"]
    (gelu,) = model.graph.node
    assert (gelu.op_type, list(gelu.input), list(gelu.output), gelu.domain) == ("Gelu", ["x"], ["y"], "")
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, {"x": x, "z": x})[0], expected, atol=1e-6)
    assert expected[1, 8] == pytest.approx(4, abs=1e-3)
    assert expected[0, 0] == pytest.approx(0, abs=1e-3)


def test_before_there_was_an_operator_it_is_the_runtimes_own() -> None:
    model = make_model(SCALED["divided"], FACTORS["the input first"], opset=17)
    fuse_gelus(model)
    assert model.graph.node[0].domain == MICROSOFT_DOMAIN
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17, MICROSOFT_DOMAIN: 1}


@pytest.mark.parametrize(
    "given",
    [
        {"scaled": ("Mul", ["x", "other"])},
        {"scaled": ("Div", ["root", "x"])},
        {"total": ("Add", ["e", "half"])},
        {"total": ("Sub", ["e", "one"])},
        {"factors": [("Mul", ["half", "sum"], "h"), ("Mul", ["z", "h"], "y")]},
        {"factors": [("Mul", ["x", "sum"], "h"), ("Mul", ["h", "one"], "y")]},
        {"factors": [("Mul", ["z", "half"], "h"), ("Mul", ["sum", "h"], "y")]},
        {"factors": [("Mul", ["sum", "sum"], "h"), ("Mul", ["h", "half"], "y")]},
        {"factors": [("Mul", ["half", "sum"], "h"), ("Mul", ["h", "x"], "t"), ("Add", ["t", "e"], "y")]},
        {"factors": [("Mul", ["half", "sum"], "h"), ("Mul", ["h", "x"], "t"), ("Add", ["t", "h"], "y")]},
    ],
)
def test_what_is_no_gelu_or_is_read_halfway_stays(given: dict[str, Any]) -> None:
    model = make_model(**{"scaled": SCALED["divided"], "factors": FACTORS["half of the sum first"]} | given)
    before = model.SerializeToString()
    assert fuse_gelus(model) == []
    assert model.SerializeToString() == before
