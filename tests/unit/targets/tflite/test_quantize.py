"""The TFLite side of the search, with a scripted converter: what it is asked for, and what is made of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.contract import BuildRequest
from modelwright.targets.quantization.goal import Figures
from modelwright.targets.quantization.quantizer import Trial
from modelwright.targets.tflite import answers, client, conversion
from modelwright.targets.tflite.order import ORDERS
from modelwright.targets.tflite.quantize import TfliteQuantizer
from modelwright.targets.tflite.recipes import CANDIDATES, ROUNDED, WEIGHTED_AND_TABLES, TfliteCandidate

LAYERS = [
    {
        "name": "table", "operator": "GATHER", "products": 0.0, "values": 2.0, "weights": 80.0,
        "noise": {"dynamic": 1e-7, "static": 1e-5},
    },
    {
        "name": "stem", "operator": "CONV_2D", "products": 20.0, "values": 6.0, "weights": 5.0,
        "noise": {"dynamic": 1e-4, "static": 1e-3, "weights": 1e-6, "four_bits": 1e-2},
    },
    {
        "name": "product", "operator": "FULLY_CONNECTED", "products": 50.0, "values": 5.0, "weights": 15.0,
        "noise": {"dynamic": 2e-4, "static": 1e-1, "weights": 2e-6, "four_bits": 2e-2},
    },
]  # fmt: skip
ENDS = [{"name": "product", "operator": "FULLY_CONNECTED"}, {"name": "probabilities", "operator": "SOFTMAX"}]
BINDING = {"inputs": [], "reset_variables": False}
CONVERTED = {"file": "fp32.tflite", "binding": BINDING, "order": {"action": "convert", "onnx": "m.onnx"}}


class Converter:
    """Answers steps; `failing` names candidates of which no file can be made."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.failing: dict[str, str | None] = {}
        self.has_tables = True
        self.times_ms = [10.0]
        self.measured_rounds = 0
        self.binding: dict[str, Any] = BINDING

    def __call__(self, order: dict[str, Any], progress: Any) -> dict[str, Any]:
        self.steps.append(order)
        return getattr(self, order["action"])(order)

    def convert(self, order: dict[str, Any]) -> dict[str, Any]:
        assert order["onnx"].endswith("rounded.onnx")
        return {"binding": self.binding}

    def calibrate(self, order: dict[str, Any]) -> dict[str, Any]:
        layers = LAYERS if order["samples"] is not None else []
        return {"ranges": "ranges.json", "has_tables": self.has_tables, "layers": layers, "ends": ENDS, "outline": []}

    def quantize(self, order: dict[str, Any]) -> dict[str, Any]:
        made = []
        for number, each in enumerate(order["orders"]):
            name = Path(each["file"]).name.split(".")[1]
            if name in self.failing:
                made.append({"failed": self.failing[name]})
            else:
                Path(each["file"]).write_bytes(b"x" * (100 - number))
                made.append({"keeps_state": True, "outline": []})
        return {"made": made, "versions": {"ai-edge-quantizer": "1"}}

    def measure(self, order: dict[str, Any]) -> dict[str, Any]:
        self.measured_rounds += order["rounds"]
        return {"cpu_ms": [self.times_ms[: len(order["files"])]] * order["rounds"]}

    def run(self, order: dict[str, Any]) -> dict[str, Any]:
        path = Path(order["output"], "y.npy")
        np.save(path, np.load(order["samples"]["x"]) * 2)
        return {"outputs": {"y": str(path)}}


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> Converter:
    made = Converter()
    monkeypatch.setattr(client, "run_step", made)
    return made


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 2)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 2)),),
    )
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32))
    return BuildRequest(
        model_path=tmp_path / "m.onnx",
        signature=signature,
        directory=tmp_path,
        machine=Machine(name="box", architecture="x86_64", instruction_sets=frozenset(), cores=4),
        calibration=open_samples(SampleRef(path=tmp_path / "s.npz", part="calibration"), signature),
        tuning=open_samples(SampleRef(path=tmp_path / "s.npz", part="tuning"), signature),
        reference=None,
        scratch=tmp_path,
        shared=tmp_path,
        progress=lambda line: None,
    )


def make(request: BuildRequest, precision: str = "int8") -> TfliteQuantizer:
    (request.scratch / "fp32.tflite").touch()
    return TfliteQuantizer(request, CONVERTED | {"folder": str(request.scratch)}, precision)


@pytest.fixture(autouse=True)
def rounds(request_: BuildRequest, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What rounding makes of the model; empty where it cannot."""
    found = [request_.scratch / "rounded.onnx"]
    monkeypatch.setattr(conversion, "find_rounded_model", lambda request: found[0] if found else None)
    return found


def test_it_calibrates_once_and_makes_all_candidates_in_one_step(converter: Converter, request_: BuildRequest) -> None:
    quantizer = make(request_)
    (group,) = quantizer.candidates()
    made = [quantizer.build(candidate, ()) for candidate in group]
    assert [order["action"] for order in converter.steps] == ["convert", "calibrate", "quantize"]
    assert converter.steps[2]["ranges"] == "ranges.json"
    assert len({file.path for file in made}) == len(group) == 8
    sources = {order["file"]: Path(order["fp32"]).name for order in converter.steps[2]["orders"]}
    names = {True: "rounded.tflite", False: "fp32.tflite"}
    assert [sources[str(file.path)] for file in made] == [names[candidate.rounded] for candidate in group]
    assert {candidate.rounded for candidate in group[:4]} == {True, False}, "the vendor's own way among the first"
    assert made[0].binding == {"inputs": [], "reset_variables": True}
    assert quantizer.build(group[2], ()) is made[2]
    assert quantizer.versions == {"ai-edge-quantizer": "1"}


def test_layers_put_back_take_their_scales_while_running_or_stay_in_float(
    converter: Converter, request_: BuildRequest
) -> None:
    quantizer = make(request_)
    model = quantizer.build(WEIGHTED_AND_TABLES, ("product", "stem"))
    (order,) = converter.steps[-1]["orders"]
    assert (order["dynamic"], order["float"]) == (["product"], ["stem"])
    assert order["rules"][0]["mode"] == "static"
    assert order["unrounded"] is None
    assert quantizer.costs(model) == pytest.approx({"table": 0.8, "stem": 100 / 280, "product": 0.0})
    assert quantizer.estimate_noise(WEIGHTED_AND_TABLES, model) == {"table": 1e-5, "stem": 1e-3, "product": 1e-1}
    everything = CANDIDATES["int8"][0]
    assert quantizer.base(everything, as_fast=False) is WEIGHTED_AND_TABLES
    assert quantizer.base(everything, as_fast=True) is everything, "its sums and pools are as fast as can be"
    said = quantizer.explain_kept(WEIGHTED_AND_TABLES, ("product", "stem"))
    assert "1 in 8 bits with scales that they take while running, 1 in float" in str(said)
    assert quantizer.explain_kept(WEIGHTED_AND_TABLES, ("stem",)) is None, "they are in float, which the search says"


@pytest.mark.parametrize(
    ("precision", "candidate", "spared", "costs", "noise"),
    [
        (
            "int8", "weighted-and-tables, products dynamic, rounded", ([], ["product", "stem"]),
            {"table": 0.8, "stem": 100 / 280, "product": 110 / 280}, {"table": 1e-5, "stem": 1e-3, "product": 2e-4},
        ),
        (
            "int8-dynamic", "matrix-products, rounded", ([], ["product", "stem"]),
            {"stem": 40 / 280, "product": 110 / 280}, {"stem": 1e-4, "product": 2e-4},
        ),
        (
            "int8-dynamic", "fully-connected, rounded", ([], ["product", "stem"]),
            {"stem": 0.05, "product": 110 / 280}, {"stem": 1e-6, "product": 2e-4},
        ),
        (
            "int4-weights", "blocks of 32", (["product"], ["stem"]),
            {"stem": 0.05, "product": 0.15}, {"stem": 1e-6, "product": 2e-2},
        ),
    ],
)  # fmt: skip
def test_layers_are_put_back_to_what_their_candidate_lacks(
    converter: Converter,
    request_: BuildRequest,
    precision: str,
    candidate: str,
    spared: tuple[list[str], list[str]],
    costs: dict[str, float],
    noise: dict[str, float],
) -> None:
    """Products that take their scales while running go to float, those of 4 bits to 8."""
    quantizer = make(request_, precision)
    (chosen,) = [each for each in CANDIDATES[precision] if each.name == candidate]
    assert quantizer.base(chosen, as_fast=False) is chosen
    model = quantizer.build(chosen, ("product", "stem"))
    (order,) = converter.steps[-1]["orders"]
    assert (order["dynamic"], order["float"]) == spared
    original = str(request_.scratch / "fp32.tflite") if chosen.rounded else None
    assert order["unrounded"] == original, "what stays in float has float weights"
    assert quantizer.costs(model) == pytest.approx(costs)
    assert quantizer.estimate_noise(chosen, model) == noise


@pytest.mark.parametrize(("float_bytes", "made"), [(100, [5]), (200 * 2**20, [2, 2, 1]), (2**30, [1, 1, 1, 1, 1])])
def test_files_that_rank_layers_do_not_fill_the_disk(
    converter: Converter, request_: BuildRequest, float_bytes: int, made: list[int]
) -> None:
    quantizer = make(request_)
    with (request_.scratch / "fp32.tflite").open("wb") as file:
        file.truncate(float_bytes)  # sparse
    chosen = quantizer.build(WEIGHTED_AND_TABLES, ())
    choices = [("table",), ("stem",), ("product",), ("table", "stem"), ("table", "product")]
    quantizer.foresee(WEIGHTED_AND_TABLES, choices)
    before = len(converter.steps)
    for kept in choices:
        model = quantizer.build(WEIGHTED_AND_TABLES, kept)
        assert model.path.is_file()
        assert quantizer.build(WEIGHTED_AND_TABLES, kept) is model
    assert [len(step["orders"]) for step in converter.steps[before:]] == made
    assert len(list(request_.scratch.glob("int8.weighted-and-tables.*"))) == 1 + made[-1], "those before are gone"
    assert chosen.path.is_file()
    again = quantizer.build(WEIGHTED_AND_TABLES, choices[0])
    assert again.path.is_file()


def test_a_step_that_fails_costs_the_files_that_it_was_to_make_and_no_other(
    converter: Converter, request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer = make(request_)
    with (request_.scratch / "fp32.tflite").open("wb") as file:
        file.truncate(2**30)  # sparse: one file a step
    quantizer.build(WEIGHTED_AND_TABLES, ())
    quantizer.foresee(WEIGHTED_AND_TABLES, [("table",), ("stem",)])

    def crash(order: dict[str, Any]) -> dict[str, Any]:
        raise BuildFailedError("the converter was killed")

    with monkeypatch.context() as patched:
        patched.setattr(converter, "quantize", crash)
        with pytest.raises(BuildFailedError, match="was killed"):
            quantizer.build(WEIGHTED_AND_TABLES, ("table",))
    assert quantizer.build(WEIGHTED_AND_TABLES, ("stem",)).path.is_file()


def make_trials(candidates: Sequence[TfliteCandidate]) -> list[Trial[TfliteCandidate]]:
    figures = Figures(severity=0.5, error=0.5, kept=None, measure="", finding=None, samples=8)
    return [Trial(candidate=candidate, kept=(), figures=figures, seconds=1.0) for candidate in candidates]


@pytest.mark.parametrize(
    ("times_ms", "chosen"),
    [([2.0, 5.0, 4.0], 0), ([5.0, 4.0, 4.1], 1), ([5.0, 4.6, 4.7], 0), ([5.0, 4.0, 3.0], 2)],
)
def test_on_such_a_machine_the_first_in_order_is_taken_unless_another_is_faster_beyond_doubt(
    converter: Converter, request_: BuildRequest, times_ms: list[float], chosen: int
) -> None:
    quantizer = make(replace(request_, fits_host=True))
    good = make_trials(quantizer.candidates()[0][:3])
    converter.times_ms = times_ms
    assert quantizer.choose(good[::-1]) is good[chosen], "the order is documented, not that of trying"
    names = [trial.candidate.name for trial in good]
    assert quantizer.timed[names[2]] == {
        "speed_over_first": pytest.approx(times_ms[0] / times_ms[2], abs=1e-3),
        "rounds": 15,
    }
    measured = f"measured speed on this machine: {times_ms[0] / times_ms[chosen]:.2f} times that of {names[0]}"
    kept = "documented order for x86_64: on this machine, no other is faster beyond doubt"
    assert quantizer.chosen_by == (measured if chosen else kept)


@pytest.mark.parametrize(
    ("architecture", "features", "precision", "chosen", "cpus"),
    [
        ("aarch64", {"asimd", "asimddp"}, "int8", "everything-but-the-ends, rounded", "aarch64"),
        (
            "aarch64",
            {"asimd", "asimddp"},
            "int8-dynamic",
            "matrix-products-and-tables, rounded",
            "with 8-bit dot products",
        ),
        ("aarch64", {"asimd"}, "int8-dynamic", "fully-connected-and-tables, rounded", "without 8-bit dot products"),
        ("x86_64", {"avx2"}, "int8-dynamic", "fully-connected-and-tables, rounded", "without 8-bit dot products"),
        ("x86_64", {"avx512_vnni"}, "int8-dynamic", "matrix-products-and-tables, rounded", "with 8-bit dot products"),
    ],
)
def test_for_another_machine_nothing_is_timed(
    converter: Converter,
    request_: BuildRequest,
    architecture: str,
    features: set[str],
    precision: str,
    chosen: str,
    cpus: str,
) -> None:
    machine = Machine(name="pi", architecture=architecture, instruction_sets=frozenset(features), cores=4)
    quantizer = make(replace(request_, machine=machine), precision)
    converter.times_ms = [10.0, *[1.0] * 6]  # what this host would choose
    assert quantizer.choose(make_trials(quantizer.candidates()[0])).candidate.name == chosen
    assert (converter.measured_rounds, quantizer.timed) == (0, {})
    assert quantizer.chosen_by.startswith(f"documented order for {architecture}")
    assert quantizer.chosen_by.endswith(cpus)


def test_every_candidate_has_its_place_in_every_order(converter: Converter, request_: BuildRequest) -> None:
    for precision, candidates in CANDIDATES.items():
        names = {candidate.name.removesuffix(ROUNDED) for candidate in candidates}
        for order in ORDERS[precision].values():
            assert names == set(order.names)
    quantizer = make(request_)
    (only,) = make_trials(quantizer.candidates()[0][2:3])
    assert quantizer.choose([only]) is only
    assert quantizer.chosen_by == "nothing else follows FP32 as closely"


def test_the_ends_get_no_fixed_scales(converter: Converter, request_: BuildRequest) -> None:
    quantizer = make(request_)
    (group,) = quantizer.candidates()
    quantizer.build(group[0], ())
    orders = converter.steps[-1]["orders"]
    for candidate, order in zip(group, orders, strict=True):
        spared = (["product"], ["probabilities"]) if candidate.spares_ends else ([], [])
        assert (order["dynamic"], order["float"]) == spared


def test_a_file_that_cannot_be_made_says_why(converter: Converter, request_: BuildRequest) -> None:
    converter.failing = {
        "everything-but-the-ends, rounded": "ValueError: no kernel",
        "everything": None,
    }
    quantizer = make(request_)
    (group,) = quantizer.candidates()
    with pytest.raises(BuildFailedError, match="fails on everything-but-the-ends, rounded: ValueError: no kernel"):
        quantizer.build(group[0], ())
    with pytest.raises(BuildFailedError, match="nothing in the model can be quantized to int8"):
        quantizer.build(group[1], ())
    assert quantizer.unchecked() is group[2]


def test_dynamic_range_needs_no_samples_and_tables_only_where_there_are_some(
    converter: Converter, request_: BuildRequest
) -> None:
    quantizer = make(replace(request_, calibration=None), "int8-dynamic")
    assert (converter.steps[1]["samples"], converter.steps[1]["fixed"]) == (None, False)
    assert len(quantizer.candidates()[0]) == 6
    assert quantizer.costs(quantizer.build(quantizer.candidates()[0][0], ())) == {}
    converter.has_tables = False
    assert [candidate.name for candidate in make(request_, "int8-dynamic").candidates()[0]] == [
        "matrix-products, rounded",
        "matrix-products",
        "fully-connected, rounded",
    ]


def test_weights_are_not_rounded_where_the_copy_converts_otherwise_or_there_is_none(
    converter: Converter, request_: BuildRequest, rounds: list[Path]
) -> None:
    names = [
        "everything-but-the-ends", "everything", "weighted-and-tables, products dynamic",
        "convolutional-but-the-ends", "weighted-and-tables-but-the-ends", "weighted-and-tables", "weighted",
    ]  # fmt: skip
    converter.binding = {"inputs": ["another"]}
    (plain,) = make(request_).candidates()
    assert [(candidate.name, candidate.rounded) for candidate in plain] == [(name, False) for name in names]
    assert make(request_).base(plain[0], as_fast=False) is WEIGHTED_AND_TABLES
    assert [step["action"] for step in converter.steps].count("convert") == 1, "asked for once"
    (request_.scratch / "rounded.json").unlink()
    rounds.clear()
    assert make(request_).candidates() == [plain]


def test_where_no_runtime_is_the_converter_runs_the_samples(
    converter: Converter, request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "RUNTIME", "no_such_runtime")
    quantizer = make(request_)
    model = quantizer.build(WEIGHTED_AND_TABLES, ())
    assert request_.tuning is not None
    feeds = list(request_.tuning.feeds(3))
    outputs = list(quantizer.run(model, iter(feeds)))
    assert converter.steps[-1]["binding"]["reset_variables"] is True
    for inputs, found in zip(feeds, outputs, strict=True):
        np.testing.assert_array_equal(found["y"], inputs["x"] * 2)
