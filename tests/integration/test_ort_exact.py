"""Quantized models without integer kernels: what a machine computes that sums 8-bit products exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from ort_bench import (
    ARM,
    MACHINE,
    Bench,
    make_attention,
    make_cnn,
    make_model,
)

from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.targets.contract import Target
from modelwright.targets.graphs.run import open_session
from modelwright.targets.ort import recipes as ort_recipes
from modelwright.targets.ort import target as ort
from modelwright.targets.ort.exact import AS_WRITTEN, write_exactly


def make_loud_products(*, dynamic: bool) -> Any:
    """A quantized matrix product whose sums of two saturate 16 bits, in the operator that each recipe writes.

    Of [255, 0, 255, 255] with weights of 127 and one of -127: without dot products, 2 * 255 * 127 becomes 32767.
    """
    weight = np.full((4, 2), 127, np.int8)
    weight[3, 1] = -127
    constants = {"w_q": weight, "w_s": np.ones(2, np.float32), "w_z": np.zeros(2, np.int8)}
    if dynamic:
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["x_q", "x_s", "x_z"]),
            helper.make_node("MatMulInteger", ["x_q", "w_q", "x_z", "w_z"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["floats"], to=1),
            helper.make_node("Mul", ["floats", "x_s"], ["y"]),
        ]
    else:
        constants |= {"x_s": np.float32(1), "x_z": np.uint8(0), "b": np.array([1, 2], np.float32)}
        names = ["x_q", "w_q", "x_s", "w_s", "x_z", "w_z", "b"]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "x_s", "x_z"], ["x_q"]),
            helper.make_node("MatMulIntegerToFloat", names, ["y"], domain="com.microsoft"),
        ]
    model = make_model(nodes, constants, ("n", 4), ("n", 2))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


@pytest.mark.parametrize("dynamic", [False, True])
def test_sums_that_would_saturate_are_exact_without_integer_kernels(tmp_path: Path, dynamic: bool) -> None:
    exact = write_exactly(make_loud_products(dynamic=dynamic))
    session = open_session(exact, tmp_path, entries=AS_WRITTEN)
    x = np.array([[255, 0, 255, 255]], np.float32)
    bias = [0, 0] if dynamic else [1, 2]
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], [[3 * 255 * 127 + bias[0], 255 * 127 + bias[1]]])
    assert not {node.op_type for node in exact.graph.node} & {"MatMulInteger", "MatMulIntegerToFloat"}


@pytest.mark.parametrize("target", [ort.OrtInt8(), ort.OrtInt8Dynamic()])
def test_a_host_that_saturates_judges_what_the_machine_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    judged: list[Any] = []
    monkeypatch.setattr(ort_recipes, "write_exactly", lambda model: judged.append(write_exactly(model)) or judged[-1])
    bench = Bench(tmp_path, make_attention())
    here = bench.build(target, machine=ARM, host=MACHINE)
    assert judged, "candidates were run without integer kernels"
    assert here.emulation is not None
    with bench.load(target, here) as session:
        emulated = open_session(onnx.load(here.emulation), tmp_path, entries=AS_WRITTEN)
        for feeds in bench.samples("evaluation").feeds(4):
            # This host's own kernels are exact, by dot products: the same numbers but for float sums.
            found, expected = session.run(feeds)["y"], emulated.run(None, dict(feeds))[0]
            np.testing.assert_allclose(found, expected, atol=2e-2 * np.abs(expected).max())


def test_a_host_that_sums_exactly_runs_the_artifact_itself(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_cnn())
    roles = {"y": OutputRole(name="y", role="embedding", why="a test", axis=1)}
    assert bench.build(ort.OrtInt8(), machine=ARM, host=ARM, roles=roles).emulation is None


def test_an_lstm_has_no_form_without_integer_kernels() -> None:
    node = helper.make_node("DynamicQuantizeLSTM", ["x"], ["y"], domain="com.microsoft")
    assert write_exactly(make_model([node], {}, (1, 1, 1), (1, 1, 1))) is None
