"""One suite against every target in the table: builds a small model for real, loads it, runs it, measures it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from modelwright.core.artifact import open_artifact, verify_files
from modelwright.core.errors import BadInputError
from modelwright.core.samples import SampleRef, open_samples
from modelwright.harness.building import build_targets
from modelwright.harness.effort import Effort
from modelwright.harness.measuring import measure_artifacts
from modelwright.harness.runner import MeasureSettings
from modelwright.profiles import detect_host
from modelwright.targets import get_target, target_names
from modelwright.targets.base import RunSettings

REQUIRED = os.environ.get("CI") == "true"
"""In CI every toolchain must be there; elsewhere an absent one skips its tests."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("contract")
    return {
        "onnx": models.make_cnn(folder / "cnn.onnx"),
        "program": f"{Path(models.__file__).with_name('torch_cnn.py')}:create",
        "samples": models.make_samples(folder / "samples.npz", x=(3, 12, 12)),
        "out": folder / "artifacts",
    }


def find_source(name: str, workplace: dict[str, Any]) -> Any:
    """The same network as ONNX or, for targets that run the PyTorch program, as a module."""
    return workplace["program" if get_target(name).record.uses_program else "onnx"]


@pytest.fixture(scope="module", params=target_names())
def built(request: pytest.FixtureRequest, workplace: dict[str, Path]):
    name = request.param
    host = detect_host().machine()
    if "cpu" not in get_target(name).record.devices and host.gpu is None:
        pytest.skip("needs an NVIDIA GPU")
    for readiness in (get_target(name).check_build(host), get_target(name).check_run(host)):
        if not readiness.ok:
            hardware = "instruction" in (readiness.reason or "") or "bf16" in (readiness.reason or "")
            if REQUIRED and not hardware:
                pytest.fail(f"CI must have what {name} needs: {readiness.reason}")
            pytest.skip(f"{name}: {readiness.reason}")
    result = build_targets(
        find_source(name, workplace), samples=workplace["samples"], out=workplace["out"], targets=[name], overwrite=True
    )
    assert not result.absent, result.absent[0].error.message
    return name, result.artifacts[name], workplace


def test_manifest_says_what_was_built(built) -> None:
    name, artifact, _ = built
    manifest = artifact.manifest
    assert manifest.target == name
    assert artifact.model_path.is_file()
    assert manifest.size_bytes > 0
    assert manifest.versions
    assert manifest.recipe
    assert manifest.samples["evaluation"]["count"] == 32
    assert artifact.reference_path is not None
    verify_files(open_artifact(artifact.directory))


def test_outputs_follow_fp32_by_value(built) -> None:
    name, artifact, _ = built
    fidelity = artifact.manifest.proof["fidelity"]
    limit = 0.9999 if get_target(name).record.is_float else 0.99
    assert fidelity["cosine"] >= limit
    assert fidelity["agreement"] >= 0.9


def load(artifact):
    manifest = artifact.manifest
    return get_target(manifest.target).load(
        artifact.directory, manifest.model_file, manifest.recipe, manifest.signature, RunSettings(threads=1)
    )


def test_session_speaks_the_signature_and_keeps_nothing_between_runs(built) -> None:
    _, artifact, workplace = built
    samples = open_samples(SampleRef(path=workplace["samples"]), artifact.manifest.signature)
    first, second = list(samples.feeds(limit=2))
    with load(artifact) as session:
        before = session.run(first)
        assert {name: (value.shape, str(value.dtype)) for name, value in before.items()} == {"y": ((1, 5), "float32")}
        kept = before["y"].copy()
        session.run(second)
        np.testing.assert_array_equal(before["y"], kept, err_msg="an output changed under the caller's hands")
        np.testing.assert_array_equal(session.run(first)["y"], kept)


def test_dynamic_batch_gives_the_rows_of_single_runs(built) -> None:
    _, artifact, workplace = built
    samples = open_samples(SampleRef(path=workplace["samples"]), artifact.manifest.signature)
    with load(artifact) as session:
        singles = np.concatenate([session.run(feeds)["y"] for feeds in samples.feeds(limit=4)])
        batched = session.run(samples.batch([0, 1, 2, 3]))["y"]
        again = session.run(next(samples.feeds()))["y"]
    # Dynamic quantization takes its scale from the whole batch: near, not equal.
    assert np.abs(batched - singles).max() <= 0.08 * np.abs(singles).max()
    np.testing.assert_allclose(again, singles[:1], rtol=1e-5, atol=1e-5)


def test_bound_call_runs_and_execution_is_read_back(built) -> None:
    _, artifact, workplace = built
    samples = open_samples(SampleRef(path=workplace["samples"]), artifact.manifest.signature)
    with load(artifact) as session:
        calls = [session.bind(feeds) for feeds in samples.feeds(limit=3)]
        for call in calls * 2:
            call()
        executed = session.describe_execution()
    assert executed["precision"]
    assert executed["source"]


def test_it_is_measured_in_a_process_of_its_own(built) -> None:
    name, artifact, _ = built
    host = detect_host()
    effort = Effort(name="test", rounds=6, window_s=0.02)
    result = measure_artifacts(
        {name: artifact}, MeasureSettings(effort=effort), host, host, samples=None, prove=True
    ).by_name[name]
    assert result.failure is None
    assert len(result.windows) == 6
    assert result.opened["load_ms"] > 0
    assert result.finished["peak_memory_bytes"] > result.opened["runtime_bytes"] * 0.5
    assert result.proof["packed"]["fidelity"]["cosine"] > 0.9


def test_a_changed_file_is_never_loaded(built, tmp_path: Path) -> None:
    import shutil

    name, artifact, _ = built
    copy = tmp_path / "copy"
    shutil.copytree(artifact.directory, copy)
    with (copy / artifact.manifest.model_file).open("ab") as file:
        file.write(b"\0")
    host = detect_host()
    effort = Effort(name="test", rounds=1, window_s=0.01)
    result = measure_artifacts(
        {name: open_artifact(copy)}, MeasureSettings(effort=effort), host, host, samples=None
    ).by_name[name]
    assert isinstance(result.failure, BadInputError)
    assert "was changed" in result.failure.message


def test_second_build_reuses_and_a_change_of_samples_does_not(built, tmp_path: Path) -> None:
    name, artifact, workplace = built
    again = build_targets(
        find_source(name, workplace), samples=workplace["samples"], out=workplace["out"], targets=[name]
    )
    assert again.reused[name]
    assert again.artifacts[name].manifest.created == artifact.manifest.created
    if not get_target(name).record.uses_samples:
        return
    other = models.make_samples(tmp_path / "other.npz", count=40, x=(3, 12, 12))
    with pytest.raises(BadInputError, match="not built from these inputs"):
        build_targets(find_source(name, workplace), samples=other, out=workplace["out"], targets=[name])
    assert open_artifact(artifact.directory).manifest.created == artifact.manifest.created


def test_record_is_complete(built) -> None:
    name, _, _ = built
    record = get_target(name).record
    assert record.name == name
    assert name == f"{record.runtime}-{record.precision}"
    assert record.is_float == (not record.precision.startswith("int"))
    assert replace(record, name="x").name == "x"
