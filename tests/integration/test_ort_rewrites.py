"""Graphs that are written anew for ONNX Runtime's kernels: the same numbers, and what really runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from ort_bench import (
    MACHINE,
    Bench,
    count_operators,
    make_model,
    random_weights,
)

from modelwright.core.records.machine import Machine
from modelwright.targets.contract import RunSettings, Target
from modelwright.targets.graphs.run import session_options
from modelwright.targets.ort import recipes as ort_recipes
from modelwright.targets.ort import target as ort
from modelwright.targets.quantization import prepare
from modelwright.targets.quantization.formats import choose_scheme


def test_narrow_convolutions_over_pairs_give_the_same_bits_and_move_nothing_about(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[2, 2, 2, 2]),
        helper.make_node("Add", ["c2", "r1"], ["a"], "shortcut"),
        helper.make_node("Conv", ["a", "w3"], ["c3"], "conv3", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c3"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["y"], "flatten"),
    ]
    constants = {
        "w1": random_weights(8, 4, 3, 3),
        "w2": random_weights(8, 8, 5, 5),
        "b2": np.linspace(-1, 1, 8, dtype=np.float32),
        "w3": random_weights(16, 8, 3, 3),
    }
    bench = Bench(tmp_path, make_model(nodes, constants, ("n", 4, 16, 16), ("n", 16)))
    request = bench.request(tmp_path)
    model, _ = prepare.prepare_model(request)
    # 7-bit weights are summed exactly by every kernel.
    quantizer = ort_recipes.StaticQuantizer(request, model, "cnn", choose_scheme(MACHINE, static=True))
    built = quantizer.build(quantizer.candidates()[0][0], ())
    assert quantizer.finish(built) is built, "no machine that this was measured on"
    machine = Machine(name="dots", architecture="x86_64", instruction_sets=frozenset({"avx512_vnni"}), cores=2)
    quantizer = ort_recipes.StaticQuantizer(replace(request, machine=machine), model, "cnn", quantizer._scheme)
    finished = quantizer.finish(built)
    assert sum(node.op_type == "Reshape" for node in finished.graph.node) == 4
    expected, found = (list(quantizer.run(each, bench.tuning.feeds())) for each in (built, finished))
    for before, after in zip(expected, found, strict=True):
        np.testing.assert_array_equal(before["y"], after["y"])
    kinds = []
    for number, each in enumerate((built, finished)):
        options = session_options(RunSettings())
        options.optimized_model_filepath = str(tmp_path / f"optimized{number}.onnx")
        onnxruntime.InferenceSession(each.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kinds.append(Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node))
    assert kinds[1]["QLinearConv"] == kinds[0]["QLinearConv"] == 3
    assert kinds[1]["Transpose"] == kinds[0]["Transpose"], "those around the reshapes cancel out"


@pytest.mark.parametrize("target", [ort.OrtInt8(), ort.OrtInt8Dynamic()])
def test_a_gelu_that_the_runtime_does_not_recognize_runs_as_one(tmp_path: Path, target: Target) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "up"),
        helper.make_node("Div", ["m", "root"], ["s"], "scale"),
        helper.make_node("Erf", ["s"], ["e"], "erf"),
        helper.make_node("Add", ["e", "one"], ["t"], "sum"),
        helper.make_node("Mul", ["half", "t"], ["h"], "halve"),
        helper.make_node("Mul", ["m", "h"], ["g"], "gelu"),
        helper.make_node("MatMul", ["g", "v"], ["y"], "down"),
    ]
    constants = {"root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}
    weights = {"w": random_weights(32, 64), "v": random_weights(64, 32)}
    bench = Bench(tmp_path, make_model(nodes, constants | weights, ("n", 8, 32), ("n", 8, 32)))
    float_types = count_operators(bench.profile(ort.OrtFp32(), bench.build(ort.OrtFp32())))
    assert float_types["Erf"] == 1, "a runtime that fuses it needs no help"
    result = bench.build(target)
    seen = count_operators(bench.profile(target, result))
    assert (seen["Gelu"], seen["Erf"]) == (1, 0)
    with bench.load(target, result) as session:
        assert bench.cosine(session) > 0.995


@pytest.mark.parametrize("target", [ort.OrtInt8(), ort.OrtInt8Dynamic()])
def test_a_residual_and_its_normalization_are_two_operators(tmp_path: Path, target: Target) -> None:
    model = make_model(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"], "dense"),
            helper.make_node("Add", ["m", "x"], ["r"], "residual"),
            helper.make_node("LayerNormalization", ["r", "g", "b"], ["n"], "norm"),
            helper.make_node("MatMul", ["n", "v"], ["s"], "scores"),
            helper.make_node("Softmax", ["s"], ["y"], "softmax"),
        ],
        {
            "w": random_weights(32, 32),
            "g": np.ones(32, np.float32),
            "b": np.zeros(32, np.float32),
            "v": random_weights(32, 32),
        },
        ("n", 8, 32),
        ("n", 8, 32),
    )
    bench = Bench(tmp_path, model)
    seen = count_operators(bench.profile(target, bench.build(target)))
    assert seen["Sum"] == seen["LayerNormalization"] == 1
    assert "SkipLayerNormalization" in count_operators(bench.profile(ort.OrtFp32(), bench.build(ort.OrtFp32())))
