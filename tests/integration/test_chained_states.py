"""Recurrent models in real toolchains: what fifty steps do to a state, and what is said of evidence that is none."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import recurrent_models
from onnx import TensorProto, helper

from modelwright.core.errors import BadInputError, BuildFailedError, ToolchainMissingError, UsageError
from modelwright.core.outputs.states import State
from modelwright.core.records.artifact import Artifact, Proof
from modelwright.exporters import export
from modelwright.harness.building import build_targets, summarize_build
from modelwright.harness.measuring import measure
from modelwright.profiles import detect_host
from modelwright.targets import get_target
from modelwright.targets.building.evidence import prepare_evidence
from modelwright.targets.building.proof_files import hash_built
from modelwright.targets.building.prove import prove

pytest.importorskip("onnxruntime")

TASK = "y=regression"


@dataclass
class Stream:
    """A streaming GRU, what its steps begin with, and the same inputs with other states."""

    model: Path
    samples: Path
    without_state: Path
    small_state: Path


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    folder = tmp_path_factory.mktemp("stream")
    model = recurrent_models.make_gru_step(folder / "step.onnx")
    samples = recurrent_models.make_stream(folder / "stream.npz", model)
    arrays = dict(np.load(samples))
    np.savez(folder / "zero.npz", x=arrays["x"], h=np.zeros_like(arrays["h"]))
    np.savez(folder / "small.npz", x=arrays["x"], h=arrays["h"] / 20)
    return Stream(model=model, samples=samples, without_state=folder / "zero.npz", small_state=folder / "small.npz")


class Said:
    """Keeps what a build says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, task: str, text: str) -> None: ...
    def say(self, task: str, text: str) -> None: ...
    def advance(self, task: str, done: int, total: int) -> None: ...

    def finish(self, task: str, text: str, *, ok: bool = True) -> None:
        del task, ok
        self.lines.append(text)


def build(target: str, model: Path, samples: Path, out: Path, **settings: Any) -> Artifact:
    try:
        return build_targets(model, samples=samples, out=out, targets=[target], **settings).artifacts[target]
    except ToolchainMissingError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(error.message)


@pytest.mark.parametrize(
    "target",
    [
        "ort-fp32",
        "ort-int8",
        "ort-int8-dynamic",
        pytest.param("openvino-int8", marks=pytest.mark.slow),
        pytest.param("tflite-int8", marks=pytest.mark.slow),
    ],
)
def test_a_state_that_was_calibrated_is_kept(target: str, stream: Stream, tmp_path: Path) -> None:
    artifact = build(target, stream.model, stream.samples, tmp_path / "out", task=TASK)
    proof = artifact.manifest.proof
    assert proof is not None
    assert proof.roles is not None
    assert (proof.roles["hn"].role, proof.roles["hn"].why) == ("state", "it feeds the next step")
    chain = proof.chain
    assert chain is not None
    assert (chain.states, chain.steps, chain.chains) == ((State(output="hn", input="h"),), 50, 8)
    assert chain.fidelity is not None
    assert chain.fidelity.cosine is not None
    assert chain.fidelity.cosine > 0.99
    assert proof.fidelity.task is not None
    assert proof.fidelity.task.severity < 2.0
    assert {"noise", "chained_noise"} <= {check.measure for check in proof.fidelity.task.checks}
    assert "after 50 steps" in summarize_build(artifact, reused=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("samples", "hint", "doubt"),
    [
        (
            "without_state",
            "h is the same in all samples, so nothing else was calibrated on",
            "input h is the same in all samples",
        ),
        ("small_state", "when FP32 is fed with its own, which was not calibrated on", "h holds values up to 0.0"),
    ],
)
def test_a_state_that_was_never_calibrated_is_refused_and_the_hint_helps(
    samples: str, hint: str, doubt: str, stream: Stream, tmp_path: Path
) -> None:
    said = Said()
    with pytest.raises(BuildFailedError, match="its outputs do not follow FP32") as caught:
        build("openvino-int8", stream.model, getattr(stream, samples), tmp_path / "out", task=TASK, progress=said)
    assert hint in str(caught.value.hint)
    assert "Run the model over a stream" in str(caught.value.hint)
    assert any(line.startswith(doubt) for line in said.lines)
    build("openvino-int8", stream.model, stream.samples, tmp_path / "other", task=TASK)


def prove_as(model: Path, stream: Stream, folder: Path) -> Proof:
    """Proves another model's file as an artifact of the stream's model."""
    exported = export(stream.model, folder / "model.onnx")
    evidence = prepare_evidence(exported, stream.samples, folder / "reference", tasks={"y": "regression"})
    directory = folder / "artifact"
    directory.mkdir()
    shutil.copy(model, directory / "model.onnx")
    proof, reason = prove(
        get_target("ort-fp32"),
        {"model_file": "model.onnx", "recipe": {}, "requires": {}},
        directory,
        exported,
        evidence,
        detect_host().machine(),
        detect_host().machine(),
        1,
        lambda _text: None,
        files=hash_built("ort-fp32", directory),
        answers=None,
    )
    assert reason is None
    assert proof is not None
    return proof


@pytest.mark.slow
def test_a_state_that_decays_is_found_after_many_steps(stream: Stream, tmp_path: Path) -> None:
    """A 25th of what is held is lost a step: warned of. A fifth: refused. FP32 itself: neither."""
    same = prove_as(recurrent_models.make_gru_step(tmp_path / "same.onnx"), stream, tmp_path / "a")
    assert same.chain is not None
    assert same.chain.fidelity is not None
    assert same.chain.fidelity.task is not None
    assert same.chain.fidelity.task.severity < 0.01
    warned = prove_as(recurrent_models.make_gru_step(tmp_path / "slow.onnx", keep=0.96), stream, tmp_path / "b")
    assert warned.chain is not None
    assert warned.chain.worst is not None
    assert 1.0 < warned.chain.worst.severity < 2.0
    assert warned.fidelity.task is not None
    assert warned.fidelity.task.worst is not None
    assert warned.fidelity.task.worst.measure.startswith("chained_")
    with pytest.raises(BuildFailedError, match="after 50 steps fed with its own state, output ") as caught:
        prove_as(recurrent_models.make_gru_step(tmp_path / "fast.onnx", keep=0.8), stream, tmp_path / "c")
    assert "add up in its state" in str(caught.value.hint)


@pytest.mark.slow
def test_measuring_keeps_the_proof_over_many_steps(stream: Stream, tmp_path: Path) -> None:
    artifact = build("ort-int8", stream.model, stream.samples, tmp_path / "out", task=TASK)
    (row,) = measure([artifact.directory], effort="quick").measurements
    assert artifact.manifest.proof is not None
    assert row.chain == artifact.manifest.proof.chain is not None
    assert row.fidelity == artifact.manifest.proof.fidelity


def test_states_are_given_by_name(tmp_path: Path) -> None:
    model = recurrent_models.make_gru_step(tmp_path / "m.onnx", state="before", next_state="after")
    samples = recurrent_models.make_stream(tmp_path / "s.npz", model, state="before", next_state="after", count=40)
    out = tmp_path / "out"
    first = build("ort-fp32", model, samples, out)
    assert first.manifest.proof is not None
    assert first.manifest.proof.chain is None
    again = build("ort-fp32", model, samples, out, states=["after=before"])
    assert again.manifest.created == first.manifest.created, "the files are the same"
    assert again.manifest.proof is not None
    assert again.manifest.proof.chain is not None
    assert again.manifest.proof.chain.states == (State(output="after", input="before"),)
    with pytest.raises(UsageError, match="the model has no output 'afer'") as caught:
        build("ort-fp32", model, samples, out, states=["afer=before"])
    assert "outputs: y, after; inputs: x, before" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"y float32 \[batch, 4\]"):
        build("ort-fp32", model, samples, out, states=["y=before"])


def test_a_cache_that_grows_is_named_and_not_chained(tmp_path: Path) -> None:
    model = models.save(
        tmp_path / "cache.onnx",
        [
            helper.make_node("Concat", ["past", "x"], ["present"], axis=1),
            helper.make_node("ReduceMean", ["present"], ["y"], axes=[1], keepdims=0),
        ],
        [("x", TensorProto.FLOAT, ["batch", 1, 4]), ("past", TensorProto.FLOAT, ["batch", "held", 4])],
        [("y", TensorProto.FLOAT, ["batch", 4]), ("present", TensorProto.FLOAT, ["batch", "seen", 4])],
        {},
    )
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "s.npz", x=rng.normal(0, 1, (32, 1, 4)), past=rng.normal(0, 1, (32, 3, 4)))
    said = Said()
    artifact = build("ort-fp32", model, tmp_path / "s.npz", tmp_path / "out", progress=said)
    assert artifact.manifest.proof is not None
    assert artifact.manifest.proof.chain is None
    (sentence,) = [line for line in said.lines if "present" in line]
    assert "[1, 4, 4]" in sentence
    assert "[1, 3, 4]" in sentence
    with pytest.raises(UsageError, match="present comes out as"):
        build("ort-fp32", model, tmp_path / "s.npz", tmp_path / "out", states=["present=past"])


def make_scale(path: Path, factor: float) -> Path:
    """y = log(factor * x), a model without a number where the factor is negative and x is not."""
    nodes = [helper.make_node("Mul", ["x", "factor"], ["scaled"]), helper.make_node("Log", ["scaled"], ["y"])]
    value = [("x", TensorProto.FLOAT, ["batch", 4])]
    return models.save(path, nodes, value, [("y", TensorProto.FLOAT, ["batch", 4])], {"factor": np.float32([factor])})


def test_a_model_without_a_number_is_no_perfect_one(tmp_path: Path) -> None:
    samples = tmp_path / "s.npz"
    np.savez(samples, x=np.random.default_rng(0).uniform(1, 2, (40, 4)).astype(np.float32))
    with pytest.raises(BadInputError, match="gives no finite number on any of the 20 samples: output y is NaN"):
        build("ort-fp32", make_scale(tmp_path / "m.onnx", -1.0), samples, tmp_path / "out")
    assert build("ort-fp32", make_scale(tmp_path / "good.onnx", 1.0), samples, tmp_path / "good").manifest.proof


@pytest.mark.slow
def test_a_copy_of_the_samples_does_not_judge(tmp_path: Path) -> None:
    model = models.make_cnn(tmp_path / "cnn.onnx")
    samples = models.make_samples(tmp_path / "s.npz", count=32, labelled=False, x=(3, 12, 12))
    x = np.load(samples)["x"]
    shutil.copy(samples, tmp_path / "copy.npz")
    np.savez(tmp_path / "reordered.npz", x=x[::-1])
    np.savez_compressed(tmp_path / "wide.npz", x=x.astype(np.float64))
    for name in ("copy", "reordered", "wide"):
        with pytest.raises(BadInputError, match="all 32 samples of --eval are those of --samples"):
            build("ort-fp32", model, samples, tmp_path / "out", evaluation=tmp_path / f"{name}.npz")
    np.savez(tmp_path / "part.npz", x=np.concatenate([x[:8], x[:24] + 0.5]))
    said = Said()
    build("ort-fp32", model, samples, tmp_path / "out", evaluation=tmp_path / "part.npz", progress=said)
    assert any(line.startswith("8 of the 32 evaluation samples are also among those") for line in said.lines)
    np.savez(tmp_path / "others.npz", x=x + 0.5)
    said = Said()
    build("ort-fp32", model, samples, tmp_path / "out", evaluation=tmp_path / "others.npz", progress=said)
    assert not any("evaluation samples are also" in line for line in said.lines)
