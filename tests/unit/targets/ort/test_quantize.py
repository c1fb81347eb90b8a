"""Number formats, and where the Q/DQ pairs stand; quantized graphs run in onnx's reference evaluator."""

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.core.records.machine import Machine
from modelwright.targets.graphs.run import blame
from modelwright.targets.ort import plan as ort_plan
from modelwright.targets.ort import quantize as ort_quantization
from modelwright.targets.quantization import formats as ort_formats
from modelwright.targets.quantization.formats import Scheme

UNSIGNED = Scheme(signed_activations=False, weight_limit=127)
SIGNED = Scheme(signed_activations=True, weight_limit=127)
RNG = np.random.default_rng(0)


def make_model(nodes: list[Any], constants: dict[str, Any], shape: tuple[Any, ...], opset: int = 21) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def make_cnn() -> Any:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2"),
        helper.make_node("Add", ["c2", "r1"], ["a"], "add"),
        helper.make_node("MaxPool", ["a"], ["m"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Exp", ["m"], ["y"], "exp"),
    ]
    constants = {
        "w1": RNG.standard_normal((4, 2, 3, 3)) * 0.3,
        "b1": RNG.standard_normal(4),
        "w2": RNG.standard_normal((4, 4, 1, 1)) * 0.3,
    }
    return make_model(nodes, constants, ("n", 2, 4, 4))


def observe(model: Any, names: list[str], x: Any) -> dict[str, tuple[float, float]]:
    watched = type(model)()
    watched.CopyFrom(model)
    inner = [name for name in names if name != "x"]
    watched.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in inner)
    values = dict(zip(["y", *inner], ReferenceEvaluator(watched).run(None, {"x": x}), strict=True)) | {"x": x}
    return {name: (float(values[name].min()), float(values[name].max())) for name in names}


def count_operators(model: Any) -> dict[str, int]:
    names = [node.op_type for node in model.graph.node]
    return {name: names.count(name) for name in names}


def test_weights_round_to_known_integers() -> None:
    weight = np.array([[127.0, -63.4], [0.5, 254.0]], np.float32)
    values, scales = ort_formats.quantize_weight(weight, 1, 127)
    np.testing.assert_allclose(scales, [1.0, 2.0])
    assert values.tolist() == [[127, -32], [0, 127]]


def test_seven_bit_weights_cannot_saturate_sixteen_bits() -> None:
    values, _ = ort_formats.quantize_weight(RNG.standard_normal((64, 64)).astype(np.float32), 0, 63)
    assert int(np.abs(values.astype(int)).max()) == 63
    assert 2 * 255 * 63 < 2**15


def test_plan_of_a_residual_block() -> None:
    plan = ort_plan.plan_static(make_cnn(), (), carry=True)
    assert plan.integer == ["conv1", "conv2"]
    assert plan.carried == {"add", "pool"}
    assert {name: node.name for name, node in plan.absorbed.items()} == {"conv1": "relu1"}
    assert plan.sources == {"r1": "r1", "c2": "c2", "a": "a", "m": "a"}
    assert list(plan.entries) == ["x"]


def test_what_stays_float_reads_and_writes_floats() -> None:
    plan = ort_plan.plan_static(make_cnn(), {"conv1"}, carry=True)
    assert plan.integer == ["conv2"]
    assert plan.carried == {"add"} - {"add"}  # its other operand is a float now
    assert list(plan.entries) == ["r1"]


@pytest.mark.parametrize("scheme", [UNSIGNED, SIGNED])
@pytest.mark.parametrize("kept", [(), ("conv1",), ("conv2",)])
def test_quantized_cnn_follows_the_float_one(scheme: Scheme, kept: tuple[str, ...]) -> None:
    model = make_cnn()
    x = RNG.standard_normal((3, 2, 4, 4)).astype(np.float32)
    plan = ort_plan.plan_static(model, kept, carry=True)
    quantized = ort_quantization.quantize_static(model, plan, observe(model, plan.ranged_tensors(), x), scheme)
    expected = np.log(ReferenceEvaluator(model).run(None, {"x": x})[0])
    found = np.log(ReferenceEvaluator(quantized).run(None, {"x": x})[0])
    assert float(np.abs(found - expected).max()) < 0.02 * float(np.ptp(expected)) + 0.02
    assert float(np.abs(found - expected).max()) > 0


def test_absorbed_relu_is_gone_and_its_zero_point_is_the_lowest_level() -> None:
    model = make_cnn()
    plan = ort_plan.plan_static(model, (), carry=True)
    ranges = dict.fromkeys(plan.ranged_tensors(), (-1.0, 1.0)) | {"r1": (0.0, 5.1)}
    quantized = ort_quantization.quantize_static(model, plan, ranges, UNSIGNED)
    assert "Relu" not in count_operators(quantized)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    assert constants["r1_zero_point"] == 0
    assert constants["r1_scale"] == pytest.approx(5.1 / 255)
    assert "w1" not in constants, "the float weight would double the file"


def test_a_clip_that_excludes_zero_is_not_absorbed() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Clip", ["c", "low", "high"], ["y"], "clip"),
    ]
    for low, absorbed in ((1.0, False), (0.0, True)):
        model = make_model(nodes, {"w": np.ones((1, 1, 1, 1)), "low": low, "high": 6.0}, ("n", 1, 2, 2))
        plan = ort_plan.plan_static(model, (), carry=True)
        assert ("conv" in plan.absorbed) == absorbed


def test_an_activation_after_a_float_result_stays() -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["h"], "fc"), helper.make_node("Relu", ["h"], ["y"], "relu")]
    model = make_model(nodes, {"w": np.diag([1.0, -1.0])}, ("n", 2))
    plan = ort_plan.plan_static(model, (), carry=True)
    quantized = ort_quantization.quantize_static(model, plan, {"x": (-1.0, 1.0)}, UNSIGNED)
    found = ReferenceEvaluator(quantized).run(None, {"x": np.array([[1.0, 1.0]], np.float32)})[0]
    np.testing.assert_allclose(found, [[1.0, 0.0]], atol=0.01)


def test_transformers_get_one_pair_per_activation_and_nothing_between() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "q"], ["a"], "query"),
        helper.make_node("MatMul", ["x", "k"], ["b"], "key"),
        helper.make_node("Transpose", ["b"], ["t"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "t"], ["y"], "scores"),
    ]
    constants = {"q": RNG.standard_normal((4, 4)), "k": RNG.standard_normal((4, 4))}
    model = make_model(nodes, constants, ("n", 3, 4))
    plan = ort_plan.plan_static(model, (), carry=False)
    assert plan.integer == ["query", "key"]
    quantized = ort_quantization.quantize_static(model, plan, {"x": (-3.0, 3.0)}, UNSIGNED)
    assert count_operators(quantized) == {"QuantizeLinear": 1, "MatMulIntegerToFloat": 2, "Transpose": 1, "MatMul": 1}


def test_bias_of_a_matmul_with_float_result_goes_into_the_fused_operator() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "fc"),
        helper.make_node("Add", ["b", "h"], ["s"], "bias"),
        helper.make_node("Add", ["s", "x"], ["y"], "shortcut"),
    ]
    model = make_model(nodes, {"w": RNG.standard_normal((4, 4)), "b": RNG.standard_normal(4)}, ("n", 3, 4))
    plan = ort_plan.plan_static(model, (), carry=False)
    quantized = ort_quantization.quantize_static(model, plan, {"x": (-3.0, 3.0)}, UNSIGNED)
    fused = next(node for node in quantized.graph.node if node.op_type == "MatMulIntegerToFloat")
    assert (fused.input[6], fused.output[0]) == ("b", "s")
    assert count_operators(quantized) == {"QuantizeLinear": 1, "MatMulIntegerToFloat": 1, "Add": 1}


def test_a_bias_on_tiny_weights_stays_within_int32() -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv")
    weight = np.full((2, 1, 1, 1), 1e-9)
    weight[1] = 1
    model = make_model([node], {"w": weight, "b": [100.0, 1.0]}, ("n", 1, 2, 2))
    plan = ort_plan.plan_static(model, (), carry=True)
    quantized = ort_quantization.quantize_static(model, plan, {"x": (-1e-3, 1e-3), "y": (0.0, 100.0)}, UNSIGNED)
    found = ReferenceEvaluator(quantized).run(None, {"x": np.zeros((1, 1, 2, 2), np.float32)})[0]
    np.testing.assert_allclose(found[0, :, 0, 0], [100.0, 1.0], atol=0.3)


def test_old_opsets_use_the_runtimes_own_operators() -> None:
    model = make_cnn()
    model.opset_import[0].version = 12
    plan = ort_plan.plan_static(model, (), carry=True)
    quantized = ort_quantization.quantize_static(model, plan, dict.fromkeys(plan.ranged_tensors(), (-1.0, 1.0)), SIGNED)
    domains = {node.domain for node in quantized.graph.node if node.op_type.endswith("QuantizeLinear")}
    assert domains == {"com.microsoft"}
    assert "com.microsoft" in {entry.domain for entry in quantized.opset_import}


def test_dynamic_matmul_follows_the_float_one_and_shares_its_measuring() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "q"], ["a"], "query"),
        helper.make_node("MatMul", ["x", "k"], ["b"], "key"),
        helper.make_node("Add", ["a", "b"], ["y"], "sum"),
    ]
    constants = {"q": RNG.standard_normal((8, 4)), "k": RNG.standard_normal((8, 4))}
    model = make_model(nodes, constants, ("n", 8))
    quantized = ort_quantization.quantize_dynamic(model, {"query", "key"}, UNSIGNED)
    assert count_operators(quantized)["DynamicQuantizeLinear"] == 1
    x = RNG.standard_normal((5, 8)).astype(np.float32)
    expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    found = ReferenceEvaluator(quantized).run(None, {"x": x})[0]
    assert 0 < float(np.abs(found - expected).max()) < 0.05 * float(np.abs(expected).max())


@pytest.mark.parametrize(
    ("architecture", "features", "signed", "limit"),
    [
        ("x86_64", {"avx2"}, False, 63),
        ("x86_64", {"avx2", "avx512_vnni"}, False, 127),
        ("x86_64", {"avx_vnni"}, False, 127),
        ("aarch64", {"asimd"}, True, 127),
        ("aarch64", {"asimddp"}, True, 127),
    ],
)
def test_scheme_by_machine(architecture: str, features: set[str], signed: bool, limit: int) -> None:
    machine = Machine(name="m", architecture=architecture, instruction_sets=frozenset(features), cores=4)
    assert ort_formats.choose_scheme(machine, static=True) == Scheme(signed_activations=signed, weight_limit=limit)
    assert not ort_formats.choose_scheme(machine, static=False).signed_activations


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("Load failed:Fatal error: my.ops:Foo(-1) is not a registered function/op", "my.ops:Foo(-1)"),
        ("Could not find an implementation for Bar(13) node with name 'n1'", "operator Bar(13), node n1"),
        ("Non-zero status code returned while running Conv node. Name:'c1' Status", "operator Conv, node c1"),
    ],
)
def test_vendor_messages_are_read_for_operator_and_node(message: str, named: str) -> None:
    assert named in blame(RuntimeError(message))
