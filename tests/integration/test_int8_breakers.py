"""Models made to break INT8: each is repaired or refused with its figures, and never passed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import breakers
import numpy as np
import onnxruntime
import pytest
from breakers import BREAKERS, Breaker
from click.testing import CliRunner

from modelwright.cli.inspect import inspect
from modelwright.core.errors import BuildFailedError
from modelwright.core.records.artifact import Artifact, open_artifact
from modelwright.harness.building import build_targets
from modelwright.targets.options import RunSettings
from modelwright.targets.table import get_target

TOOLCHAINS = {"ort-int8": "onnxruntime", "openvino-int8": "nncf", "tflite-int8": "ai_edge_litert"}
CASES = [
    pytest.param(make, target, marks=() if (make, target) in {(breakers.one_channel, "ort-int8")} else pytest.mark.slow)
    for make in BREAKERS
    for target in TOOLCHAINS
]
REFUSED = {breakers.huge_row}
"""The row that ruins it is in no sample that tunes: only what judges in the end can see it."""


def build(breaker: Breaker, target: str, folder: Path) -> Artifact:
    pytest.importorskip(TOOLCHAINS[target], reason=f"{TOOLCHAINS[target]} is not installed")
    np.savez(folder / "samples.npz", **breaker.draw(160, 1))
    build_targets(breaker.model, samples=folder / "samples.npz", out=folder / "out", targets=[target])
    return open_artifact(folder / "out" / target)


def answer(run: Callable[[Any], Any], inputs: Any) -> Any:
    count = len(next(iter(inputs.values())))
    return np.concatenate(
        [run({name: value[place : place + 1] for name, value in inputs.items()}) for place in range(count)]
    )


@pytest.mark.parametrize(("make", "target"), CASES)
def test_a_model_made_to_break_int8_is_repaired_or_refused(
    tmp_path: Path, make: Callable[[Path], Breaker], target: str
) -> None:
    breaker = make(tmp_path / "model.onnx")
    if make in REFUSED:
        with pytest.raises(BuildFailedError, match=r"do not follow FP32: output y: .*\d"):
            build(breaker, target, tmp_path)
        return
    artifact = build(breaker, target, tmp_path)
    # By another measure than the proof's, on samples that nothing has seen.
    fresh = breaker.draw(64, 2)
    fp32 = onnxruntime.InferenceSession(breaker.model, providers=["CPUExecutionProvider"])
    expected = answer(lambda feeds: fp32.run(["y"], feeds)[0], fresh)
    manifest = artifact.manifest
    with get_target(target).load(
        artifact.directory, manifest.model_file, manifest.recipe, manifest.signature, RunSettings()
    ) as session:
        found = answer(lambda feeds: session.run(feeds)["y"].copy(), fresh)
    assert breaker.score(expected, found) >= breaker.least


def test_layers_in_float_are_named_with_what_they_cost(tmp_path: Path) -> None:
    artifact = build(breakers.one_channel(tmp_path / "model.onnx"), "ort-int8", tmp_path)
    search = artifact.manifest.recipe["search"]
    layers = {entry["layer"]: entry for entry in search["float_layers"]}
    assert {"loud", "reader"} <= set(layers)
    assert search["float_layers_timed_by"].startswith("profile of onnxruntime")
    for entry in (layers["loud"], layers["reader"]):
        assert 0 < entry["work_share"] < 0.5
        assert entry["cost_us"] == pytest.approx(entry["float_us"] - entry["quantized_us"], rel=0.01, abs=0.01)
    assert layers["loud"]["noise"] > 0.5, "all channels but one are gone"
    note = next(note for note in artifact.manifest.notes if "left in float" in note)
    assert "loud (" in note
    assert "us for it, by the profile of onnxruntime" in note
    shown = CliRunner().invoke(inspect, [str(artifact.directory)]).output
    assert re.search(r"in float +loud: .* us, .* us quantized", shown)


@pytest.mark.slow
def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        artifact = build(breakers.big_bias(folder / "model.onnx"), "ort-int8", folder)
        assert artifact.manifest.recipe["search"]["float_layers"], "it was searched and repaired"
        made.append((artifact.directory / artifact.manifest.model_file).read_bytes())
    assert made[0] == made[1]
