"""The OpenVINO targets without OpenVINO: records, checks, names, and the choice among recipes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.contract import BuildRequest
from modelwright.targets.openvino import quantize as openvino_quantization
from modelwright.targets.openvino import target as openvino
from modelwright.targets.openvino.branches import IdleBranches
from modelwright.targets.openvino.bypass import find_consumers, find_quantized
from modelwright.targets.openvino.candidates import RunnableModel, choose_float_precision
from modelwright.targets.openvino.quantize import WITHOUT_FUSION, NncfQuantizer, has_attention
from modelwright.targets.openvino.recipes import CONVOLUTIONAL, DEFAULT, TRANSFORMER, NncfCandidate
from modelwright.targets.openvino.session import find_ports, read_properties
from modelwright.targets.openvino.target import OpenvinoBf16, OpenvinoFp32, OpenvinoInt8
from modelwright.targets.quantization.judge import Judge
from modelwright.targets.quantization.search import search


def make_machine(*instruction_sets: str) -> Machine:
    return Machine(name="box", architecture="x86_64", instruction_sets=frozenset(instruction_sets), cores=4)


@dataclass
class Port:
    names: set[str]

    def get_names(self) -> set[str]:
        return self.names


def spec(name: str) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=(1, 2))


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16"])
def test_bf16_needs_one_of_two_instruction_sets(feature: str) -> None:
    refused = OpenvinoBf16().check_run(make_machine("avx512_vnni"))
    assert not refused.ok
    assert "avx512_bf16" in (refused.reason or "")
    assert "box" in (refused.reason or "")
    assert refused.hint
    assert not OpenvinoBf16().check_build(make_machine("avx2")).ok
    accepted = OpenvinoBf16().check_build(make_machine(feature))
    assert accepted.ok or "not installed" in (accepted.reason or "")


def test_fp32_and_int8_need_no_instruction_set() -> None:
    for target in (OpenvinoFp32(), OpenvinoInt8()):
        readiness = target.check_build(make_machine())
        assert readiness.ok or "not installed" in (readiness.reason or "")


def test_records_say_who_needs_samples() -> None:
    assert OpenvinoInt8.record.needs_calibration
    assert OpenvinoInt8.record.uses_samples
    assert "nncf" in OpenvinoInt8.record.build_packages
    assert "nncf" not in OpenvinoInt8.record.run_packages
    assert not OpenvinoFp32.record.uses_samples
    assert not OpenvinoBf16.record.uses_samples


def test_ports_are_found_by_name_then_by_place() -> None:
    assert find_ports([Port({"b"}), Port({"a", "x"})], (spec("a"), spec("b"))) == [1, 0]
    assert find_ports([Port(set()), Port({"b"})], (spec("a"), spec("b"))) == [0, 1]


def test_a_port_that_vanished_is_named() -> None:
    with pytest.raises(BuildFailedError, match="gone is missing"):
        find_ports([Port({"a"})], (spec("a"), spec("gone")))


def make_constant(values: np.ndarray) -> SimpleNamespace:
    kind = SimpleNamespace(get_type_name=lambda: "f32")
    return SimpleNamespace(get_type_name=lambda: "Constant", get_element_type=lambda: kind, data=values)


@pytest.mark.parametrize(
    ("values", "fits"),
    [([1.0, 65504.0], True), ([1.0, 65536.0], False), ([0.0, -np.inf], True), ([-3.4e38], True), ([2.0, -1e9], False)],
)
def test_only_weights_that_fit_are_stored_as_fp16(values: list[float], fits: bool) -> None:
    model = SimpleNamespace(get_ops=lambda: [make_constant(np.array(values, np.float32))])
    assert openvino._fits_fp16(model) is fits


class Node:
    """A graph node with one output, as far as the searches through a graph look."""

    def __init__(self, kind: str, name: str, *sources: Node) -> None:
        self.kind, self.name, self.sources, self.users = kind, name, sources, []
        for source in sources:
            source.users.append(self)

    def get_type_name(self) -> str:
        return self.kind

    def get_friendly_name(self) -> str:
        return self.name

    def input_values(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(get_node=lambda source=source: source) for source in self.sources]

    def input_value(self, position: int) -> SimpleNamespace:
        return self.input_values()[position]

    def outputs(self) -> list[SimpleNamespace]:
        targets = [SimpleNamespace(get_node=lambda user=user: user) for user in self.users]
        return [SimpleNamespace(get_target_inputs=lambda: targets)]


def test_consumers_are_found_through_operators_that_only_move_values() -> None:
    quantizer = Node("FakeQuantize", "q")
    moved = Node("Transpose", "t", Node("Reshape", "r", quantizer))
    Node("MatMul", "project", moved)
    Node("Convolution", "conv", quantizer)
    Node("Result", "y", Node("Relu", "after", Node("MatMul", "deep", moved)))
    assert find_consumers(quantizer) == {"project", "deep", "conv"}


def test_what_is_quantized_reads_rounded_activations_or_weights() -> None:
    activation = Node("FakeQuantize", "mean/fq_output_0", Node("Parameter", "x"))
    table = Node("Multiply", "lookup/fq_weights_0", Node("Convert", "integers"))
    head = Node("MatMul", "head", activation, Node("Multiply", "head/fq_weights_1", Node("Convert", "more")))
    lookup = Node("Gather", "lookup", table, Node("Parameter", "ids"))
    lone = Node("MatMul", "lone", Node("Parameter", "z"), Node("Constant", "w"))
    assert find_quantized([activation, table, head, lookup, lone]) == {"head", "lookup"}


def test_attention_is_a_product_with_a_softmax() -> None:
    softmax = Node("Softmax", "s")
    assert has_attention(SimpleNamespace(get_ops=lambda: [softmax, Node("MatMul", "m", softmax)]))
    assert has_attention(SimpleNamespace(get_ops=lambda: [Node("ScaledDotProductAttention", "a")]))
    # A classifier's last Softmax is no attention.
    lone = Node("Softmax", "s", Node("MatMul", "m"))
    assert not has_attention(SimpleNamespace(get_ops=lambda: [lone, *lone.sources]))


class ScriptedQuantizer(NncfQuantizer):
    """A quantizer without OpenVINO, whose runs make an error of known energy: hint -> energy, of FP32's 1."""

    def __init__(
        self, request: BuildRequest, script: dict[str, float] | None = None, *, bf16: bool = True, nodes: Any = ()
    ) -> None:
        core = SimpleNamespace(get_property=lambda *_: ["FP32", *(["BF16"] if bf16 else [])])
        model = SimpleNamespace(get_ops=lambda: nodes, get_ordered_ops=lambda: nodes, inputs=[])
        super().__init__(SimpleNamespace(Core=lambda: core), None, model, request)
        self.script = script or {}

    def _convert_rounded(self):
        return SimpleNamespace()

    def build(self, candidate, kept):
        return RunnableModel(model=SimpleNamespace(get_ops=list, get_ordered_ops=list))

    def identify(self, model):
        return None

    def run(self, model, feeds):
        for inputs in feeds:
            x = inputs["x"]
            yield {"y": x + np.sqrt(self.script[model.hint]) * np.stack([-x[:, 1], x[:, 0]], axis=1)}


def make_request(tmp_path: Path, machine: Machine | None = None) -> BuildRequest:
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 2)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 2)),),
    )
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32))
    samples = open_samples(SampleRef(path=tmp_path / "s.npz", part="tuning"), signature)
    return BuildRequest(
        model_path=tmp_path / "m.onnx",
        signature=signature,
        directory=tmp_path,
        machine=machine or make_machine("avx512_vnni"),
        calibration=samples,
        tuning=samples,
        reference=[{"y": feeds["x"]} for feeds in samples.feeds()],
        scratch=tmp_path,
        shared=tmp_path,
        progress=lambda _line: None,
    )


def make_judge(request: BuildRequest) -> Judge:
    assert request.tuning is not None
    assert request.reference is not None
    roles = {"y": OutputRole(name="y", role="regression", why="two numbers", axis=1)}
    return Judge(samples=request.tuning, part="tuning", reference=request.reference, roles=roles)


def test_the_vendors_default_comes_first_and_the_accurate_ones_last(tmp_path: Path) -> None:
    quantizer = ScriptedQuantizer(make_request(tmp_path))
    assert quantizer.candidates() == [list(group) for group in CONVOLUTIONAL]
    quantizer._rounded = None
    assert not any(candidate.rounded for group in quantizer.candidates() for candidate in group)
    for groups in (CONVOLUTIONAL, TRANSFORMER):
        assert groups[0][0] == DEFAULT == NncfCandidate(name="NNCF's default")
        slow = [{quantizer.effort(candidate) > quantizer.effort(DEFAULT) for candidate in group} for group in groups]
        assert slow == [{False}] * (len(groups) - 1) + [{True}]


def test_what_nncf_cannot_do_in_branches_is_not_tried(tmp_path: Path) -> None:
    quantizer = ScriptedQuantizer(make_request(tmp_path))
    quantizer.idle = IdleBranches(has_branches=True)
    assert quantizer.candidates() == [list(group) for group in CONVOLUTIONAL[:-1]], "all but the accurate method"
    quantizer.idle = IdleBranches(has_branches=True, branches=("the else branch of it",))
    first, second = quantizer.candidates()
    assert first[0] == replace(DEFAULT, name="NNCF's default, biases as they are", corrects_biases=False)
    assert not any(candidate.corrects_biases for candidate in (*first, *second))


def test_of_the_good_ones_the_closest_is_taken_not_the_first(tmp_path: Path) -> None:
    errors = {"NNCF's default": 3e-4, "symmetric, full ranges, rounded weights": 2e-4, "symmetric, full ranges": 1e-4}

    class Unequal(ScriptedQuantizer):
        def build(self, candidate, kept):
            self.script["f32"] = errors[candidate.name]
            return super().build(candidate, kept)

    request = make_request(tmp_path)
    found = search(Unequal(request), make_judge(request), request.progress)
    assert [trial.figures.level.name for trial in found.trials] == ["GOOD"] * 3
    assert found.candidate.name == "symmetric, full ranges"


def test_recurrent_layers_are_spared_when_nothing_else_does(tmp_path: Path) -> None:
    nodes = [Node("LSTMSequence", "forward"), Node("MatMul", "head"), Node("GRUCell", "cell")]
    groups = ScriptedQuantizer(make_request(tmp_path), nodes=nodes).candidates()
    spared = {("cell", "forward")}
    assert [{candidate.float_layers for candidate in group} for group in groups] == [{()}] * 3 + [spared] * 3
    assert len({candidate.name for group in groups for candidate in group}) == 14


@pytest.mark.parametrize(("quantized", "repeats"), [(["head"], True), (["head", "cell"], False), (None, False)])
def test_sparing_recurrent_layers_that_nncf_spares_by_itself_is_not_tried(
    tmp_path: Path, quantized: list[str] | None, repeats: bool
) -> None:
    """None: nothing was built yet, as where NNCF fails on what is to be spared."""
    nodes = [Node("LSTMSequence", "forward"), Node("MatMul", "head"), Node("GRUCell", "cell")]
    quantizer = ScriptedQuantizer(make_request(tmp_path), nodes=nodes)
    quantizer._ever_quantized = None if quantized is None else set(quantized)
    tried = [[not quantizer.repeats(candidate) for candidate in group] for group in quantizer.candidates()]
    assert [set(group) for group in tried] == [{True}] * 3 + [{not repeats}] * 3


def test_fused_kernels_that_compute_wrongly_are_switched_off(tmp_path: Path) -> None:
    class Wrong(ScriptedQuantizer):
        def run(self, model, feeds):
            self.script["f32"] = 1e-4 if model.options else 2.0
            return super().run(model, feeds)

    request = make_request(tmp_path)
    found = search(Wrong(request), make_judge(request), request.progress)
    assert len(found.trials) == 3
    assert found.model.options == WITHOUT_FUSION
    assert "fused kernels" in openvino_quantization._explain(found, IdleBranches(), None)[0]


def test_one_that_is_made_again_runs_in_the_way_that_was_judged(tmp_path: Path) -> None:
    """The last of three is worse, and an earlier one is built again."""
    errors = {"NNCF's default": 2e-4, "symmetric, full ranges, rounded weights": 1e-4, "symmetric, full ranges": 3e-4}

    class Wrong(ScriptedQuantizer):
        def build(self, candidate, kept):
            self.error = errors[candidate.name]
            return super().build(candidate, kept)

        def run(self, model, feeds):
            self.script["f32"] = self.error if model.options else 2.0
            return super().run(model, feeds)

    request = make_request(tmp_path)
    found = search(Wrong(request), make_judge(request), request.progress)
    assert found.candidate.name == "symmetric, full ranges, rounded weights"
    assert found.model.options == WITHOUT_FUSION


def test_overflow_is_avoided_where_the_processor_saturates(tmp_path: Path) -> None:
    assert ScriptedQuantizer(make_request(tmp_path)).overflow_fix == "disable"
    assert ScriptedQuantizer(make_request(tmp_path, make_machine("avx2"))).overflow_fix == "enable"


@pytest.mark.parametrize(
    ("features", "host_bf16", "error", "chosen"),
    [
        (["amx_bf16"], True, 0.0008, "bf16"),
        (["amx_bf16"], True, 0.0018, "f32"),  # cosine lost, though it is still good
        (["amx_bf16"], True, float("nan"), "f32"),
        (["amx_bf16"], False, 0.0, "f32"),  # cannot be judged here
        (["avx512_vnni"], True, 0.0, "f32"),
    ],
)
def test_float_rest_runs_in_bf16_only_when_it_costs_nothing(
    tmp_path: Path, features: list[str], host_bf16: bool, error: float, chosen: str
) -> None:
    request = make_request(tmp_path, make_machine(*features))
    quantizer = ScriptedQuantizer(request, {"f32": 0.0004, "bf16": error}, bf16=host_bf16)
    judge = make_judge(request)
    found = search(quantizer, judge, request.progress)
    hint, reason, figures = choose_float_precision(quantizer, judge, found, request)
    assert hint == chosen
    assert reason
    assert figures is not None
    before = found.figures
    assert before is not None
    assert (figures["error"] == before.error) == (chosen == "f32")


def test_transformer_recipes_all_smooth() -> None:
    # NNCF smooths those whose `model_type` is a transformer by itself, with an alpha of 0.95.
    assert any(candidate.smooth_quant_alpha is not None for group in TRANSFORMER for candidate in group)
    assert all(candidate.smooth_quant_alpha is None for group in CONVOLUTIONAL for candidate in group)


def test_a_recipe_sets_only_what_builds_set() -> None:
    assert read_properties({}, "f32") == {"INFERENCE_PRECISION_HINT": "f32"}
    built = {"inference_precision": "bf16", "compile_options": WITHOUT_FUSION}
    assert read_properties(built, "f32") == {"INFERENCE_PRECISION_HINT": "bf16", "SNIPPETS_MODE": "DISABLE"}
    for recipe, named in (
        ({"compile_options": {"CACHE_DIR": "/home/user/.config"}}, "CACHE_DIR"),
        ({"compile_options": {"SNIPPETS_MODE": ["DISABLE"]}}, "SNIPPETS_MODE"),
        ({"compile_options": {"INFERENCE_NUM_THREADS": 64}}, "INFERENCE_NUM_THREADS"),
        ({"compile_options": ["CACHE_DIR"]}, "compile_options"),
        ({"inference_precision": "dynamic"}, "INFERENCE_PRECISION_HINT"),
    ):
        with pytest.raises(BadInputError, match=named):
            read_properties(recipe, "f32")
