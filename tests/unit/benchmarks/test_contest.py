"""The contest with the peers: its figures and its table by known answers, its loops on a process that fails."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import onnx
import pytest

from modelwright.harness.results.statistics import SpeedRatio

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def contest(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("contest.results")


def test_quality_counts_agreeing_and_right_answers(contest: ModuleType) -> None:
    reference = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    answers = np.array([[4.0, 2.0], [0.0, 6.0], [0.0, 1.0], [0.0, 2.0]])

    quality = importlib.import_module("contest.quality").judge([answers], [reference], np.array([0, 0, 1, 1]))

    assert (quality.agreeing, quality.correct, quality.count) == (3, 3, 4)
    assert quality.cosine == pytest.approx(0.75)  # three have FP32's direction, one is at right angles to it


def test_answers_of_a_detector_are_detections(contest: ModuleType) -> None:
    """One of FP32's two detections of an image is at a score of 0.1 in the answers of a file, in one image of four."""
    reference = np.zeros((4, 6, 200))
    reference[:, :2] = np.stack(np.divmod(np.arange(200), 20)) * 32.0 + np.arange(4)[:, None, None]
    reference[:, 2:4] = 30.0
    reference[:, 4:] = 0.01
    reference[:, 4, 7] = reference[:, 5, 90] = 0.9
    answers = reference.copy()
    answers[2, 5, 90] = 0.1

    quality = importlib.import_module("contest.quality").judge([answers], [reference], None)

    assert (quality.agreeing, quality.count, quality.correct) == (7, 8, None)


def test_flat_outputs_are_compared_and_turned_ones_are_not(contest: ModuleType) -> None:
    reference = np.random.default_rng(0).standard_normal((3, 4, 5))
    compare = importlib.import_module("contest.quality").judge_if_comparable

    assert compare([reference.reshape(3, 20)], [reference], None).cosine == pytest.approx(1.0)
    assert compare([reference.transpose(0, 2, 1)], [reference], None) is None
    assert compare(None, [reference], None) is None


def make_row(contest: ModuleType, name: str, maker: str, runtime: str, ratio: float, agreeing: int) -> object:
    quality = contest.Quality(count=1000, agreeing=agreeing, correct=700, cosine=0.99)
    return contest.Row(name=name, maker=maker, runtime=runtime, speedup=SpeedRatio(ratio=ratio), quality=quality)


def make_result(contest: ModuleType, rows: list[object], *, has_meaning: bool = True) -> msgspec.Struct:
    return contest.ModelResult(
        model="m", has_meaning=has_meaning, samples=9, held_out=1000, effort="e", revision="r", created="now",
        versions={}, rows=tuple(rows),
    )  # fmt: skip


def test_a_peer_leads_where_no_file_of_its_runtime_is_as_fast_at_no_less_agreement(contest: ModuleType) -> None:
    rows = [
        make_row(contest, "ort-int8", "modelwright", "onnxruntime", 2.0, 990),
        make_row(contest, "tflite-int8", "modelwright", "litert", 9.0, 999),
        make_row(contest, "faster and worse", "peer", "onnxruntime", 3.0, 980),
        make_row(contest, "slower and better", "peer", "onnxruntime", 1.5, 995),
        make_row(contest, "slower and worse", "peer", "onnxruntime", 1.9, 990),
    ]

    leaders = contest.find_leaders(make_result(contest, rows))

    assert [line.partition(" (")[0] for line in leaders] == ["faster and worse", "slower and better"]


def test_the_table_has_the_fastest_first_and_says_why_a_row_is_empty(contest: ModuleType) -> None:
    rows = [
        make_row(contest, "slow", "peer", "onnxruntime", 1.5, 995),
        make_row(contest, "fast", "modelwright", "litert", 2.5, 999),
        contest.Row(name="broken", maker="peer", reason="fails: no kernel"),
    ]

    lines = importlib.import_module("contest.table").show(make_result(contest, rows)).splitlines()

    assert lines[2].startswith("| **fast** | litert | 2.50 |")
    assert "99.9 %" in lines[2]
    assert lines[3].startswith("| slow |")
    assert lines[-1] == "- broken: fails: no kernel"


def test_a_model_that_is_run_again_replaces_its_earlier_result_only(contest: ModuleType, tmp_path: Path) -> None:
    first, second = (make_row(contest, name, "peer", "onnxruntime", 1.5, 995) for name in ("first", "second"))
    other = msgspec.structs.replace(make_result(contest, []), model="other")
    for result in (make_result(contest, [first]), other):
        contest.keep_result(tmp_path / "r.json", "here", result)

    kept = contest.keep_result(tmp_path / "r.json", "here", make_result(contest, [second]))

    assert [(one.model, [row.name for row in one.rows]) for one in kept.models] == [("m", ["second"]), ("other", [])]
    assert contest.keep_result(tmp_path / "r.json", "elsewhere", other).models == (other,)


def test_a_loop_that_cannot_load_says_what_the_runtime_said(contest: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    entrants, loops = (importlib.import_module(f"contest.{name}") for name in ("entrants", "loops"))
    model = tmp_path / "model.onnx"
    model.write_bytes(b"no model")
    np.savez(tmp_path / "samples.npz", x=np.zeros((1, 2), np.float32))
    entrant = entrants.Entrant(name="bad", maker="peer", runtime="onnxruntime", file=model, build_s=0.0)

    with pytest.raises(importlib.import_module("contest.line_process").LoopFailedError, match=r"model\.onnx"):
        loops.PlainLoop(entrant, tmp_path / "samples.npz", tmp_path, judged=1)


def test_a_loop_answers_every_sample_and_takes_turns(contest: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    entrants, loops = (importlib.import_module(f"contest.{name}") for name in ("entrants", "loops"))
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    node = onnx.helper.make_node("Add", ["x", "x"], ["y"])
    graph = onnx.helper.make_graph([node], "doubled", ends[:1], ends[1:])
    model = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), model)
    samples = np.arange(24, dtype=np.float32).reshape(12, 2)  # more than the loop goes round
    np.savez(tmp_path / "samples.npz", x=samples, labels=np.zeros(12))
    entrant = entrants.Entrant(name="doubled", maker="peer", runtime="onnxruntime", file=model, build_s=0.0)

    loop = loops.PlainLoop(entrant, tmp_path / "samples.npz", tmp_path, judged=10)
    try:
        (answers,) = loop.answer()
        window = loop.run_window(0.01)
    finally:
        loop.close()

    assert np.array_equal(answers, 2 * samples[:10])
    assert window.inferences == len(window.latencies_ms) > 0
