"""OpenVINO for real, on a model with an If: branches that samples take, and one that none takes."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from openvino_bench import Workplace

from modelwright.core.outputs.fidelity import compare_outputs
from modelwright.targets.openvino.target import OpenvinoInt8

pytest.importorskip("openvino")


def make_branching(path: Path) -> Path:
    """Scores of an image by one of two networks, which `mode` chooses; both call their tensors alike."""
    rng = np.random.default_rng(7)

    def branch(scale: float) -> onnx.GraphProto:
        weight = (rng.standard_normal((8, 3, 3, 3)) * scale).astype(np.float32)
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        ]
        result = helper.make_tensor_value_info("p", TensorProto.FLOAT, None)
        return helper.make_graph(nodes, "branch", [], [result], [numpy_helper.from_array(weight, "w")])

    nodes = [
        helper.make_node("Equal", ["mode", "one"], ["is_one"], name="ask"),
        helper.make_node("If", ["is_one"], ["pooled"], "choose", then_branch=branch(0.3), else_branch=branch(0.1)),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "head"], ["y"], name="head"),
    ]
    inputs = [("x", TensorProto.FLOAT, ["batch", 3, 12, 12]), ("mode", TensorProto.INT64, [])]
    constants = {"one": np.array(1), "head": rng.standard_normal((8, 5)).astype(np.float32)}
    return models.save(path, nodes, inputs, [("y", TensorProto.FLOAT, ["batch", 5])], constants)


def count_quantizers(model) -> int:
    return sum(operator.get_type_name() == "FakeQuantize" for operator in model.get_ops())


@pytest.mark.parametrize("modes", ["then", "else", "both"])
def test_a_branch_that_no_sample_takes_stays_in_float(tmp_path: Path, modes: str) -> None:
    """NNCF refuses the whole model there, "Calibration dataset must not be empty", and any that corrects biases."""
    pytest.importorskip("nncf")
    place = Workplace(tmp_path, make_branching(tmp_path / "m.onnx"))
    mode = {"then": np.ones(40, np.int64), "else": np.zeros(40, np.int64), "both": np.arange(40) % 2}[modes]
    images = np.cumsum(np.random.default_rng(1).standard_normal((40, 3, 12, 12)) * 0.3, -1)
    np.savez(place.samples, x=images.astype(np.float32), mode=mode)
    result = place.build(OpenvinoInt8(), samples=True)
    idle = {"then": "else", "else": "then"}.get(modes)
    expected = [] if idle is None else [f"the {idle} branch of choose"]
    assert {trial["fault"] for trial in result.recipe["search"]["candidates"]} == {None}
    assert result.recipe["idle_branches"] == expected
    assert [note for note in result.notes if "no calibration sample takes it" in note] == [
        f"in float, because no calibration sample takes it: {name}" for name in expected
    ]
    import openvino

    (choice,) = [op for op in openvino.Core().read_model(tmp_path / result.model_file).get_ops() if is_if(op)]
    quantized = {"then": count_quantizers(choice.get_function(0)), "else": count_quantizers(choice.get_function(1))}
    assert {name for name, count in quantized.items() if count} == {"then", "else"} - {idle}
    with place.load(OpenvinoInt8(), result) as session:
        answers = [session.run(feeds) for feeds in place.feeds()]
    fidelity = compare_outputs([place.answer(feeds) for feeds in place.feeds()], answers)
    assert fidelity.cosine is not None
    assert fidelity.cosine > 0.99


def test_layers_in_branches_are_put_back_as_they_were(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    nncf = pytest.importorskip("nncf")
    from modelwright.targets.openvino.branches import iterate_operators
    from modelwright.targets.openvino.bypass import bypass_layers, find_consumers, is_activation_quantizer

    model = openvino.convert_model(str(make_branching(tmp_path / "m.onnx")))
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.standard_normal((1, 3, 12, 12)).astype(np.float32), "mode": np.array(i % 2)} for i in range(4)]
    quantized = nncf.quantize(model.clone(), nncf.Dataset(feeds), subset_size=4)
    rounding = [node for node in iterate_operators(quantized) if is_activation_quantizer(node)]
    layers = set().union(*map(find_consumers, rounding))
    core = openvino.Core()

    def run(each) -> np.ndarray:
        compiled = core.compile_model(each, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return np.stack([compiled(inputs)[0] for inputs in feeds])

    expected, whole = run(model), run(quantized)
    assert np.abs(whole - expected).max(axis=(1, 2)).min() > 1e-4, "both branches are quantized"
    np.testing.assert_allclose(run(bypass_layers(openvino, model, quantized, layers)), expected, atol=1e-6)
    np.testing.assert_array_equal(run(quantized), whole, "a copy was changed")


def is_if(operator) -> bool:
    return operator.get_type_name() == "If"
