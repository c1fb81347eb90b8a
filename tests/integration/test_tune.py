"""A real search on the digits: trials, the measurement after them, and an artifact that is run as it was tuned."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from modelwright.cli.inspect import inspect
from modelwright.core.errors import BadInputError
from modelwright.core.records.artifact import open_artifact, verify_files
from modelwright.harness import measure, tune
from modelwright.harness.run.effort import get_effort
from modelwright.harness.run.interleave import Window
from modelwright.harness.run.runner import MeasureSettings
from modelwright.harness.tuning.race import Plan, Race
from modelwright.harness.tuning.record import Configuration
from modelwright.harness.tuning.runners import Stable
from modelwright.harness.tuning.study import JOURNAL

pytest.importorskip("optuna", reason="the search is Optuna's")
pytest.importorskip("torch", reason="the digits are a PyTorch module")

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
SOURCE = f"{EXAMPLE / 'model.py'}:create_model"
SAMPLES = EXAMPLE / "samples.npz"


def median_cost(window: Window, _how: Configuration) -> float:
    return statistics.median(window.latencies_ms)


def hold_race(stable: Stable, incumbent: Configuration, challenger: Configuration, seed: int) -> str:
    race = Race(open=stable.open, cost_of=median_cost, plan=Plan(), seed=seed)
    try:
        return race.run(incumbent, challenger).outcome
    finally:
        race.close()


@pytest.mark.slow
def test_it_finds_int8_goes_on_and_is_measured_as_it_was_tuned(tmp_path: Path) -> None:
    asked = {"samples": SAMPLES, "out": tmp_path, "targets": ["ort-fp32", "ort-int8"]}
    found, built = tune(SOURCE, budget="2", **asked)
    assert not built.absent
    assert [trial.outcome for trial in found.trials] == ["start", "better"], "INT8 is faster than FP32 on digits"
    assert found.trials[1].gain is not None
    assert found.trials[1].gain.ci95 is not None
    assert found.trials[1].gain.ci95[0] > 1
    assert found.stopped == "the budget of 2 is spent"
    best = open_artifact(tmp_path / "best")
    assert best.manifest.target == "ort-int8"
    assert best.manifest.proof is not None
    assert best.manifest.tuned
    assert best.manifest.tuned.trials == 2
    assert best.manifest.tuned.ratio == pytest.approx(found.finals[1].over_start.ratio)  # type: ignore[union-attr]
    verify_files(best)

    again, _ = tune(SOURCE, budget="4", **asked)
    assert again.trials[:2] == found.trials, "what was tried is kept"
    assert len(again.trials) == 4
    assert json.loads((tmp_path / "tune.json").read_text())["trials"][3]["number"] == 3
    assert (tmp_path / JOURNAL).is_file()

    # A setting at its default, said: the two are copies, and no race may tell them apart. Of an INT8 model that is not
    # optimised at all each operator is its own, with conversions between them: that is worse whichever comes first.
    stable = Stable(
        artifacts={"a": open_artifact(tmp_path / "best")},
        settings=MeasureSettings(effort=get_effort("quick"), device="cpu"),
        meter=None,
    )
    plain, copy, unfused = (
        Configuration(artifact="a", options=options) for options in ({}, {"arena": True}, {"graph-level": "disabled"})
    )
    for seed in range(3):
        assert hold_race(stable, plain, copy, seed) != "better"
        assert hold_race(stable, unfused, plain, seed) == "better"
        assert hold_race(stable, plain, unfused, seed) == "not better"

    tuned = open_artifact(tmp_path / "best").manifest.tuned
    assert tuned
    program = (
        CliRunner().invoke(inspect, [str(tmp_path / "best"), "--snippet", "python"], catch_exceptions=False).output
    )
    assert program.startswith("# ort-int8: for onnxruntime>=1.")
    assert f"(made with {best.manifest.versions['onnxruntime']})" in program.splitlines()[0]
    assert f"intra_op_num_threads = {tuned.threads}\n" in program
    comparison = measure([tmp_path / "best", tmp_path / "artifacts" / "ort-fp32"], effort="quick")
    row, plain = comparison.measured
    assert (row.settings.threads, row.settings.options) == (tuned.threads, dict(tuned.options))  # type: ignore[union-attr]
    assert (plain.settings.threads, plain.settings.options) == (1, {})  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_smallest_is_delivered_without_a_search(tmp_path: Path) -> None:
    found, _ = tune(SOURCE, samples=SAMPLES, out=tmp_path, targets=["ort-fp32", "ort-int8"], goal="size")
    assert found.best is not None
    assert found.best.artifact == "ort-int8"
    assert not (tmp_path / JOURNAL).exists()
    sizes = {trial.configuration.artifact: trial.cost for trial in found.trials}
    assert sizes == {
        name: open_artifact(tmp_path / "artifacts" / name).manifest.size_bytes for name in ("ort-fp32", "ort-int8")
    }


@pytest.mark.slow
def test_another_search_leaves_the_one_of_before_as_it_was_and_says_what_differs(tmp_path: Path) -> None:
    asked = {"out": tmp_path, "targets": ["ort-fp32"], "goal": "size"}
    tune(SOURCE, samples=SAMPLES, **asked)
    kept = [
        *tmp_path.glob("artifacts/**/*"),
        *tmp_path.glob("best/*"),
        *tmp_path.glob("*.*"),
        *tmp_path.glob("*/*.onnx"),
    ]
    before = {path: path.read_bytes() for path in kept if path.is_file()}
    other = tmp_path.parent / "other.npz"
    with np.load(SAMPLES) as arrays:
        np.savez(other, **{name: array[::-1] for name, array in arrays.items()})
    model = onnx.load(tmp_path / "model" / "model.onnx")
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(1.5 * onnx.numpy_helper.to_array(weight), weight.name))
    trained_on = tmp_path.parent / "trained_on.onnx"
    onnx.save(model, trained_on)
    with pytest.raises(BadInputError, match="goal size then and energy now"):
        tune(SOURCE, samples=SAMPLES, **asked | {"goal": "energy"})
    with pytest.raises(BadInputError, match="targets ort-fp32 then and ort-fp32, ort-int8 now"):
        tune(SOURCE, samples=SAMPLES, **asked | {"targets": ["ort-fp32", "ort-int8"]})
    with pytest.raises(BadInputError, match=r"calibration samples .* then and .* now"):
        tune(SOURCE, samples=other, **asked)
    with pytest.raises(BadInputError, match=r"model sha256 .* then and sha256 .* now"):
        tune(trained_on, samples=SAMPLES, **asked)
    assert {path: path.read_bytes() for path in before} == before

    found, built = tune(SOURCE, samples=SAMPLES, **asked)
    assert built.reused == {"ort-fp32": True}
    assert found.best is not None
