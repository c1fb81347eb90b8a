"""Planned layers are found in other graphs of the same model, and take the narrowest way that is wide enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.records.plan import BitPlan, PlannedLayer
from modelwright.targets.quantization.planned import (
    BYTE_WEIGHT,
    FLOAT,
    INTEGER,
    NARROW,
    NARROW_WEIGHT,
    PlannedModel,
    Way,
    choose_way,
)

ALL_WAYS = (NARROW, NARROW_WEIGHT, INTEGER, BYTE_WEIGHT)
PRODUCT = Way(weight_bits=None, activation_bits=8)


def make_layer(output: str, weight_bits: int | None, activation_bits: int | None, **other: Any) -> PlannedLayer:
    facts = {"operator": "MatMul", "weight": f"{output}_w", "node": output, **other}
    return PlannedLayer(output=output, weight_bits=weight_bits, activation_bits=activation_bits, **facts)


def make_plan(*layers: PlannedLayer) -> BitPlan:
    return BitPlan(onnx_sha256="a" * 64, model="net", origin="a hand", method="by hand", layers=layers)


def make_graph(nodes: list[Any], *constants: str) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((4, 4), np.float32), name) for name in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make_block() -> Any:
    """Two products that are added, and a third of the sum."""
    node = helper.make_node
    return make_graph(
        [
            node("MatMul", ["x", "a_w"], ["a"], "a"),
            node("Add", ["a", "bias"], ["a_biased"], "a_bias"),
            node("Shape", ["a_biased"], ["shape"]),
            node("Reshape", ["a_biased", "shape"], ["a_shaped"]),
            node("Identity", ["b_stored"], ["b_w"]),
            node("MatMul", ["x", "b_w"], ["b"], "b"),
            node("Add", ["a_shaped", "b"], ["sum"], "sum"),
            node("MatMul", ["sum", "c_w"], ["c"], "c"),
            node("Relu", ["c"], ["y"], "relu"),
        ],
        "a_w", "bias", "b_stored", "c_w",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "expected"),
    [
        (8, 8, INTEGER), (6, 6, INTEGER), (5, 8, INTEGER),
        (4, 8, NARROW), (4, 4, NARROW), (2, 6, NARROW),
        (4, None, NARROW_WEIGHT), (3, None, NARROW_WEIGHT),
        (6, None, BYTE_WEIGHT), (8, None, BYTE_WEIGHT),
        (None, 8, FLOAT), (None, None, FLOAT),
    ],
)  # fmt: skip
def test_the_narrowest_way_that_is_wide_enough(
    weight_bits: int | None, activation_bits: int | None, expected: Way
) -> None:
    assert choose_way(make_layer("a", weight_bits, activation_bits), ALL_WAYS) == expected


def test_a_runtime_without_narrow_ways_computes_wider() -> None:
    assert choose_way(make_layer("a", 4, 4), (INTEGER,)) == INTEGER
    assert choose_way(make_layer("a", 4, None), (INTEGER,)) == FLOAT
    scores = make_layer("a", None, 6, weight=None)
    assert choose_way(scores, ALL_WAYS) == NARROW  # that it has no weight says the offer, which is the runtime's
    assert choose_way(scores, (PRODUCT,)) == PRODUCT


def test_layers_are_found_by_what_their_results_are_called() -> None:
    planned = PlannedModel(make_plan(make_layer("a", 8, 8), make_layer("b", 4, 8), make_layer("c", 8, 8)), make_block())
    named = {name: planned.find([name]) for name in ("a", "a_biased", "a_shaped", "b", "sum", "c", "y", "x")}
    assert {name: layer and layer.output for name, layer in named.items()} == {
        "a": "a", "a_biased": "a", "a_shaped": "a", "b": "b", "sum": None, "c": "c", "y": "c", "x": None,
    }  # fmt: skip


def test_layers_are_found_in_a_graph_with_fused_ones() -> None:
    planned = PlannedModel(make_plan(make_layer("a", 8, 8), make_layer("c", 4, 8)), make_block())
    fused = make_graph(
        [
            helper.make_node("Gemm", ["x", "a_w", "bias"], ["gemm"], "a/fused"),
            helper.make_node("Identity", ["gemm"], ["a_shaped"], "reshaped"),
            helper.make_node("MatMul", ["x", "b_stored"], ["b"], "b"),
            helper.make_node("Add", ["a_shaped", "b"], ["sum"], "sum"),
            helper.make_node("FusedMatMul", ["sum", "c_w"], ["y"], "other"),
            helper.make_node("MatMul", ["y", "c_w"], ["z"], "foreign"),
        ],
        "a_w", "bias", "b_stored", "c_w",
    )  # fmt: skip
    assert {name: layer.output for name, layer in planned.match(fused).items()} == {"a/fused": "a"}


def test_an_unplanned_product_is_not_taken_for_the_one_before_it() -> None:
    planned = PlannedModel(make_plan(make_layer("a", 8, 8)), make_block())
    assert planned.match(make_block()).keys() == {"a"}
    straight = make_graph(
        [helper.make_node("MatMul", ["x", "a_w"], ["a"], "a"), helper.make_node("MatMul", ["a", "c_w"], ["y"], "c")],
        "a_w", "c_w",
    )  # fmt: skip
    assert PlannedModel(make_plan(make_layer("a", 8, 8)), straight).match(straight).keys() == {"a"}


def test_a_layer_that_the_model_has_not_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"no node that gives 'd'"):
        PlannedModel(make_plan(make_layer("d", 8, 8)), make_block())
    with pytest.raises(BadInputError, match=r"no constant 'elsewhere'"):
        PlannedModel(make_plan(make_layer("a", 8, 8, weight="elsewhere")), make_block())


def test_what_became_of_a_plan_says_what_stays_simulated() -> None:
    layers = (make_layer("a", 8, 8), make_layer("b", 6, 4), make_layer("c", 4, None))
    planned = PlannedModel(make_plan(*layers), make_block())
    found = planned.describe({"a": INTEGER, "b": INTEGER}, tensorwise={"a"}, lacking="it has no such kernel")
    assert [(layer.weight_bits, layer.activation_bits) for layer in found.layers] == [(8, 8), (8, 8), (None, None)]
    assert [layer.granularity for layer in found.layers] == ["tensor", "channel", "channel"]
    assert [layer.reason for layer in found.layers] == [
        None, "it has no such kernel", "it is no layer of its own in the runtime's graph",
    ]  # fmt: skip
    assert found.explain() == (
        "1 of the plan's 3 layers are executed as planned, 2 wider, whose bits stay simulated; it has no such kernel: "
        "1 with 6-bit weights, 4-bit activations as 8-bit weights, 8-bit activations; it is no layer of its own in the "
        "runtime's graph: 1 with 4-bit weights, float activations as float"
    )
    whole = planned.describe({"a": INTEGER, "b": NARROW, "c": NARROW_WEIGHT}, lacking="it has no such kernel")
    assert [layer.is_widened for layer in whole.layers] == [False, True, False]
    repaired = planned.describe({"a": INTEGER, "b": INTEGER, "c": NARROW_WEIGHT}, repaired={"a"}, lacking="none")
    assert repaired.layers[0].reason == "put back to float: the plan loses too much"


def test_a_plan_of_which_nothing_is_left_is_refused() -> None:
    planned = PlannedModel(make_plan(make_layer("a", 8, 8), make_layer("b", None, 8)), make_block())
    with pytest.raises(BuildFailedError, match=r"nothing of the plan can be executed: all 2 layers"):
        planned.describe({"a": FLOAT, "b": FLOAT}, lacking="no kernel")


def test_float_layers_are_as_planned() -> None:
    kept = replace(make_layer("b", None, None))
    planned = PlannedModel(make_plan(make_layer("a", 8, 8), kept), make_block())
    found = planned.describe({"a": INTEGER, "b": FLOAT}, lacking="no kernel")
    assert found.explain() == "the plan (by hand) is executed as it is, all 2 layers of it"
