"""Batches and sizes that a TFLite file takes, and what is fixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from tflite_bench import (
    FLOAT,
    LOSSES,
    RNG,
    Bench,
    node,
    toolchain,  # noqa: F401 - runs before every test
    weights,
)

pytestmark = pytest.mark.slow


def test_a_batch_that_cannot_be_resized_runs_sample_by_sample(tmp_path: Path) -> None:
    """A table with one copy a sample, folded, bakes the batch size in; a batch's outputs are those of its samples."""
    nodes = [
        node("Shape", "x", "n", start=0, end=1),
        node("Concat", "n rest", "size", axis=0),
        node("Expand", "table size", "tables"),
        node("MatMul", "x tables", "y"),
    ]
    constants = {"rest": np.array([4, 3]), "table": weights(4, 3)[None]}
    bench = Bench(tmp_path, nodes, {"x": (FLOAT, ["n", 2, 4])}, {"y": (FLOAT, ["n", 2, 3])}, constants)
    result = bench.build("fp32")
    assert result.recipe["binding"]["splits_batch"]
    assert any("one sample at a time" in note for note in result.notes)
    with bench.load("fp32", result) as session:
        bench.prove_batch(session, LOSSES["fp32"])


def test_a_fully_convolutional_network_takes_other_sizes(tmp_path: Path) -> None:
    """Height and width are open in the model, and nothing in the file holds the samples' sizes."""
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "y", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", "r1", "p"),
        node("Flatten", "p", "z"),
    ]
    inputs, outputs = {"x": (FLOAT, ["n", 3, "h", "w"])}, {"y": (FLOAT, ["n", 5, "a", "b"]), "z": (FLOAT, ["n", 8])}
    bench = Bench(
        tmp_path, nodes, inputs, outputs, {"w1": weights(8, 3, 3, 3), "w2": weights(5, 8, 3, 3)}, sizes=(16, 24)
    )
    for precision in ("fp32", "int8"):
        result = bench.build(precision)
        assert result.signature == bench.signature
        assert any("other sizes" in note for note in result.notes)
        with bench.load(precision, result) as session:
            bench.prove_all(session, LOSSES[precision])
            bench.prove_batch(session, LOSSES[precision])
            for shape in ((1, 3, 48, 20), (2, 3, 33, 25), (1, 3, 16, 24)):
                bench.prove(session, LOSSES[precision], {"x": RNG.uniform(-1, 1, shape).astype(np.float32)})


def test_a_network_that_resizes_to_its_own_input_is_fixed_and_says_so(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w1", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Shape", "x", "s"),
        node("Gather", "s places", "hw"),
        node("Concat", "head hw", "s2", axis=0),
        helper.make_node("Resize", ["c", "", "", "s2"], ["y"], mode="linear"),
    ]
    constants = {"w1": weights(8, 3, 3, 3), "places": np.array([2, 3]), "head": np.array([1, 8])}
    inputs, outputs = {"x": (FLOAT, [1, 3, "h", "w"])}, {"y": (FLOAT, [1, 8, "h", "w"])}
    bench = Bench(tmp_path, nodes, inputs, outputs, constants, sizes=(16, 24))
    result = bench.build("fp32")
    assert result.signature is not None
    assert result.signature.inputs[0].shape == (1, 3, 16, 24)
    assert result.signature.outputs[0].shape == (1, 8, 16, 24)
    assert any(note.startswith("h fixed at 16, w fixed at 24") for note in result.notes)
    with bench.load("fp32", result) as session:
        bench.prove_all(session, LOSSES["fp32"])
        with pytest.raises(ValueError, match=r"the file takes \[1, 3, 16, 24\]"):
            session.run({"x": np.zeros((1, 3, 32, 24), np.float32)})
