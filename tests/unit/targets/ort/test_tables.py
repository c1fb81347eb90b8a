"""Lookup tables in INT8: known integers, only the rows looked up become floats, and tables that 8 bits ruin."""

from typing import Any

import numpy as np
import pytest
from graph_models import random_array
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.targets.graphs.index import index_graph
from modelwright.targets.ort.tables import find_tables, quantize_tables

IDS = np.array([[5, 0, 999], [7, 7, 1]])


def make_model(table: Any, *, axis: int = 0, opset: int = 21, twice: bool = False) -> Any:
    nodes = [helper.make_node("Gather", ["E", "ids"], ["e"], "embed", axis=axis)]
    if twice:
        nodes.append(helper.make_node("Gather", ["E", "ids"], ["e2"], "embed2", axis=axis))
    nodes.append(helper.make_node("Add", ["e", "e2" if twice else "e"], ["y"], "double"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ("n", 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(table, "E")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: Any) -> Any:
    return ReferenceEvaluator(model).run(None, {"ids": IDS})[0]


def test_a_table_whose_columns_lie_on_the_grid_is_kept_to_the_bit() -> None:
    table = np.random.default_rng(0).integers(-127, 128, (1000, 32)).astype(np.float32)
    table[0] = 127
    table *= np.linspace(1, 100, 32, dtype=np.float32)  # channels that differ a hundredfold
    model = make_model(table)
    quantized = quantize_tables(model, find_tables(model))
    stored = index_graph(quantized)
    assert stored.array("E_rows_q").dtype == np.int8
    assert stored.array("E_rows_q")[0].tolist() == [127] * 32
    assert "E" not in stored.constants
    np.testing.assert_allclose(run(quantized), run(model), rtol=1e-6)


def test_only_the_rows_become_floats_and_one_table_is_stored_once() -> None:
    model = make_model(random_array(1000, 32), twice=True)
    quantized = quantize_tables(model, find_tables(model))
    assert [node.op_type for node in quantized.graph.node] == [
        "Gather", "DequantizeLinear", "Gather", "DequantizeLinear", "Add",
    ]  # fmt: skip
    assert len(quantized.graph.initializer) == 2
    assert quantized.ByteSize() < model.ByteSize() / 3.5
    found, expected = run(quantized), run(model)
    assert 0 < float(np.abs(found - expected).max()) < 0.02 * float(np.abs(expected).max())


def test_a_lookup_that_stays_float_reads_the_float_table() -> None:
    model = make_model(random_array(1000, 32), twice=True)
    quantized = quantize_tables(model, {"embed"})
    assert {"E", "E_rows_q"} <= set(index_graph(quantized).constants)
    assert quantize_tables(model, ()) is model


LOUD = random_array(1000, 32)
LOUD[3] *= 1000
ENDLESS = random_array(1000, 32)
ENDLESS[3, 3] = np.inf


@pytest.mark.parametrize(
    "model",
    [
        make_model(random_array(100, 32)),
        make_model(random_array(1000, 32), axis=1),
        make_model(random_array(1000, 32), opset=12),
        make_model(random_array(1000, 32, 2)),
        make_model(LOUD),
        make_model(ENDLESS),
    ],
    ids=["small", "columns", "old opset", "three axes", "one row a thousand times the others", "infinity"],
)
def test_what_is_no_large_table_or_would_be_ruined_stays(model: Any) -> None:
    assert find_tables(model) == {}
