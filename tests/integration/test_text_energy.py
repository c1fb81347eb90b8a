"""The study of text models, from a folder of transformers to the table: models that look both ways, and back only."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="its models")
pytest.importorskip("onnxruntime", reason="its artifacts")

from language_models import make_language_folder
from text_studies import ROWS, ask, make_encoder, write_texts

from modelwright.core.errors import BadInputError, MeasurementInvalidError
from modelwright.core.process.child import Child
from modelwright.core.records.artifact import open_artifact
from modelwright.core.records.codec import encode
from modelwright.core.samples.sample_set import SampleRef
from modelwright.examples.text_energy import study
from modelwright.examples.text_energy.prepare import EVALUATION, TIMED, prepare_in_child
from modelwright.examples.text_energy.study import Asked, run_study
from modelwright.examples.text_energy.trial import Trial, write_trial


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts") / "data")


def prepare(model: Path, data: Path, out: Path) -> dict[str, Any]:
    out.mkdir()
    return prepare_in_child(str(model), str(data), str(out), None, 512, 64)


def count_right(model: Path, out: Path) -> tuple[int, int]:
    """Returns right answers of PyTorch, and all of them, on the texts that judge; padding must not be seen."""
    import torch

    from modelwright.examples.text_energy.classifier import load_source

    with np.load(out / EVALUATION) as packed:
        ids, mask, labels = (torch.from_numpy(packed[name]) for name in ("input_ids", "attention_mask", "labels"))
    classifier, _ = load_source(model, out, ids.shape[1])
    with torch.no_grad():
        logits = classifier(ids, mask)
        for row in range(4):
            alone = classifier(ids[row : row + 1, : int(mask[row].sum())], mask[row : row + 1, : int(mask[row].sum())])
            assert torch.allclose(alone[0], logits[row], rtol=1e-3, atol=1e-4)
    return int((logits.argmax(1) == labels).sum()), len(labels)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_a_head_is_fitted_on_what_the_body_says_of_a_text(tmp_path: Path, data: Path, kind: str) -> None:
    folder = tmp_path / kind
    model = make_encoder(folder) if kind == "bert" else make_language_folder(folder, kind)
    found = prepare(model, data, tmp_path / "inputs")
    assert (found["classes"], found["fitted"], found["cut"]) == (2, 48, 0)
    right, count = count_right(model, tmp_path / "inputs")
    assert count == ROWS // 2
    assert right / count > 0.8, "the letters of the classes differ, and random features show them"


def test_a_body_is_tried_for_what_it_sees(tmp_path: Path) -> None:
    from modelwright.examples.text_energy.classifier import load_body, looks_back_only

    assert looks_back_only(load_body(make_language_folder(tmp_path / "gpt2", "gpt2")))
    assert not looks_back_only(load_body(make_encoder(tmp_path / "bert")))


def test_a_model_that_classifies_keeps_its_head(tmp_path: Path, data: Path) -> None:
    model = make_encoder(tmp_path / "model", classes=2)
    found = prepare(model, data, tmp_path / "inputs")
    assert found["fitted"] == 0
    assert not (tmp_path / "inputs/head.safetensors").exists()
    count_right(model, tmp_path / "inputs")
    other = tmp_path / "other"
    shutil.copytree(data, other)
    (other / "test.csv").write_text("text,label\nabc,third\n")
    with pytest.raises(BadInputError, match=r"has the label third, which .*model does not know"):
        prepare_in_child(str(model), str(other), str(tmp_path), None, 512, 64)


def test_what_cannot_be_prepared_is_refused(tmp_path: Path, data: Path) -> None:
    model = make_encoder(tmp_path / "model")
    with pytest.raises(BadInputError, match="reads 64 tokens, not 65"):
        prepare_in_child(str(model), str(data), str(tmp_path), 65, 512, 64)
    with pytest.raises(BadInputError, match="of which 10 are left to fit a head on"):
        prepare_in_child(str(model), str(data), str(tmp_path), None, 512, 10)
    (model / "tokenizer.json").unlink()
    with pytest.raises(BadInputError, match=r"has no tokenizer\.json"):
        prepare_in_child(str(model), str(data), str(tmp_path), None, 512, 64)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Asked, Path, list[Trial]]:
    place = tmp_path_factory.mktemp("study")
    asked = ask(make_encoder(place / "tiny"), data)
    return asked, place / "out", run_study(asked, place / "out")


@pytest.mark.slow
def test_a_study_leaves_a_file_and_a_row_a_trial(studied: tuple[Asked, Path, list[Trial]]) -> None:
    asked, out, trials = studied
    assert [(trial.target, trial.batch, trial.trial, trial.status) for trial in trials] == [
        ("ort-fp32", 1, 1, "measured"),
        ("ort-int8-dynamic", 1, 1, "measured"),
    ]
    with (out / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["target"] for row in rows] == [trial.target for trial in trials]
    fp32 = trials[0]
    right, _ = count_right(asked.model, out / "inputs")
    assert fp32.evaluated == 40
    assert fp32.correct is not None
    assert abs(fp32.correct - right) <= 8, "40 of the 48 were judged"
    assert fp32.accuracy == fp32.correct / 40
    for trial in trials:
        assert None not in (trial.latency_mean_ms, trial.latency_std_ms, trial.latency_min_ms, trial.latency_max_ms)
        assert trial.inferences
        assert trial.warm_up_steps
        assert trial.parameters
        assert trial.size_bytes
        assert trial.dtype
        metered = trial.energy_source is not None
        assert metered or "energy" in (trial.unavailable or {})
        assert (trial.power_samples is not None) is metered


@pytest.mark.slow
def test_a_trial_that_is_there_is_not_run_again(
    studied: tuple[Asked, Path, list[Trial]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, out, trials = studied
    measured: list[tuple[int, int]] = []
    real = study.measure

    def watch(directories: Any, **settings: Any) -> Any:
        measured.append((len(directories), settings["batch"]))
        return real(directories, **settings)

    monkeypatch.setattr(study, "measure", watch)
    gone = Trial(model="tiny", device="cpu", target="ort-fp32", runtime="ort", precision="fp32", status="failed")
    write_trial(out / "trials", gone)  # could not be built then, and can be now
    assert run_study(asked, out) == trials
    assert measured == []
    (out / "trials/cpu-ort-fp32-batch1-trial1.json").unlink()
    more = run_study(replace(asked, batches=(1, 2)), out)
    assert measured == [(1, 1), (2, 2)]
    assert [trial.batch for trial in more] == [1, 2, 1, 2]

    def fail(directories: Any, **settings: Any) -> Any:
        measured.append((len(directories), settings["batch"]))
        raise MeasurementInvalidError("no memory for that")

    monkeypatch.setattr(study, "measure", fail)
    for _ in range(2):  # what failed is tried again, what was measured is not
        failed = run_study(replace(asked, batches=(1, 3)), out)
        assert {trial.reason for trial in failed if trial.status == "failed"} == {"no memory for that"}
        assert sum(trial.status == "measured" for trial in failed) == 4
    assert measured[2:] == [(2, 3), (2, 3)]
    with pytest.raises(BadInputError, match="holds trials of effort quick, not standard"):
        run_study(replace(asked, effort="standard"), out)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort-fp32", "ort-int8-dynamic"])
def test_every_input_is_there_before_the_first_window(
    studied: tuple[Asked, Path, list[Trial]], tmp_path: Path, target: str
) -> None:
    """The texts, their tokens and the tokenizer are gone once an artifact is loaded, and its windows go on."""
    _asked, out, _ = studied
    artifact = open_artifact(out / "artifacts" / target)
    samples = tmp_path / TIMED
    shutil.copy(out / "inputs" / TIMED, samples)
    here = {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))}
    with Child("measuring", environment=here) as child:
        opened = child.call(
            "modelwright.harness.run.worker:open_in_child",
            {
                "directory": str(artifact.directory),
                "threads": 1,
                "batch": 4,
                "samples": encode(SampleRef(path=str(samples))),
            },
        )
        assert opened["settings"]["inputs"] == 8
        samples.unlink()
        assert not {"tokenizers", "transformers"} & set(child.call("text_energy_checks:list_modules"))
        told = child.call("text_energy_checks:run_windows_watched")
        assert told["seen"] == []
        assert min(told["inferences"]) > 10
        control = child.call("text_energy_checks:run_windows_watched", {"control": True})
        assert len(control["seen"]) > 10, "a window that opened files would be seen"
