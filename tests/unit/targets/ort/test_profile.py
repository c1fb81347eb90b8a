"""ONNX Runtime's profile as operators, from events with known answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from onnx import helper

from modelwright.targets.ort.kernels import classify
from modelwright.targets.ort.layer_names import name_layers
from modelwright.targets.ort.profile import find_nodes, read_events
from modelwright.targets.profiling import WARM_UPS, TimedOperator


def make_run(ts: int, *nodes: tuple[str, str, int, int], inputs: str = "float", tid: int = 1) -> list[dict[str, Any]]:
    """The events of one inference of 1,000 µs; a node is name, operator, when it began, and what it took."""
    run: dict[str, Any] = {"cat": "Session", "name": "model_run", "ts": ts, "dur": 1000, "tid": tid, "args": {}}
    return [
        *(
            {
                "cat": "Node",
                "name": f"{name}_kernel_time",
                "ts": ts + begin,
                "dur": dur,
                "tid": tid,
                "args": {"op_name": operator, "input_type_shape": [{inputs: [1, 4]}]},
            }
            for name, operator, begin, dur in nodes
        ),
        run,
    ]


def times_of(events: list[dict[str, Any]]) -> Mapping[str, list[float]]:
    return {operator.name: list(operator.times_us) for operator in read_events(events)}


def test_warm_ups_are_left_out_and_runs_told_apart() -> None:
    events = [event for run in range(WARM_UPS + 2) for event in make_run(run * 2000, ("a", "Relu", 10, 100 + run))]
    assert times_of(events) == {"a": [100 + WARM_UPS, 101 + WARM_UPS]}


def test_a_branch_takes_what_its_nodes_do_not_and_a_loop_sums_them_up() -> None:
    warm = [event for run in range(WARM_UPS) for event in make_run(run * 2000)]
    nodes = (("loop", "Loop", 0, 100), ("body", "MatMul", 5, 30), ("body", "MatMul", 40, 30), ("after", "Relu", 100, 7))
    assert times_of([*warm, *make_run(WARM_UPS * 2000, *nodes)]) == {"loop": [40], "body": [60], "after": [7]}


def test_nodes_of_another_thread_are_not_inside() -> None:
    warm = [event for run in range(WARM_UPS) for event in make_run(run * 2000)]
    at = WARM_UPS * 2000
    events = [*warm, *make_run(at, ("a", "Conv", 0, 100)), *make_run(at, ("b", "Conv", 10, 50), tid=2)[:1]]
    assert times_of(events) == {"a": [100], "b": [50]}


@pytest.mark.parametrize(
    ("operator", "types", "answer"),
    [
        ("QLinearConv", ["uint8", "float"], ("compute", "int8")),
        ("DynamicQuantizeMatMul", ["float", "uint8"], ("compute", "int8")),
        ("Conv", ["float"], ("compute", "fp32")),
        ("Conv", ["float16"], ("compute", "fp16")),
        ("QLinearAdd", ["uint8"], ("other", "int8")),
        ("NhwcMaxPool", ["int8"], ("other", "int8")),
        ("Softmax", ["float"], ("other", "fp32")),
        ("QuantizeLinear", ["float"], ("conversion", None)),
        ("Cast", ["float16"], ("conversion", None)),
        ("Cast", ["int64"], ("other", None)),
        ("Gather", ["int64", "int64"], ("other", None)),
        ("Shape", ["float"], ("other", None)),
        ("RandomNormal", [], ("other", None)),
    ],
)
def test_what_an_operator_is(operator: str, types: list[str], answer: tuple[str, str | None]) -> None:
    assert classify(operator, types) == answer


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("conv1", "conv1"),
        ("conv2d_token_0", "conv2d"),
        ("/blocks.0/Conv_output_0_nchwc", "/blocks.0/Conv"),
        ("dense_3/MatMulAddFusion", "dense_3"),
        ("head_output_0", "head_output_0"),
        ("fused /head/Gemm", "/head/Gemm"),
    ],
)
def test_the_node_of_the_model_is_found_by_its_name(name: str, node: str) -> None:
    assert find_nodes(name) == (node,)


def test_a_fused_operator_is_the_layer_that_it_computes_and_not_its_activation() -> None:
    """Names are those of ONNX Runtime 1.31's profile of this model: `/act1/Relu_output_0_nchwc` was the Relu."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["/conv1/Conv_output_0"], name="/conv1/Conv"),
        helper.make_node("Relu", ["/conv1/Conv_output_0"], ["/act1/Relu_output_0"], name="/act1/Relu"),
        helper.make_node("Conv", ["/act1/Relu_output_0", "w"], ["b"], name="/conv2/Conv"),
        helper.make_node("Clip", ["b", "lo", "hi"], ["c"], name="/act2/Clip"),
        helper.make_node("Tanh", ["c"], ["d"], name="/act3/Tanh"),
        helper.make_node("Relu", ["x"], ["e"], name="/first/Relu"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))

    def find(name: str, operator: str) -> tuple[str, ...]:
        timed = TimedOperator(
            name=name, type=operator, kind="compute", precision="fp32", nodes=find_nodes(name), times_us=[1.0]
        )
        return name_layers([timed], model)[0].nodes

    assert find("/act1/Relu_output_0_nchwc", "Conv") == ("/conv1/Conv",)
    assert find("c_nchwc", "Conv") == ("/conv2/Conv",)
    assert find("/act3/Tanh", "Tanh") == ("/act3/Tanh",), "it ran by itself"
    assert find("/first/Relu", "FusedRelu") == ("/first/Relu",), "nothing is before it"
    assert find("fused /conv1/Conv", "FusedConv") == ("/conv1/Conv",)
    assert find("new", "MatMul") == ("new",)
