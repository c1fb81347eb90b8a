from __future__ import annotations

from modelwright.targets.ort.session import count_nodes


def test_one_integer_node_does_not_name_a_session() -> None:
    told = count_nodes({"Conv": 9, "Gemm": 1, "QLinearConv": 1, "QuantizeLinear": 2, "Relu": 20})
    assert told["precision"] == "mixed"
    assert told["compute_nodes"] == {"int8": 1, "fp32": 10}
    assert (told["integer_nodes"], told["float_compute_nodes"]) == (1, 10)


def test_all_nodes_that_multiply_do() -> None:
    told = count_nodes({"QLinearConv": 8, "QGemm": 1, "QLinearAdd": 4, "Softmax": 2})
    assert told["precision"] == "int8"
    assert told["compute_nodes"] == {"int8": 9, "fp32": 0}
    assert told["integer_nodes"] == 13


def test_without_any_it_is_float() -> None:
    assert count_nodes({"Relu": 3})["precision"] == "fp32"
