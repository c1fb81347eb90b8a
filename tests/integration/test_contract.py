"""One suite against every target in the table: builds a small model for real, loads it, runs it, measures it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from modelwright.core.errors import BadInputError, ModelwrightError
from modelwright.core.records.artifact import Artifact, open_artifact, verify_files
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.harness.building import Built, build_targets
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.measure_artifacts import measure_artifacts
from modelwright.harness.run.runner import MeasureSettings
from modelwright.profiles import detect_host
from modelwright.targets import get_target, target_names
from modelwright.targets.contract import RunSettings
from modelwright.targets.snippets import choose_shape

REQUIRED = os.environ.get("CI") == "true"
"""In CI every toolchain must be there; elsewhere an absent one skips its tests."""


@dataclass
class Workplace:
    """One network from two sources, as ONNX and as a PyTorch module; all targets of a source are built together."""

    sources: dict[bool, str | Path]
    samples: Path
    other_samples: Path
    out: Path
    names: list[str]
    done: dict[tuple[str, bool], Built | ModelwrightError] = field(default_factory=dict)

    def build(
        self, step: str, name: str, samples: Path, *, copied: bool = False, **settings: Any
    ) -> Built | ModelwrightError:
        """Builds all targets of a target's source, once for each step; in a copy where the artifacts are to stay."""
        program = get_target(name).record.uses_program
        if (step, program) not in self.done:
            out = self.out / str(program)
            if copied:
                out = Path(shutil.copytree(out, self.out / step / str(program)))
            names = [each for each in self.names if get_target(each).record.uses_program == program]
            try:
                self.done[step, program] = build_targets(
                    self.sources[program], samples=samples, out=out, targets=names, **settings
                )
            except ModelwrightError as error:
                self.done[step, program] = error
        return self.done[step, program]


@pytest.fixture(scope="module")
def workplace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("contract")
    chosen = {item.callspec.params.get("built") for item in request.session.items if hasattr(item, "callspec")}
    return Workplace(
        sources={
            False: models.make_cnn(folder / "cnn.onnx"),
            True: f"{Path(models.__file__).with_name('torch_cnn.py')}:create",
        },
        samples=models.make_samples(folder / "samples.npz", x=(3, 12, 12)),
        other_samples=models.make_samples(folder / "other.npz", count=40, x=(3, 12, 12)),
        out=folder / "artifacts",
        names=[name for name in target_names() if name in chosen and explain_unready(name) is None],
    )


def explain_unready(name: str) -> str | None:
    """Returns why a target cannot be built and run here; None if it can."""
    host = detect_host().machine()
    target = get_target(name)
    if "cpu" not in target.record.devices and host.gpu is None:
        return "needs an NVIDIA GPU"
    unready = [check for check in (target.check_build(host), target.check_run(host)) if not check.ok]
    return f"{name}: {unready[0].reason}" if unready else None


def mark_slow(name: str) -> Any:
    """Marks what takes long: PyTorch's targets but the plainest, which may compile as they load; weights by NNCF."""
    is_slow = (name.startswith("torch-") and name != "torch-fp32") or name.endswith("-weights")
    return pytest.param(name, marks=[pytest.mark.slow] if is_slow else [])


@pytest.fixture(scope="module", params=[mark_slow(name) for name in target_names()])
def built(request: pytest.FixtureRequest, workplace: Workplace) -> tuple[str, Artifact, Workplace]:
    name = request.param
    reason = explain_unready(name)
    if reason is not None:
        hardware = any(word in reason for word in ("instruction", "bf16", "GPU"))
        if REQUIRED and not hardware:
            pytest.fail(f"CI must have what it needs: {reason}")
        pytest.skip(reason)
    result = workplace.build("first", name, workplace.samples, overwrite=True)
    assert isinstance(result, Built), result
    failures = {absent.target: absent.error.message for absent in result.absent}
    assert name in result.artifacts, failures.get(name)
    return name, result.artifacts[name], workplace


def test_manifest_says_what_was_built(built) -> None:
    name, artifact, _ = built
    manifest = artifact.manifest
    assert manifest.target == name
    assert artifact.model_path.is_file()
    assert manifest.size_bytes > 0
    assert manifest.versions
    assert manifest.recipe
    assert manifest.samples.evaluation.count == 32
    assert artifact.reference_path is not None
    verify_files(open_artifact(artifact.directory))


def test_outputs_follow_fp32_by_value(built) -> None:
    name, artifact, _ = built
    fidelity = artifact.manifest.proof.fidelity
    limit = 0.9999 if get_target(name).record.is_float else 0.99
    assert fidelity.cosine >= limit
    # Of an untrained network, whose answers are close calls.
    assert fidelity.agreement >= (0.8 if "int4" in get_target(name).record.precision else 0.9)


def load(artifact, settings: RunSettings = RunSettings(threads=1)):  # noqa: B008 - frozen
    manifest = artifact.manifest
    return get_target(manifest.target).load(
        artifact.directory, manifest.model_file, manifest.recipe, manifest.signature, settings
    )


def test_session_speaks_the_signature_and_keeps_nothing_between_runs(built) -> None:
    _, artifact, workplace = built
    samples = open_samples(SampleRef(path=workplace.samples), artifact.manifest.signature)
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
    samples = open_samples(SampleRef(path=workplace.samples), artifact.manifest.signature)
    with load(artifact) as session:
        singles = np.concatenate([session.run(feeds)["y"] for feeds in samples.feeds(limit=4)])
        batched = session.run(samples.batch([0, 1, 2, 3]))["y"]
        again = session.run(next(samples.feeds()))["y"]
    # Dynamic quantization takes its scale from the whole batch: near, not equal.
    assert np.abs(batched - singles).max() <= 0.08 * np.abs(singles).max()
    np.testing.assert_allclose(again, singles[:1], rtol=1e-5, atol=1e-5)


def test_bound_call_runs_and_execution_is_read_back(built) -> None:
    name, artifact, workplace = built
    samples = open_samples(SampleRef(path=workplace.samples), artifact.manifest.signature)
    with load(artifact) as session:
        calls = [session.bind(feeds) for feeds in samples.feeds(limit=3)]
        for call in calls * 2:
            call()
        executed = session.describe_execution()
    if not get_target(name).record.has_profiler:
        assert executed["precision"]
        assert executed["source"]


def test_operators_are_profiled(built) -> None:
    name, artifact, workplace = built
    if not get_target(name).record.has_profiler:
        pytest.skip(f"{name} has no profiler of operators")
    rows = open_samples(SampleRef(path=workplace.samples), artifact.manifest.signature).feeds()
    # In one inference: single ones of so small a network take less than a tick of some profilers' clocks.
    feeds = {"x": np.concatenate([row["x"] for row in rows])}
    profiles = []
    for times in (1, 16):
        with load(artifact, RunSettings(profiled=True)) as session:
            profile = session.profile_operators({"x": np.tile(feeds["x"], (times, 1, 1, 1))})
        assert profile is not None
        profiles.append(profile)
    profile, more = profiles
    assert more.operators_us > 4 * profile.operators_us, "the profile is of these inputs, not of the file's own shape"
    assert profile.inferences >= 3
    assert profile.operators_us > 0
    assert sum(entry.share for entry in profile.types) == pytest.approx(1)
    assert sum(entry.count for entry in profile.types) == profile.count
    assert profile.main_precision() in ("fp32", "fp16", "bf16", "int8")
    assert any(entry.kind == "compute" for entry in profile.types)


def run_apart(call: Callable[[], Any]) -> Any:
    """Runs in a thread of its own: denormals that once count as zero do so in their thread, 5e-324 for one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


def test_each_setting_is_taken_and_the_answers_stay(built) -> None:
    name, artifact, workplace = built
    settings = get_target(name).record.settings
    feeds = next(open_samples(SampleRef(path=workplace.samples), artifact.manifest.signature).feeds())

    def run_all() -> None:
        with load(artifact) as session:
            expected = session.run(feeds)["y"]
        for option in settings:
            for value in option.candidates[1:]:
                with load(artifact, RunSettings(threads=2, options={option.name: value})) as session:
                    answer = session.run(feeds)["y"]
                assert np.abs(answer - expected).max() <= 0.08 * np.abs(expected).max(), f"{option.name}={value}"
        if settings:
            chosen = {option.name: option.candidates[-1] for option in settings}
            with load(artifact, RunSettings(threads=2, options=chosen)) as session:
                session.run(feeds)
                assert len(session.describe_execution()["settings"]) == len(chosen), "each is read back"

    run_apart(run_all)


def test_several_callers_at_a_time_get_their_answers(built) -> None:
    _, artifact, workplace = built
    samples = open_samples(SampleRef(path=workplace.samples), artifact.manifest.signature)
    first, second = list(samples.feeds(limit=2))
    with load(artifact, RunSettings(threads=1, requests=2)) as session:
        other = session.share()
        if other is None:
            pytest.skip("it is loaded again for each caller")
        expected = [session.run(first)["y"], session.run(second)["y"]]
        with ThreadPoolExecutor(2) as callers:
            calls = callers.map(
                lambda one: [one[0].run(one[1])["y"] for _ in range(20)], [(session, first), (other, second)]
            )
            answers = list(calls)
    for index, own in enumerate(answers):
        for answer in own:
            np.testing.assert_allclose(answer, expected[index], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("requests", [1, 2])
def test_the_program_of_an_artifact_gives_the_answers_of_its_session(
    built, monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    name, artifact, _ = built
    manifest, target = artifact.manifest, get_target(name)
    # Of each setting the last value that a search tries: every line that a program may have is run.
    options = {option.name: option.candidates[-1] for option in target.record.settings}
    settings = RunSettings(threads=1, requests=requests, options=options)
    text = target.write_snippet("python", manifest.model_file, manifest.recipe, manifest.signature, settings)
    if text is None:
        pytest.skip("its target writes none")
    monkeypatch.chdir(artifact.directory)
    ran: dict[str, Any] = {}
    (spec,) = manifest.signature.inputs

    def run_both() -> Any:
        exec(compile(text, "snippet.py", "exec"), ran)
        with load(artifact, settings) as session:
            return session.run({spec.name: np.zeros(choose_shape(spec), spec.dtype)})["y"]

    expected = run_apart(run_both)
    outputs = ran["outputs"]
    found = outputs[0] if isinstance(outputs, list) else outputs
    found = found["y"] if isinstance(found, dict) else found
    np.testing.assert_allclose(np.asarray(found).reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("requests", [1, 2])
def test_the_program_in_cpp_compiles_and_runs(built, compile_cpp: Callable[[str], Path], requests: int) -> None:
    """Against the headers and libraries of OpenVINO's package; the others' packages bring none."""
    name, artifact, _ = built
    if get_target(name).record.runtime != "openvino" or shutil.which("g++") is None:
        pytest.skip("needs g++ and a runtime whose package has its headers")
    manifest, target = artifact.manifest, get_target(name)
    options = {option.name: option.candidates[-1] for option in target.record.settings}
    settings = RunSettings(threads=1, requests=requests, options=options | {"core-type": "any"})
    text = target.write_snippet("cpp", manifest.model_file, manifest.recipe, manifest.signature, settings)
    assert text is not None
    subprocess.run([str(compile_cpp(text))], check=True, cwd=artifact.directory, timeout=120)


def test_it_is_measured_in_a_process_of_its_own(built) -> None:
    name, artifact, _ = built
    host = detect_host()
    effort = Effort(name="test", rounds=6, window_s=0.02)
    result = measure_artifacts(
        {name: artifact}, MeasureSettings(effort=effort), host, host, samples=None, prove=True
    ).by_name[name]
    assert result.failure is None
    assert len(result.windows) == 6
    assert result.opened.load_ms > 0
    assert result.finished.peak_memory_bytes > result.opened.runtime_bytes * 0.5
    assert result.proof.packed.fidelity.cosine > 0.9


def test_a_changed_file_is_never_loaded(built, tmp_path: Path) -> None:
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


def find_error(built: Built, name: str) -> ModelwrightError:
    return next(absent.error for absent in built.absent if absent.target == name)


def test_second_build_reuses_and_a_change_of_samples_does_not(built) -> None:
    name, artifact, workplace = built
    again = workplace.build("again", name, workplace.samples)
    assert isinstance(again, Built), again
    assert again.reused[name]
    assert again.artifacts[name].manifest.created == artifact.manifest.created
    other = workplace.build("other samples", name, workplace.other_samples, copied=True)
    if get_target(name).record.uses_samples:
        # Where none of the targets could be reused, the reasons of all stand in the detail of one error.
        told = f"{other}\n{other.detail}" if isinstance(other, ModelwrightError) else str(find_error(other, name))
        assert "not built from these inputs" in told
    else:
        assert isinstance(other, Built), other
        assert other.reused[name]
        judging = other.artifacts[name].manifest
        assert judging.samples.evaluation is not None
        assert judging.samples.evaluation.path == workplace.other_samples.name, "those that the new proof is on"
    assert open_artifact(artifact.directory).manifest.created == artifact.manifest.created


def test_record_is_complete(built) -> None:
    name, _, _ = built
    record = get_target(name).record
    assert record.name == name
    assert name == f"{record.runtime}-{record.precision}"
    assert record.is_float == (not record.precision.startswith("int"))
    assert replace(record, name="x").name == "x"
