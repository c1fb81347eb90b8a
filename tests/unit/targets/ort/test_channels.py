"""Input channels in fours: the same numbers, a Pad on the integers, and only where the kernel takes it."""

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.targets.graphs.index import index_graph
from modelwright.targets.ort.channels import align_input_channels
from modelwright.targets.ort.plan import plan_static
from modelwright.targets.ort.quantize import quantize_static
from modelwright.targets.quantization.formats import Scheme

RNG = np.random.default_rng(3)


def make_model(
    inputs: int = 3, outputs: int = 16, group: int = 1, *, last: bool = False, opset: int = 21, padded: Any = None
) -> Any:
    """Returns a convolution and a Relu, with channels last where `last` says so, behind a Pad of one's own."""
    shape: tuple[Any, ...] = ("n", 6, 6, inputs) if last else ("n", inputs, 6, 6)
    nodes = [helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 3, 1, 2])] if last else []
    source = "t" if last else "x"
    constants = {"w": RNG.standard_normal((outputs, inputs // group, 3, 3)).astype(np.float32) * 0.2}
    if padded is not None:
        nodes.append(helper.make_node("Pad", [source, "ends", "value"], ["p"], "pad"))
        constants |= {"ends": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "value": np.float32(padded)}
        source = "p"
    nodes += [
        helper.make_node("Conv", [source, "w"], ["c"], "conv", group=group, kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: Any, x: Any) -> Any:
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


@pytest.mark.parametrize("last", [False, True])
def test_three_channels_become_four_and_the_numbers_stay(last: bool) -> None:
    model = make_model(last=last)
    x = RNG.standard_normal((2, 6, 6, 3) if last else (2, 3, 6, 6)).astype(np.float32)
    before = run(model, x)
    assert align_input_channels(model) == ["conv"]
    weight = index_graph(model).array(next(node for node in model.graph.node if node.op_type == "Conv").input[1])
    assert weight.shape == (16, 4, 3, 3)
    assert not weight[:, 3].any()
    np.testing.assert_allclose(run(model, x), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        make_model(inputs=4),
        make_model(outputs=8),
        make_model(outputs=18),
        make_model(inputs=3, outputs=48, group=3),
        make_model(opset=11),
    ],
    ids=["4 channels", "8 outputs", "18 outputs", "groups", "old opset"],
)
def test_what_that_kernel_does_not_take_stays(model: Any) -> None:
    before = model.SerializeToString()
    assert align_input_channels(model) == []
    assert model.SerializeToString() == before


def test_the_padding_is_written_on_the_integers_with_their_zero() -> None:
    model = make_model()
    align_input_channels(model)
    plan = plan_static(model, (), carry=True)
    assert plan.carried == {"x_channels_pad"}
    assert list(plan.entries) == ["x"]
    scheme = Scheme(signed_activations=False, weight_limit=127)
    x = RNG.uniform(-1, 4, (2, 3, 6, 6)).astype(np.float32)
    expected = run(model, x)
    ranges = {"x": (-1.0, 4.1), "y": (0.0, float(expected.max()))}
    quantized = quantize_static(model, plan, ranges, scheme)
    assert [node.op_type for node in quantized.graph.node][:3] == ["QuantizeLinear", "Pad", "DequantizeLinear"]
    pad = quantized.graph.node[1]
    assert pad.input[0] == "x_quantized"
    assert int(index_graph(quantized).array(pad.input[2])) == 50  # 1.0 of 5.1 in 255 levels
    assert float(np.abs(run(quantized, x) - expected).max()) < 0.02 * float(expected.max())


@pytest.mark.parametrize(("value", "carried"), [(0.0, {"pad"}), (1.0, set())])
def test_a_pad_of_the_model_is_carried_where_it_pads_with_zeros(value: float, carried: set[str]) -> None:
    plan = plan_static(make_model(padded=value), (), carry=True)
    assert plan.carried == carried
    assert list(plan.entries) == (["x"] if carried else ["p"])


def test_a_pad_before_a_layer_in_float_stays_float() -> None:
    plan = plan_static(make_model(padded=0.0), {"conv"}, carry=True)
    assert not plan.carried
    assert not plan.entries
