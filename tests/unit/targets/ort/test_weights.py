"""Matrices in blocks and tables in 8 bits: which nodes are written, and what is left in 8 bits or in float."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.targets.contract import BuildRequest
from modelwright.targets.ort.weights import CANDIDATES, WeightQuantizer

NO_REQUEST = cast(BuildRequest, None)
ROWS = 600


def make_model() -> Any:
    """Looks words up, multiplies twice (once as a Gemm), and has a matrix that nothing constant is."""
    generator = np.random.default_rng(1)
    arrays = {
        "table": generator.normal(0, 1, (ROWS, 48)),
        "first": generator.normal(0, 1, (48, 40)),
        "second": generator.normal(0, 1, (24, 40)),
        "bias": generator.normal(0, 1, (24,)),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"], "lookup"),
        helper.make_node("MatMul", ["words", "first"], ["wide"], "dense"),
        helper.make_node("Relu", ["wide"], ["hidden"], "relu"),
        helper.make_node("Gemm", ["hidden", "second", "bias"], ["y"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 24])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def kinds(model: Any) -> dict[str, tuple[str, int | None]]:
    found = {}
    for node in model.graph.node:
        bits = next((attribute.i for attribute in node.attribute if attribute.name == "bits"), None)
        found[node.name] = node.op_type, bits
    return found


@pytest.mark.parametrize(("bits", "spared"), [(4, ("MatMulNBits", 8)), (8, ("MatMul", None))])
def test_every_matrix_and_table_is_written_and_spared_ones_are_not(bits: int, spared: tuple[str, int | None]) -> None:
    quantizer = WeightQuantizer(NO_REQUEST, make_model(), bits)
    candidate = CANDIDATES[bits][0]
    whole = kinds(quantizer.build(candidate, ()))
    assert whole["dense"] == whole["head"] == ("MatMulNBits", bits)
    assert whole["lookup_floats"] == ("DequantizeLinear", None)
    part = kinds(quantizer.build(candidate, ("head", "lookup")))
    assert part["dense"] == ("MatMulNBits", bits)
    assert part["head"] == spared
    assert "lookup_floats" not in part


def test_float_matrices_and_tables_are_left_behind() -> None:
    quantizer = WeightQuantizer(NO_REQUEST, make_model(), 4)
    made = quantizer.build(CANDIDATES[4][0], ())
    floats = [numpy_helper.to_array(tensor) for tensor in made.graph.initializer if tensor.data_type == 1]
    assert sum(array.size for array in floats) == 48 + 24 + 2 * 40 + 2 * 24  # scales of columns and blocks, and a bias
    assert quantizer.costs(made) == pytest.approx(
        {name: size / 31680 for name, size in (("lookup", 28800), ("dense", 1920), ("head", 960))}
    )


def test_words_for_what_was_spared() -> None:
    quantizer = WeightQuantizer(NO_REQUEST, make_model(), 4)
    assert quantizer.explain_kept(()) is None
    told = quantizer.explain_kept(("dense", "head", "lookup"))
    assert told == "4 bits lose too much in places: 2 matrices in 8 bits and 1 table in float"
