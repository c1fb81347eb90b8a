"""The ONNX Runtime recipes on small real models: numbers against FP32, and which kernels really run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
    count_computing,
    count_operators,
    make_attention,
    make_cnn,
    make_lstm,
    make_model,
    random_weights,
    rotate,
)

from modelwright.core.errors import BuildFailedError
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.records.machine import Machine
from modelwright.targets.contract import RunSettings, Target
from modelwright.targets.graphs import files
from modelwright.targets.graphs.classify import GraphKind
from modelwright.targets.graphs.files import load_model
from modelwright.targets.graphs.run import open_session, session_options
from modelwright.targets.ort import recipes as ort_recipes
from modelwright.targets.ort import session as ort_session
from modelwright.targets.ort import target as ort
from modelwright.targets.quantization import onnx_quantizer, prepare
from modelwright.targets.quantization import statistics as smoothing
from modelwright.targets.quantization.formats import choose_scheme


@pytest.mark.parametrize("external", [False, True])
def test_fp32_gives_the_same_bits(tmp_path: Path, external: bool) -> None:
    bench = Bench(tmp_path, make_cnn(), external=external)
    result = bench.build(ort.OrtFp32())
    source = ort_session.OrtSession(bench.path, bench.signature, RunSettings())
    with bench.load(ort.OrtFp32(), result) as session:
        for feeds in bench.samples("evaluation").feeds(3):
            np.testing.assert_array_equal(session.run(feeds)["y"], source.run(feeds)["y"])
            bound = session.bind(feeds)()
            assert isinstance(bound, list)
            np.testing.assert_array_equal(bound[0], source.run(feeds)["y"])
    assert bench.profile(ort.OrtFp32(), result).main_precision() == "fp32"
    assert (tmp_path / "ort-fp32" / "weights.bin").exists() == external


@pytest.mark.parametrize(("opset", "external"), [(17, False), (17, True), (11, False), (7, False)])
def test_a_cnn_runs_in_integers_from_end_to_end(tmp_path: Path, opset: int, external: bool) -> None:
    bench = Bench(tmp_path, make_cnn(opset), external=external)
    # Of random weights some layers lose more than a regression may; a vector as a whole shall follow.
    roles = {"y": OutputRole(name="y", role="embedding", why="a test", axis=1)}
    result = bench.build(ort.OrtInt8(), roles=roles)
    assert result.recipe["search"]["float_layers"] == []
    with bench.load(ort.OrtInt8(), result) as session:
        assert bench.cosine(session) > 0.998
    seen = bench.profile(ort.OrtInt8(), result)
    assert seen.main_precision() == "int8"
    assert count_computing(seen, "fp32") == 0, "a Conv or Gemm was not fused"
    counted = count_operators(seen)
    assert (counted["QLinearConv"], counted["QLinearAdd"], counted["QGemm"]) == (3, 1, 1)
    assert "Relu" not in counted


@pytest.mark.parametrize("make", [make_cnn, make_attention])
def test_the_formats_for_arm_are_right_on_this_machine_too(tmp_path: Path, make: Any) -> None:
    bench = Bench(tmp_path, make())
    result = bench.build(ort.OrtInt8(), machine=ARM)
    assert result.recipe["formats"]["activations"].startswith("int8")
    with bench.load(ort.OrtInt8(), result) as session:
        assert bench.cosine(session) > 0.995
    assert count_computing(bench.profile(ort.OrtInt8(), result), "int8") > 0


def test_an_opset_that_does_not_convert_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise BuildFailedError("no adapter")

    monkeypatch.setattr(prepare, "raise_opset", refuse)
    bench = Bench(tmp_path, make_cnn(11))
    result = bench.build(ort.OrtInt8())
    assert "no adapter" in result.recipe["opset_note"]
    with bench.load(ort.OrtInt8(), result) as session:
        assert bench.cosine(session) > 0.998
    assert count_operators(bench.profile(ort.OrtInt8(), result))["QLinearConv"] == 3


@pytest.mark.parametrize("target", [ort.OrtInt8(), ort.OrtInt8Dynamic()])
def test_smoothing_saves_a_transformer_with_an_outlier_channel(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_attention()
    for name in ("plain", "smoothed"):
        (tmp_path / name).mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(onnx_quantizer, "_ALPHAS", (None,))
        plain = Bench(tmp_path / "plain", model).build(target).recipe["search"]["candidates"]
    bench = Bench(tmp_path / "smoothed", model)
    result = bench.build(target)
    found = result.recipe["search"]
    assert found["chosen"]["alpha"] is not None
    assert found["figures"]["error"] < plain[0]["error"] / 2
    with bench.load(target, result) as session:
        assert bench.cosine(session) > 0.995  # with 7-bit weights
    seen = bench.profile(target, result)
    assert count_computing(seen, "fp32") == 2, "only the products of two activations stay in float"


@pytest.mark.parametrize(
    ("quantizer", "operator"), [("StaticQuantizer", "QuantizeLinear"), ("DynamicQuantizer", "DynamicQuantizeLinear")]
)
def test_the_vendors_own_call_is_the_last_candidate(tmp_path: Path, quantizer: str, operator: str) -> None:
    bench = Bench(tmp_path, make_cnn())
    model, _ = prepare.prepare_model(bench.request(tmp_path))
    made = getattr(ort_recipes, quantizer)(bench.request(tmp_path), model, "cnn", choose_scheme(MACHINE, static=True))
    last = made.candidates()[-1]
    assert [candidate.name for candidate in last] == ["no smoothing, ranges ONNX Runtime's own"]
    built = made.build(last[0], ())
    assert operator in {node.op_type for node in built.graph.node}
    spared = made.build(last[0], [node.name for node in model.graph.node])
    assert operator not in {node.op_type for node in spared.graph.node}
    expected = [outputs["y"] for outputs in made.run(model, bench.tuning.feeds())]
    for outputs, answer in zip(made.run(built, bench.tuning.feeds()), expected, strict=True):
        assert 0 < float(np.abs(outputs["y"] - answer).max()) < 0.2 * float(np.abs(answer).max())


@pytest.mark.parametrize(("make", "kind"), [(make_cnn, "cnn"), (make_attention, "transformer")])
def test_rounded_weights_come_after_the_nearest_and_their_work_is_counted_once(
    tmp_path: Path, make: Callable[[], Any], kind: GraphKind
) -> None:
    bench = Bench(tmp_path, make())
    request = bench.request(tmp_path)
    model, _ = prepare.prepare_model(request)
    scheme = choose_scheme(ARM, static=True)
    quantizer = ort_recipes.StaticQuantizer(request, model, kind, scheme)
    tried = [candidate for group in quantizer.candidates() for candidate in group]
    assert not tried[0].rounded
    rounded = next(candidate for candidate in tried if candidate.rounded)
    assert {each.rounded for each in quantizer.candidates()[0]} == ({False} if kind == "transformer" else {False, True})
    assert quantizer.effort(tried[0]) == 1.0
    assert quantizer.effort(rounded) > 2.0
    quantizer.build(rounded, ())
    assert quantizer.effort(replace(rounded, ranges="percentile-99.999")) == 1.0


def test_how_the_pool_waits_is_left_to_the_vendor(tmp_path: Path) -> None:
    """Without spinning, as all others do by default, the baseline is slower above one thread, and nothing says so."""
    bench = Bench(tmp_path, make_cnn())
    options = session_options(RunSettings(threads=2))
    with pytest.raises(RuntimeError, match="allow_spinning"):
        options.get_session_config_entry("session.intra_op.allow_spinning")
    for threads, spins in ((1, False), (2, True)):
        session = ort_session.OrtSession(bench.path, bench.signature, RunSettings(threads=threads))
        assert session.describe_execution()["spinning"] is spins


def test_lstm_is_quantized_dynamically_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_lstm())
    for target, operator in ((ort.OrtInt8(), "LSTM"), (ort.OrtInt8Dynamic(), "DynamicQuantizeLSTM")):
        result = bench.build(target)
        with bench.load(target, result) as session:
            assert bench.cosine(session) > 0.995
        assert operator in count_operators(bench.profile(target, result))
        assert any("recurrent" in note for note in result.notes) == (operator == "LSTM")


def test_the_worst_layer_goes_back_to_float(tmp_path: Path) -> None:
    """A layer whose input has one huge value and whose weights ignore it cannot live in 8 bits; the other can."""
    first = random_weights(64, 64)
    first[0] = 0
    nodes = [
        helper.make_node("Mul", ["x", "spread"], ["wide"], "spread_mul"),
        helper.make_node("MatMul", ["wide", "w0"], ["h"], "fragile"),
        *(
            helper.make_node("MatMul", ["h" if n == 1 else f"h{n}", f"w{n}"], [f"h{n + 1}"], f"fine{n}")
            for n in range(1, 8)
        ),
        helper.make_node("Relu", ["h8"], ["y"], "relu"),
    ]
    spread = np.ones(64, np.float32)
    spread[0] = 3000
    constants = {"spread": spread, "w0": first, **{f"w{n}": rotate(64) for n in range(1, 8)}}
    bench = Bench(tmp_path, make_model(nodes, constants, ("n", 64), ("n", 64)))
    result = bench.build(ort.OrtInt8())
    assert [entry["layer"] for entry in result.recipe["search"]["float_layers"]] == ["fragile"]
    with bench.load(ort.OrtInt8(), result) as session:
        assert bench.cosine(session) > 0.99
    profile = bench.profile(ort.OrtInt8(), result)
    assert count_computing(profile, "fp32") == 1
    (kept,) = [found for found in profile.operators if found.kind == "compute" and found.precision == "fp32"]
    assert kept.nodes == ("fragile",)


def test_large_models_take_the_same_numbers_through_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / name for name in ("memory", "files")]
    outputs = []
    for folder in folders:
        folder.mkdir()
        if folder.name == "files":
            monkeypatch.setattr(files, "_PROTOBUF_LIMIT_BYTES", 500)
            monkeypatch.setattr(prepare, "EXTERNAL_BYTES", 500)
            (folder / "samples.npz").write_bytes((folders[0] / "samples.npz").read_bytes())
        bench = Bench(folder, onnx.load(str(folders[0] / "source.onnx")) if outputs else make_cnn(), external=True)
        (folder / "samples.npz").write_bytes((folders[0] / "samples.npz").read_bytes())
        bench.calibration, bench.tuning = bench.samples("calibration"), bench.samples("tuning")
        result = bench.build(ort.OrtInt8())
        with bench.load(ort.OrtInt8(), result) as session:
            outputs.append(np.concatenate([session.run(feeds)["y"] for feeds in bench.samples("evaluation").feeds()]))
    assert (folders[1] / "ort-int8" / "model.onnx.data").is_file()
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)


def make_masked_rows() -> Any:
    """Rows that begin with less than -0.5 become NaN: a softmax over nothing but -inf, as of masked attention."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], "fc1"),
        helper.make_node("Slice", ["x", "zero", "one", "one"], ["flag"]),
        helper.make_node("Greater", ["flag", "low"], ["shown"]),
        helper.make_node("Where", ["shown", "h", "ninf"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"]),
        helper.make_node("Gemm", ["p", "v"], ["y"], "fc2"),
    ]
    constants = {
        "w": rotate(16),
        "v": rotate(16),
        "low": np.array([-0.5], np.float32),
        "ninf": np.array([-np.inf], np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
    }
    return make_model(nodes, constants, ("n", 16), ("n", 16))


def test_what_is_nan_is_left_out_of_calibration_and_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_masked_rows())
    seen = smoothing.collect_statistics(load_model(bench.path), ["p"], bench.calibration.feeds, tmp_path)["p"]
    assert seen.left_out > 0
    assert seen.left_out % 16 == 0
    assert 0.0 < seen.high <= 1.0
    assert seen.counts.sum() + seen.left_out == bench.calibration.count * 16
    result = bench.build(ort.OrtInt8())
    assert "calibration left out values that are NaN or infinite, of p" in result.notes


def test_streaming_holds_one_group_of_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, make_cnn())
    model = load_model(bench.path)
    names = ["x", "r1", "r2", "a"]
    whole = smoothing.collect_statistics(model, names, bench.calibration.feeds, tmp_path)
    sizes: list[int] = []
    opened = open_session

    def count_outputs(watched: Any, scratch: Path) -> Any:
        sizes.append(len(watched.graph.output) - 1)
        return opened(watched, scratch)

    monkeypatch.setattr(smoothing, "open_session", count_outputs)
    monkeypatch.setattr(smoothing, "GROUP_BYTES", 16 * 12 * 12 * 4)  # one feature map
    apart = smoothing.collect_statistics(model, names, bench.calibration.feeds, tmp_path)
    assert sizes == [3, 1, 1, 1] * 2, "sizes first, then a group at a time, for each of the two passes"
    assert len(model.graph.output) == 1
    for name in names:
        assert (apart[name].low, apart[name].high) == (whole[name].low, whole[name].high)
        np.testing.assert_array_equal(apart[name].counts, whole[name].counts)


def test_errors_name_the_cause_and_a_cure(tmp_path: Path) -> None:
    conv = make_model(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv")],
        {"w": random_weights(4, 3, 1, 1)},
        ("n", 3, 4, 4),
        ("n", 4, 4, 4),
    )
    (tmp_path / "conv").mkdir()
    with pytest.raises(BuildFailedError) as caught:
        Bench(tmp_path / "conv", conv).build(ort.OrtInt8Dynamic())
    assert "ort-int8" in str(caught.value.hint)
    custom = make_model([helper.make_node("Frobnicate", ["x"], ["y"], "frob", domain="my.ops")], {}, ("n", 4), ("n", 4))
    custom.opset_import.append(helper.make_opsetid("my.ops", 1))
    (tmp_path / "custom").mkdir()
    with pytest.raises(BuildFailedError, match="Frobnicate"):
        Bench(tmp_path / "custom", custom).build(ort.OrtInt8())


def test_calibration_on_nothing_but_nan_names_the_node(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Exp", ["x"], ["e"], "power"),
        helper.make_node("Neg", ["e"], ["below"], "minus"),
        helper.make_node("Log", ["below"], ["l"], "logarithm"),
        helper.make_node("MatMul", ["l", "w"], ["y"], "fc"),
    ]
    bench = Bench(tmp_path, make_model(nodes, {"w": random_weights(4, 4)}, ("n", 4), ("n", 4)))
    with pytest.raises(BuildFailedError, match=r"nothing but NaN or infinity in l, made by node logarithm \(Log\)"):
        bench.build(ort.OrtInt8())


def test_dynamic_without_samples_says_that_nothing_was_checked(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_cnn())
    result = bench.build(ort.OrtInt8Dynamic(), calibration=None, tuning=None)
    assert any("unchecked" in note for note in result.notes)
    assert result.recipe["search"]["candidates"] == []


@pytest.mark.parametrize(("machine", "tried"), [(ARM, [False] + [True] * 4), (MACHINE, [False] * 4)])
def test_weights_are_rounded_for_what_they_make_of_samples_where_they_have_8_bits(
    tmp_path: Path, machine: Machine, tried: list[bool]
) -> None:
    bench = Bench(tmp_path, make_cnn())
    roles = {"y": OutputRole(name="y", role="embedding", why="a test", axis=1)}
    result = bench.build(ort.OrtInt8(), machine=machine, roles=roles)
    candidates = result.recipe["search"]["candidates"]
    assert [each["rounded"] for each in candidates[: len(tried)]] == tried
    if machine is ARM:
        distances = {each["rounded"]: each["distance"] for each in candidates if each["ranges"] == "minmax"}
        assert distances[True] < distances[False]
        assert result.recipe["search"]["chosen"]["rounded"]
