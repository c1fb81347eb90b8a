"""Plans of precisions, executed: what each layer of an artifact really computes in, read back from its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from bench import Bench
from click.testing import CliRunner
from onnx import numpy_helper
from planned_models import LAYERS, make_attention, make_images, plan_attention

from modelwright.cli.build import build as build_command
from modelwright.cli.inspect import inspect
from modelwright.core.errors import BadInputError, BuildFailedError, LimitNotMetError, ModelwrightError, UsageError
from modelwright.core.files import hash_file
from modelwright.core.records.artifact import Artifact
from modelwright.core.records.plan import BitPlan, PlannedLayer, write_plan
from modelwright.harness.building import build_targets
from modelwright.harness.comparing import compare
from modelwright.harness.mixing.mixing import mix
from modelwright.harness.mixing.settings import Settings

MIXED: Mapping[str, tuple[int | None, int | None]] = {
    "p": (8, 8), "q": (8, 8), "k": (4, 8), "v": (4, None), "s": (None, 8), "o": (6, 6), "m": (4, 4), "m2": (6, None),
    "y": (None, None),
}  # fmt: skip
"""Of everything one: `av` is not planned, `y` planned as float."""
SHARED = {"q": {"granularity": "tensor"}, "m": {"granularity": "tensor"}, "k": {"group_size": 16}}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_images(tmp_path / "x.npz")
    return make_attention(tmp_path / "net.onnx")


def build(model: Path, target: str, plan: Path, **other: Any) -> Artifact:
    folder = model.parent
    built = build_targets(
        model, samples=folder / "x.npz", out=folder / "out", targets=[target], plan=plan, overwrite=True, **other
    )
    assert not built.absent, [absent.error.message for absent in built.absent]
    return built.artifacts[target]


def executed(artifact: Artifact) -> dict[str, tuple[int | None, int | None]]:
    assert artifact.manifest.plan
    return {layer.planned.output: (layer.weight_bits, layer.activation_bits) for layer in artifact.manifest.plan.layers}


def read_ort(artifact: Artifact) -> dict[str, Any]:
    """Returns node name -> its operator, its block's bits and accuracy level, or the type of its weight."""
    graph = onnx.load(artifact.model_path).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found: dict[str, Any] = {}
    for node in graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "MatMulNBits":
            found[node.name] = ("blocks", attributes["bits"], attributes["accuracy_level"])
        elif node.op_type == "MatMulIntegerToFloat":
            found[node.name] = ("integers", constants[node.input[1]].data_type)
        elif node.op_type in ("MatMul", "Gemm", "Conv"):
            weight = makers.get(node.input[1])
            is_stored = weight is not None and weight.op_type == "DequantizeLinear"
            found[node.name] = ("integers", constants[weight.input[0]].data_type) if is_stored else ("float",)
    return found


def read_openvino(artifact: Artifact) -> dict[str, tuple[str, bool]]:
    """Returns the output of a layer with a weight -> the weight's type, and whether what it multiplies is rounded."""
    openvino = pytest.importorskip("openvino")
    found = {}
    for node in openvino.Core().read_model(artifact.model_path).get_ordered_ops():
        if node.get_type_name() not in ("MatMul", "Convolution"):
            continue
        weight, activation = node.input_value(1).get_node(), node.input_value(0).get_node()
        while weight.get_input_size():
            weight = weight.input_value(0).get_node()
        if weight.get_type_name() == "Constant":
            readers = [target.get_node() for target in node.output(0).get_target_inputs()]
            own = node.output(0).get_names() & LAYERS.keys()
            (name,) = own or {name for each in readers for name in each.output(0).get_names()} & LAYERS.keys()
            found[name] = (weight.get_element_type().get_type_name(), activation.get_type_name() == "FakeQuantize")
    return found


def read_tflite(artifact: Artifact) -> dict[str, tuple[str, str]]:
    """Returns the tensor that a product gives -> the types of its two operands, of a weight that in the file."""
    utils = pytest.importorskip("ai_edge_litert.tools.flatbuffer_utils")
    model = utils.read_model(str(artifact.model_path))
    graph = model.subgraphs[0]
    types = [utils.type_to_name(tensor.type).lower() for tensor in graph.tensors]
    operators = [(utils.opcode_to_name(model, op.opcodeIndex), op) for op in graph.operators]
    constants = {index for index, tensor in enumerate(graph.tensors) if model.buffers[tensor.buffer].data is not None}
    stored = {
        op.outputs[0]: f"{types[op.inputs[0]]} widened"
        for name, op in operators
        if name == "DEQUANTIZE" and op.inputs[0] in constants
    }
    return {
        graph.tensors[op.outputs[0]].name.decode(): (types[op.inputs[0]], stored.get(op.inputs[1], types[op.inputs[1]]))
        for name, op in operators
        if name in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "BATCH_MATMUL")
    }


def test_onnx_runtime_executes_what_it_has_and_tells_the_rest(model: Path) -> None:
    plan = plan_attention(model.parent / "plan.json", model, MIXED, **SHARED)
    artifact = build(model, "ort-int8", plan)
    assert executed(artifact) == {
        "p": (8, 8), "q": (8, 8), "k": (4, 8), "v": (4, None), "s": (None, None), "o": (8, 8), "m": (4, 8),
        "m2": (8, None), "y": (None, None),
    }  # fmt: skip
    int8 = onnx.TensorProto.INT8
    assert read_ort(artifact) == {
        "patches": ("integers", int8), "to_q": ("integers", int8), "to_k": ("blocks", 4, 4), "to_v": ("blocks", 4, 1),
        "scores": ("float",), "context": ("float",), "project": ("integers", int8), "expand": ("blocks", 4, 4),
        "contract": ("blocks", 8, 1), "head": ("float",),
    }  # fmt: skip
    widened = [layer.planned.output for layer in artifact.manifest.plan.widened] if artifact.manifest.plan else []
    assert widened == ["s", "o", "m", "m2"]
    assert artifact.manifest.notes[0].startswith("5 of the plan's 9 layers are executed as planned, 4 wider")
    constants = {tensor.name: tensor for tensor in onnx.load(artifact.model_path).graph.initializer}
    scales = {name: numpy_helper.to_array(constants[name]) for name in constants if name.endswith("scales")}
    (shared,) = [values for name, values in scales.items() if name.startswith("wi")]
    assert np.unique(shared).size == 1, "one scale for the tensor"
    (grouped,) = [values for name, values in scales.items() if name.startswith("wk")]
    assert grouped.shape == (32, 2), "a scale for 16 of 32 rows of each column"
    assert np.unique(numpy_helper.to_array(constants["to_q_weight_dq_scale"])).size == 1
    assert np.unique(numpy_helper.to_array(constants["project_weight_dq_scale"])).size == 32


@pytest.mark.slow
def test_openvino_executes_what_it_has_and_tells_the_rest(model: Path) -> None:
    plan = plan_attention(model.parent / "plan.json", model, MIXED, **SHARED)
    artifact = build(model, "openvino-int8", plan)
    # `v` is to multiply in float, which is one setting of the model: so do all whose weights have few bits.
    assert executed(artifact) == {
        "p": (8, 8), "q": (8, 8), "k": (4, None), "v": (4, None), "s": (None, None), "o": (8, 8), "m": (4, None),
        "m2": (8, None), "y": (None, None),
    }  # fmt: skip
    assert read_openvino(artifact) == {
        "p": ("i8", True), "q": ("i8", True), "k": ("i4", False), "v": ("i4", False), "o": ("i8", True),
        "m": ("i4", False), "m2": ("i8", False), "y": ("f32", False),
    }  # fmt: skip
    assert artifact.manifest.recipe["compile_options"]["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == "0"
    assert "with a scale a channel, where one for the whole weight is planned" in artifact.manifest.notes[0]


@pytest.mark.slow
def test_openvino_rounds_what_it_multiplies_with_four_bits_where_all_of_it_is_planned(model: Path) -> None:
    bits = {"q": (8, 8), "k": (4, 8), "m": (4, 4)}
    plan = plan_attention(model.parent / "plan.json", model, bits, q={"granularity": "tensor"}, k={"group_size": 16})
    artifact = build(model, "openvino-int8", plan)
    # Groups of 16 are smaller than those in which activations are rounded: OpenVINO multiplies them in float.
    assert executed(artifact) == {"q": (8, 8), "k": (4, None), "m": (4, 8)}
    assert artifact.manifest.recipe["compile_options"]["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == "32"
    assert artifact.manifest.plan
    assert artifact.manifest.plan.layers[0].granularity == "tensor"
    found = read_openvino(artifact)
    assert {name for name, how in found.items() if how != ("f32", False)} == set(bits)


@pytest.mark.slow
def test_what_openvino_rounds_as_it_runs_is_not_told_as_float(model: Path) -> None:
    plan = plan_attention(model.parent / "plan.json", model, {"m": (4, 8)})
    artifact = build(model, "openvino-int8", plan)
    assert executed(artifact) == {"m": (4, 8)}
    assert list(artifact.manifest.notes) == ["the plan (by hand) is executed as it is, its one layer"]


@pytest.mark.slow
def test_tflite_executes_what_it_has_and_tells_the_rest(model: Path) -> None:
    plan = plan_attention(model.parent / "plan.json", model, MIXED)
    artifact = build(model, "tflite-int8", plan)
    assert executed(artifact) == {
        "p": (8, 8), "q": (8, 8), "k": (4, 8), "v": (4, None), "s": (None, 8), "o": (8, 8), "m": (4, 8),
        "m2": (8, None), "y": (None, None),
    }  # fmt: skip
    found = read_tflite(artifact)
    taken = found["to_k_product"]
    assert taken in (("int8", "int4"), ("float32", "int4")), "fixed scales or such as are taken while running"
    assert found == {
        "patches_output_nhwc": ("int8", "int8"), "to_q_product": (taken[0], "int8"), "to_k_product": taken,
        "to_v_product": ("float32", "int4 widened"), "s": ("int8", "int8"), "av": ("float32", "float32"),
        "project_product": (taken[0], "int8"), "expand_product": taken, "contract_product": ("float32", "int8 widened"),
        "out_y": ("float32", "float32"),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort-int8", "openvino-int8", "tflite-int8"])
def test_convolutions_are_found_whatever_the_runtime_calls_them(tmp_path: Path, target: str) -> None:
    model = models.make_cnn(tmp_path / "net.onnx")
    models.make_samples(tmp_path / "x.npz", x=(3, 12, 12), labelled=False)
    layers = (
        PlannedLayer(output="c1", operator="Conv", weight="w1", weight_bits=None, activation_bits=None),
        PlannedLayer(output="c2", operator="Conv", weight="w2", weight_bits=6, activation_bits=8),
        PlannedLayer(output="y", operator="Gemm", weight="w3", weight_bits=4, activation_bits=8),
    )
    plan = BitPlan(onnx_sha256=hash_file(model), model="net", origin="a hand", method="by hand", layers=layers)
    write_plan(tmp_path / "plan.json", plan)
    artifact = build(model, target, tmp_path / "plan.json")
    assert executed(artifact) == {"c1": (None, None), "c2": (8, 8), "y": (4, 8)}
    if target == "tflite-int8":
        (first, depthwise, head) = read_tflite(artifact).values()
        assert (first, depthwise) == (("float32", "float32"), ("int8", "int8"))
        assert head[1] == "int4"
    elif target == "ort-int8":
        found = read_ort(artifact)
        assert (found["conv1"], found["depthwise"][0], found["head"]) == (("float",), "integers", ("blocks", 4, 4))


@pytest.mark.slow
def test_a_plan_in_float_but_for_one_layer_leaves_all_others_in_float(model: Path) -> None:
    plan = plan_attention(model.parent / "plan.json", model, {"m": (8, 8)})
    found = read_ort(build(model, "ort-int8", plan))
    assert {name for name, how in found.items() if how != ("float",)} == {"expand"}


@pytest.mark.slow
def test_the_key_covers_the_plan_and_inspect_shows_it(model: Path) -> None:
    plan = plan_attention(model.parent / "plan.json", model, MIXED)
    first = build(model, "ort-int8", plan)
    assert build(model, "ort-int8", plan).seal == first.seal, "nothing is built again"
    arguments = [str(model), "-t", "ort-int8", "-s", str(model.parent / "x.npz"), "-o", str(model.parent / "out")]
    again = CliRunner().invoke(build_command, [*arguments, "--plan", str(plan)])
    assert again.exit_code == 0
    assert "note: 5 of the plan's 9 layers are executed as planned" in again.output
    text = CliRunner().invoke(inspect, [str(first.directory)]).output
    assert "plan               by a hand, by hand: 5 of the plan's 9 layers are executed as planned" in text
    assert "o: 8-bit weights, 8-bit activations, planned 6-bit weights, 6-bit activations" in text
    other = plan_attention(model.parent / "plan.json", model, MIXED | {"q": (4, 8)})
    second = build(model, "ort-int8", other)
    assert second.manifest.key != first.manifest.key
    assert executed(second)["q"] == (4, 8)


@pytest.mark.slow
def test_a_plan_that_loses_too_much_is_refused_with_figures_and_repaired_where_asked(model: Path) -> None:
    weights = {output: (4, 4) for output, (_, weight) in LAYERS.items() if weight is not None}
    plan = plan_attention(model.parent / "plan.json", model, weights)
    with pytest.raises(LimitNotMetError, match=r"points") as caught:
        build(model, "ort-int8", plan, max_drop=0.5)
    assert "--repair-plan" in str(caught.value.hint)
    repaired = build(model, "ort-int8", plan, max_drop=12.0, repair_plan=True)
    assert repaired.manifest.plan
    back = [
        layer for layer in repaired.manifest.plan.layers if layer.reason == "put back to float: the plan loses too much"
    ]
    assert back
    assert all((layer.weight_bits, layer.activation_bits) == (None, None) for layer in back)


@pytest.mark.slow
def test_what_cannot_follow_a_plan_says_so(model: Path) -> None:
    plan = plan_attention(model.parent / "plan.json", model, {"q": (8, 8)})
    with pytest.raises(ModelwrightError, match=r"ort-int8-dynamic cannot follow a plan of precisions") as caught:
        build(model, "ort-int8-dynamic", plan)
    assert caught.value.hint == "ort-int8, openvino-int8, tflite-int8 follow one; without --plan it is built as ever"
    assert not build(model, "ort-fp32", plan).manifest.plan, "float targets are built as ever"
    nothing = plan_attention(model.parent / "nothing.json", model, {"s": (None, 8)})
    with pytest.raises(BuildFailedError, match=r"nothing of the plan can be executed") as refused:
        build(model, "ort-int8", nothing)
    assert "plan 8 bits" in str(refused.value.hint)
    something = plan_attention(model.parent / "something.json", model, {"s": (None, 8), "o": (8, 8)})
    assert executed(build(model, "ort-int8", something)) == {"s": (None, None), "o": (8, 8)}


def test_what_is_quantized_already_is_not_planned(tmp_path: Path) -> None:
    bench = Bench(tmp_path, x=(4,))
    models.quantize_by_pairs(bench.model)
    product = next(node for node in onnx.load(bench.model).graph.node if node.op_type in ("MatMul", "Gemm"))
    layer = PlannedLayer(
        output=product.output[0], operator=product.op_type, weight=None, weight_bits=None, activation_bits=8
    )  # fmt: skip
    plan = BitPlan(
        onnx_sha256=hash_file(bench.model), model="net", origin="a hand", method="by hand", layers=(layer,)
    )  # fmt: skip
    write_plan(tmp_path / "plan.json", plan)
    arguments = {"samples": bench.samples, "out": tmp_path / "planned", "targets": ["ort-int8"]}
    with pytest.raises(BuildFailedError, match=r"the plan would quantize a second time") as caught:
        build_targets(bench.model, plan=tmp_path / "plan.json", **arguments)
    assert "leave --plan out" in str(caught.value.hint)
    assert build_targets(bench.model, **arguments).artifacts


def test_plans_that_do_not_fit_are_refused_before_anything_is_built(model: Path) -> None:
    path = plan_attention(model.parent / "plan.json", model, {"q": (8, 8)})
    samples, out = model.parent / "x.npz", model.parent / "out"
    other = make_attention(model.parent / "other.onnx")
    changed = onnx.load(other)
    changed.doc_string = "another"
    onnx.save(changed, other)
    with pytest.raises(BadInputError, match=r"is for another model"):
        build_targets(other, samples=samples, out=out, targets=["ort-int8"], plan=path)
    assert not (out / "ort-int8").exists()
    with pytest.raises(UsageError, match=r"repairs nothing"):
        build_targets(model, samples=samples, out=out, targets=["ort-int8"], repair_plan=True)
    with pytest.raises(UsageError, match=r"is for one model, and 2 are compared"):
        compare([model, other], samples=samples, out=out, plan=path)
    plan = json.loads(path.read_text())
    plan["layers"][0]["output"] = "elsewhere"
    path.write_text(json.dumps(plan))
    with pytest.raises(BadInputError, match=r"no node that gives 'elsewhere'"):
        build(model, "ort-int8", path)


@pytest.mark.slow
def test_a_mix_that_ranks_attention_gives_a_plan_that_is_built(model: Path) -> None:
    settings = Settings(bits=(8, 6, 4), method="nuclear", rank_aware=True)
    found = mix(model, samples=model.parent / "x.npz", out=model.parent / "mixed", settings=settings)
    ways = {(row.granularity, row.rank_aware) for row in found.rows[1:]}
    assert ways == {("tensor", False), ("channel", False), ("channel", True)}
    assert found.chosen.rank_aware
    assert all(layer.nuclear_norm for layer in found.layers)
    assert any("order of attention's scores" in note for note in found.notes)
    artifact = build(model, "ort-int8", model.parent / "mixed" / "plan.json")
    assert artifact.manifest.plan
    assert artifact.manifest.plan.rank_aware
    assert {layer.planned.output for layer in artifact.manifest.plan.layers} == LAYERS.keys()
