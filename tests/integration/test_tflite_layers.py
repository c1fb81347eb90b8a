"""Layers of a TFLite file that are put back, and what a file of rounded weights takes from the float one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from onnx import helper
from tflite_bench import (
    COUNT,
    FLOAT,
    RNG,
    toolchain,  # noqa: F401 - runs before every test
    weights,
)

from modelwright.harness.building import build_targets
from modelwright.targets.tflite.converter.originals import adopt_names, restore_weights

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("target", ["tflite-int8", "tflite-int8-dynamic"])
def test_a_product_whose_input_no_scale_of_8_bits_holds_stays_in_float(target: str, tmp_path: Path) -> None:
    """An amount up to 20,000 beside flags and rates, which alone decide: one scale for both leaves nothing of these."""
    amounts = np.exp(RNG.normal(5, 1.6, 400)).clip(1, 20000)
    features = np.column_stack([amounts, RNG.random((400, 10))]).astype(np.float32)
    arrays = {"w0": weights(11, 64), "w1": weights(64, 64), "w2": weights(64, 4)}
    arrays["w0"][0] = 0.0
    for name, size in (("b1", 64), ("b2", 4)):
        arrays[name] = RNG.standard_normal(size).astype(np.float32) / 10
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["p0"], name="reads"),
        helper.make_node("Relu", ["p0"], ["r0"]),
        helper.make_node("Gemm", ["r0", "w1", "b1"], ["h1"], name="mixes"),
        helper.make_node("Relu", ["h1"], ["r1"]),
        helper.make_node("Gemm", ["r1", "w2", "b2"], ["y"], name="answers"),
    ]
    path = models.save(tmp_path / "m.onnx", nodes, [("x", FLOAT, ["batch", 11])], [("y", FLOAT, ["batch", 4])], arrays)
    samples = tmp_path / "s.npz"
    np.savez(samples, x=features)
    made = build_targets(path, samples=samples, out=tmp_path / "out", targets=[target], task="y=regression")
    manifest = made.artifacts[target].manifest
    (kept,) = manifest.recipe["search"]["float_layers"]
    assert kept["layer"] == "p0"
    assert manifest.recipe["operators"]["FULLY_CONNECTED"] == {"float32": 1, "float32*int8": 2}
    assert manifest.proof is not None
    assert manifest.proof.fidelity.task is not None
    assert manifest.proof.fidelity.task.severity <= 1.0


def test_a_file_takes_names_and_weights_of_another_one_of_its_graph(tmp_path: Path) -> None:
    """A copy of a model gets other names where the model's nodes have none; layers are told by those of the model."""
    files = []
    for number, width in enumerate((4, 4, 5)):
        arrays = {"w": weights(6, width), "v": weights(width, 3)}
        nodes = [
            helper.make_node("MatMul", ["x", "w"], [f"first{number}"]),
            helper.make_node("Relu", [f"first{number}"], [f"active{number}"]),
            helper.make_node("MatMul", [f"active{number}", "v"], ["y"]),
        ]
        path = tmp_path / f"{number}.onnx"
        models.save(path, nodes, [("x", FLOAT, ["batch", 6])], [("y", FLOAT, ["batch", 3])], arrays)
        np.savez(tmp_path / "s.npz", x=RNG.standard_normal((COUNT, 6)).astype(np.float32))
        made = build_targets(path, samples=tmp_path / "s.npz", out=tmp_path / str(number), targets=["tflite-fp32"])
        files.append(Path(made.artifacts["tflite-fp32"].directory, "model.tflite").read_bytes())
    (names, stored), (other_names, other_stored) = map(read_weights, files[:2])
    assert names != other_names
    adopted = adopt_names(files[1], files[0])
    assert read_weights(adopted)[0] == names
    with pytest.raises(ValueError, match="becomes another graph"):
        adopt_names(files[2], files[0])
    restored = read_weights(restore_weights(adopted, files[0], names[:1]))[1]
    np.testing.assert_array_equal(restored[0], stored[0])
    np.testing.assert_array_equal(restored[1], other_stored[1])
    assert not np.array_equal(restored[1], stored[1])


def read_weights(data: bytes) -> tuple[list[str], list[Any]]:
    """Returns the names of the matrix products of a file, and their weights."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    graph = model.subgraphs[0]
    products = [
        op for op in graph.operators if flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) == "FULLY_CONNECTED"
    ]
    names = [graph.tensors[op.outputs[0]].name.decode() for op in products]
    return names, [np.array(model.buffers[graph.tensors[op.inputs[1]].buffer].data) for op in products]
