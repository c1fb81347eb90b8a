"""A table that is an embedding and the last layer's matrix at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph_models import make_model, random_array
from onnx import helper

from modelwright.targets.ort.tied import explain_tied

TABLE = random_array(1000, 32)
NODES = [
    helper.make_node("Gather", ["E", "i"], ["e"], "embed"),
    helper.make_node("MatMul", ["x", "W"], ["y"], "head"),
]


@pytest.mark.parametrize(
    ("matrix", "count"),
    [
        (TABLE.T, 1),
        (TABLE, 1),
        (TABLE.T + 1, 0),
        (TABLE[:, :16].T, 0),
    ],
)
def test_it_is_told_by_its_values(matrix: Any, count: int) -> None:
    notes = explain_tied(make_model(NODES, {"E": TABLE, "W": matrix, "i": np.array([1])}))
    assert len(notes) == count
    if notes:
        assert "the table E is stored twice, in 8 bits 0.0 MB each: where e is looked up, and for y" in notes[0]


def test_one_tensor_under_one_name_counts_too_and_small_ones_do_not() -> None:
    nodes = [NODES[0], helper.make_node("Gemm", ["x", "E"], ["y"], "head", transB=1)]
    assert len(explain_tied(make_model(nodes, {"E": TABLE, "i": np.array([1])}))) == 1
    assert explain_tied(make_model(nodes, {"E": TABLE[:100], "i": np.array([1])})) == []
