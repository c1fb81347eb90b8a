"""The OpenVINO targets without OpenVINO: records, checks, names, and the choice among recipes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.contract import BuildRequest
from modelwright.targets.openvino import quantize as openvino_quantization
from modelwright.targets.openvino import target as openvino
from modelwright.targets.openvino.quantize import find_consumers, has_attention
from modelwright.targets.openvino.recipes import CONVOLUTIONAL, TRANSFORMER, Score
from modelwright.targets.openvino.session import find_ports
from modelwright.targets.openvino.target import OpenvinoBf16, OpenvinoFp32, OpenvinoInt8


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


@pytest.mark.parametrize(
    ("agreement", "cosine", "tier"),
    [
        (1.0, 0.9995, 2),
        (0.99, 0.9995, 1),
        (1.0, 0.995, 1),
        (0.97, 0.9999, 0),
        (1.0, 0.98, 0),
        (None, 0.9991, 2),
        (None, None, 2),
    ],
)
def test_score_tiers(agreement: float | None, cosine: float | None, tier: int) -> None:
    assert Score(agreement=agreement, cosine=cosine, count=64).tier == tier


def test_one_close_call_of_a_few_samples_is_forgiven_if_the_cosine_holds() -> None:
    assert Score(agreement=14 / 15, cosine=0.995, count=15).tier == 1
    assert Score(agreement=13 / 15, cosine=0.995, count=15).tier == 0
    assert Score(agreement=14 / 15, cosine=0.985, count=15).tier == 0
    assert Score(agreement=62 / 64, cosine=0.995, count=64).tier == 0


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


def test_attention_is_a_product_with_a_softmax() -> None:
    softmax = Node("Softmax", "s")
    assert has_attention(SimpleNamespace(get_ops=lambda: [softmax, Node("MatMul", "m", softmax)]))
    assert has_attention(SimpleNamespace(get_ops=lambda: [Node("ScaledDotProductAttention", "a")]))
    # A classifier's last Softmax is no attention.
    lone = Node("Softmax", "s", Node("MatMul", "m"))
    assert not has_attention(SimpleNamespace(get_ops=lambda: [lone, *lone.sources]))


class Search(openvino_quantization._Search):
    """A search whose quantizer is scripted: candidate name, or number of float layers -> agreement, cosine."""

    def __init__(self, request: BuildRequest, script: dict[object, tuple[float, float]], *, bf16: bool = True) -> None:
        core = SimpleNamespace(get_property=lambda *_: ["FP32", *(["BF16"] if bf16 else [])])
        super().__init__(SimpleNamespace(Core=lambda: core), None, SimpleNamespace(get_ops=list), request)
        self.script = script

    def _quantize(self, candidate, ignored):
        return len(ignored) or candidate.name

    def _score(self, model, *, hint="f32", limit=None, options=None):
        key = (model, hint) if hint == "bf16" else model
        agreement, cosine = self.script.get((model, "unfused") if options else key, self.script[key])
        return Score(agreement=agreement, cosine=cosine, count=64)

    def _rank_groups(self, quantized):
        return [["d"], ["b", "c"], ["a"], ["e"], ["f"]]


def make_request(tmp_path: Path, *, tuning: bool = True, machine: Machine | None = None) -> BuildRequest:
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 2)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 2)),),
    )
    np.savez(tmp_path / "s.npz", x=np.zeros((16, 2), np.float32))
    samples = open_samples(SampleRef(path=tmp_path / "s.npz", part="tuning"), signature)
    return BuildRequest(
        model_path=tmp_path / "m.onnx",
        signature=signature,
        directory=tmp_path,
        machine=machine or make_machine("avx512_vnni"),
        calibration=samples,
        tuning=samples if tuning else None,
        reference=[{"y": np.zeros((1, 2), np.float32)}] * samples.count if tuning else None,
        scratch=tmp_path,
        shared=tmp_path,
        progress=lambda _line: None,
    )


FIRST, SECOND, THIRD = (candidate.name for candidate in CONVOLUTIONAL)


def test_the_first_recipe_that_does_as_wanted_ends_the_search(tmp_path: Path) -> None:
    search = Search(make_request(tmp_path), {FIRST: (1.0, 0.995), SECOND: (1.0, 0.9992)})
    search.try_candidates()
    assert [trial.candidate.name for trial in search.trials] == [FIRST, SECOND]
    assert search.best.candidate.name == SECOND
    assert search.notes() == []


def test_fused_kernels_that_compute_wrongly_are_switched_off(tmp_path: Path) -> None:
    search = Search(make_request(tmp_path), {FIRST: (0.1, -0.05), (FIRST, "unfused"): (1.0, 0.9999)})
    search.try_candidates()
    assert len(search.trials) == 1
    assert search.options == openvino_quantization.WITHOUT_FUSION
    assert "fused kernels" in search.notes()[0]


def test_within_a_tier_the_cosine_decides(tmp_path: Path) -> None:
    search = Search(make_request(tmp_path), {FIRST: (0.98, 0.997), SECOND: (1.0, 0.991), THIRD: (1.0, 0.99)})
    search.try_candidates()
    assert search.best.candidate.name == FIRST


def test_layers_go_back_to_float_until_it_is_enough(tmp_path: Path) -> None:
    bad = (0.5, 0.9)
    search = Search(make_request(tmp_path), {FIRST: bad, SECOND: bad, THIRD: bad, 1: (0.9, 0.95), 3: (1.0, 0.9999)})
    search.try_candidates()
    search.put_layers_back()
    assert search.best.ignored == ("b", "c", "d")
    assert len(search.trials) == 5  # not the share of four groups
    assert "b, c, d" in search.notes()[0]


def test_a_missed_goal_is_told(tmp_path: Path) -> None:
    bad = (0.5, 0.9)
    search = Search(make_request(tmp_path), {FIRST: bad, SECOND: bad, THIRD: bad, 1: bad, 3: bad, 5: (0.6, 0.91)})
    search.try_candidates()
    search.put_layers_back()
    assert search.best.rank == (0, 0.91)
    assert "misses its goal" in search.notes()[0]
    assert "60.0%" in search.notes()[0]


def test_the_time_budget_ends_the_search_but_never_before_a_first_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_quantization, "TRY_BUDGET_S", -1.0)
    search = Search(make_request(tmp_path), {FIRST: (0.5, 0.9)})
    search.try_candidates()
    search.put_layers_back()
    assert len(search.trials) == 1
    assert search.ran_out


def test_without_tuning_samples_the_first_recipe_is_taken_and_told(tmp_path: Path) -> None:
    search = Search(make_request(tmp_path, tuning=False), {})
    search.try_candidates()
    assert len(search.trials) == 1
    assert "unchecked" in search.notes()[0]


def test_overflow_is_avoided_where_the_processor_saturates(tmp_path: Path) -> None:
    assert Search(make_request(tmp_path), {}).overflow_fix == "disable"
    assert Search(make_request(tmp_path, machine=make_machine("avx2")), {}).overflow_fix == "enable"


@pytest.mark.parametrize(
    ("features", "host_bf16", "score", "chosen"),
    [
        (["amx_bf16"], True, (1.0, 0.9995), "bf16"),
        (["amx_bf16"], True, (0.99, 0.9999), "f32"),  # agreement lost
        (["amx_bf16"], True, (1.0, 0.9991), "f32"),  # cosine lost
        (["amx_bf16"], False, (1.0, 0.9999), "f32"),  # cannot be judged here
        (["avx512_vnni"], True, (1.0, 0.9999), "f32"),
    ],
)
def test_float_rest_runs_in_bf16_only_when_it_costs_nothing(
    tmp_path: Path, features: list[str], host_bf16: bool, score: tuple[float, float], chosen: str
) -> None:
    request = make_request(tmp_path, machine=make_machine(*features))
    search = Search(request, {FIRST: (1.0, 0.9998), (FIRST, "bf16"): score}, bf16=host_bf16)
    search.try_candidates()
    hint, reason, _ = search.choose_float_precision(search.best)
    assert hint == chosen
    assert reason


def test_transformer_recipes_all_smooth() -> None:
    assert all(candidate.smooth_quant_alpha is not None for candidate in TRANSFORMER)
    assert all(candidate.smooth_quant_alpha is None for candidate in CONVOLUTIONAL)
