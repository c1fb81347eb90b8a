"""The study of text models: its texts, its rows, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import documents
import pytest

from modelwright.core.errors import BadInputError, ToolchainMissingError, UsageError
from modelwright.core.nvidia.probe import probe_driver
from modelwright.examples.text_energy.__main__ import explain_gaps, study
from modelwright.examples.text_energy.study import Asked, choose_targets
from modelwright.examples.text_energy.texts import number_classes, read_part
from modelwright.examples.text_energy.trial import TABLE, Trial, describe_trial, read_trials, write_table, write_trial


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.tsv", 'sentence\tlabel\n"who" is it ?\t1\nwhat, then\t0\n'),
        ("train.csv", 'label,text\n1,"""who"" is it ?"\n0,"what, then"\n'),
        ("train.jsonl", '{"text": "\\"who\\" is it ?", "label": 1}\n\n{"label": 0, "text": "what, then"}\n'),
    ],
)
def test_texts_are_read_from_each_kind_of_file(tmp_path: Path, name: str, text: str) -> None:
    read = read_part(write(tmp_path / "data", name, text), "train")
    assert read.texts == ('"who" is it ?', "what, then")
    assert read.labels == ("1", "0")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sentence\tkind\na\t1\n", "has the columns sentence, kind, and none called label for the labels"),
        ("words\tlabel\na\t1\n", "none called text or sentence or question for the text"),
        ("text\tlabel\na\t1\nb\t\n", "row 2 has no text or no label"),
        ("text\tlabel\na\t1\nb\n", "row 2 has no text or no label"),
        ("text\tlabel\n", "has no rows"),
    ],
)
def test_what_has_no_labels_is_refused_by_its_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInputError, match=said) as caught:
        read_part(write(tmp_path / "data", "train.tsv", text), "train")
    assert "train.tsv" in caught.value.message


def test_a_missing_folder_or_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"the data's folder .*none is not there"):
        read_part(tmp_path / "none", "train")
    folder = write(tmp_path / "data", "train.csv", "text,label\na,1\n")
    with pytest.raises(BadInputError, match="has no test"):
        read_part(folder, "test")


def test_labels_that_are_numbers_keep_their_order(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", "train.csv", "text,label\na,10\nb,2\nc,2\n")
    write(folder, "test.csv", "text,label\na,2\n")
    parts = read_part(folder, "train"), read_part(folder, "test")
    assert number_classes(*parts) == {"2": 0, "10": 1}
    write(folder, "test.csv", "text,label\na,3\n")
    with pytest.raises(BadInputError, match="has the label 3, which"):
        number_classes(parts[0], read_part(folder, "test"))
    write(folder, "train.csv", "text,label\na,3\n")
    with pytest.raises(BadInputError, match=r"all texts of .* have the label 3"):
        number_classes(read_part(folder, "train"), read_part(folder, "test"))


def make_asked(**changes: Any) -> Asked:
    values: dict[str, Any] = {
        "model": Path("model"), "data": Path("data"), "devices": ("cpu",), "precisions": ("fp32", "int8-static"),
        "runtimes": ("torch", "ort"), "batches": (1, 8), "trials": 1, "threads": 1, "effort": "quick", "length": None,
        "calibrate": 100, "fit": 100, "limit": 100, "seed": 0,
    }  # fmt: skip
    return Asked(**values | changes)


def test_a_precision_is_measured_in_each_runtime_that_has_it() -> None:
    chosen, absent = choose_targets(make_asked())
    assert chosen == {"cpu": ("ort-fp32", "torch-fp32", "ort-int8")}
    assert not absent
    chosen, absent = choose_targets(make_asked(devices=("cpu", "cuda")))
    assert chosen["cuda"] == ("torch-fp32",)
    assert [(trial.device, trial.precision, trial.status) for trial in absent] == [("cuda", "int8-static", "skipped")]
    assert "none of the runtimes torch, ort computes in int8-static on cuda" in str(absent[0].reason)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batches": (1, 0)}, "a batch of 0 measures nothing"),
        ({"trials": 0}, "a number of trials of 0 measures nothing"),
        ({"devices": ("tpu",)}, "there is no device 'tpu'"),
        ({"precisions": ("int8",)}, "there is no precision 'int8'"),
        ({"runtimes": ("onnx",)}, "there is no runtime 'onnx'"),
    ],
)
def test_what_measures_nothing_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        choose_targets(make_asked(**changes))
    assert caught.value.hint


def run(tmp_path: Path, *more: str) -> None:
    """Calls the command on a folder that looks like a model."""
    model = write(tmp_path / "model", "config.json", "{}")
    (model / "model.safetensors").write_bytes(b"")
    study.main([str(model), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), *more], "", None, False)


def test_the_command_refuses_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a batch of 0"):
        run(tmp_path, "--batches", "8,0")
    with pytest.raises(BadInputError, match="the data's folder"):
        run(tmp_path)
    write(tmp_path / "data", "train.csv", "text,label\na,1\n")
    with pytest.raises(BadInputError, match="has no test"):
        run(tmp_path)
    (tmp_path / "model/config.json").unlink()
    with pytest.raises(BadInputError, match=r"it has no config\.json"):
        study.main([str(tmp_path / "model"), "--data", "x", "--out", str(tmp_path / "out")], "", None, False)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(probe_driver().ok, reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolchainMissingError, match="there is no GPU to use here"):
        run(tmp_path, "--devices", "cpu,cuda")


def make_trial(document: dict[str, Any], place: int = 0, **settings: Any) -> Trial:
    document["settings"] |= settings
    comparison = documents.read(document)
    return describe_trial(comparison.measurements[place], comparison, model="tiny", device="cpu", trial=2)


def test_a_metered_row_is_told_in_each_unit() -> None:
    document = documents.single()
    document["measurements"][0] |= {
        "correct": 190, "evaluated": 200, "warm_up_inferences": 120, "num_inferences": 1200, "device_memory": None,
        "latency_ms": {"mean": 2.0, "std": 0.5, "min": 1.0, "max": 9.0, "p50": 1.5},
        "energy": {
            "per_inference_j": 0.5, "mean_power_w": 20.0, "source": "measured:rapl", "scope": "CPU package",
            "power": {
                "count": 40, "interval_s": 0.05, "std_w": 2.0, "min_w": 15.0, "median_w": 19.0, "max_w": 25.0,
            },
        },
    }  # fmt: skip
    trial = make_trial(document, batch=4)
    assert (trial.correct, trial.evaluated, trial.warm_up_steps, trial.inferences) == (190, 200, 120, 1200)
    assert (trial.latency_of, trial.latency_median_ms, trial.latency_max_ms) == ("inference", 1.5, 9.0)
    assert (trial.energy_per_inference_j, trial.energy_per_inference_mj, trial.inferences_per_j) == (0.5, 500.0, 2.0)
    assert (trial.energy_per_text_j, trial.energy_total_j) == (0.125, 600.0)
    assert (trial.power_mean_w, trial.power_median_w, trial.power_samples, trial.sampling_interval_s) == (
        20.0, 19.0, 40, 0.05,
    )  # fmt: skip
    assert (trial.estimated_energy_per_inference_j, trial.estimated_by) == (None, None)
    assert trial.memory_of == "process"
    assert trial.memory_reserved_bytes is None
    assert "memory_reserved_bytes" in (trial.unavailable or {})


PROMISED = {
    *("accuracy", "correct", "evaluated"),
    *("latency_mean_ms", "latency_std_ms", "latency_min_ms", "latency_max_ms", "latency_median_ms", "throughput_per_s"),
    *("power_mean_w", "power_std_w", "power_min_w", "power_max_w", "power_median_w", "power_samples"),
    *("energy_total_j", "energy_per_inference_j", "energy_per_inference_mj", "inferences_per_j"),
    *("memory_allocated_bytes", "memory_peak_bytes", "memory_reserved_bytes"),
    *("parameters", "size_bytes", "dtype", "device", "precision", "model"),
    *("trial", "batch", "warm_up_steps", "sampling_interval_s"),
}
"""What the README and `--help` say that a trial has: in its file, and as a column."""


def test_all_that_is_promised_is_in_the_file_and_in_the_table_and_found_where_there_are_meters(tmp_path: Path) -> None:
    assert set(TABLE) >= PROMISED
    document = documents.gpu()
    place = next(place for place, row in enumerate(document["measurements"]) if row.get("compute_latency_ms"))
    document["measurements"][place] |= {
        "correct": 9, "evaluated": 10, "accuracy": 0.9, "num_computations": 500, "warm_up_computations": 50,
        "compute_latency_ms": {"mean": 2.0, "std": 0.5, "min": 1.0, "max": 9.0, "p50": 1.5}, "size_bytes": 8,
        "precision_executed": {"precision": "fp16"},
        "device_memory": {"allocated_bytes": 10, "peak_bytes": 30, "reserved_bytes": 64},
        "energy": {
            "per_inference_j": 0.5, "mean_power_w": 20.0, "source": "measured:nvml", "scope": "GPU board",
            "power": {
                "count": 40, "interval_s": 0.05, "std_w": 2.0, "min_w": 15.0, "median_w": 19.0, "max_w": 25.0,
            },
        },
    }  # fmt: skip
    trial = make_trial(document, place, batch=4)
    write_trial(tmp_path, trial)
    written = json.loads((tmp_path / trial.file_name).read_text())
    assert not {name for name in PROMISED if written.get(name) is None}
    write_table(tmp_path / "trials.csv", [trial])
    (row,) = csv.DictReader((tmp_path / "trials.csv").read_text().splitlines())
    assert not {name for name in PROMISED if not row.get(name)}


def test_an_estimate_is_never_in_a_column_of_measurements() -> None:
    document = documents.single()
    document["measurements"][0]["energy"] = {
        "per_inference_j": 0.5, "mean_power_w": 20.0, "source": "estimated:tdp_util", "model": "the maker's figure",
    }  # fmt: skip
    trial = make_trial(document)
    known = {name for name in TABLE if getattr(trial, name) is not None}
    assert not [name for name in known if name.startswith(("energy", "power", "inferences_per_j", "sampling"))]
    assert (trial.estimated_energy_per_inference_j, trial.estimated_by) == (0.5, "the maker's figure")
    assert "no meter" in (trial.unavailable or {})["energy"]


def test_on_a_gpu_it_is_the_computation_and_the_allocator() -> None:
    document = documents.gpu()
    place = next(place for place, row in enumerate(document["measurements"]) if row.get("compute_latency_ms"))
    row = document["measurements"][place]
    row |= {
        "num_computations": 500,
        "warm_up_computations": 50,
        "device_memory": {"allocated_bytes": 10, "peak_bytes": 30, "reserved_bytes": 64},
    }
    trial = make_trial(document, place)
    assert (trial.latency_of, trial.inferences, trial.warm_up_steps) == ("computation", 500, 50)
    assert trial.latency_median_ms == row["compute_latency_ms"]["p50"]
    assert trial.throughput_per_s == row["compute_throughput_per_s"]
    assert trial.energy_total_j == pytest.approx(500 * row["energy"]["per_inference_j"])
    assert (trial.memory_of, trial.memory_allocated_bytes, trial.memory_peak_bytes, trial.memory_reserved_bytes) == (
        "allocator", 10, 30, 64,
    )  # fmt: skip


def test_a_trial_is_a_file_and_a_row(tmp_path: Path) -> None:
    trials = [
        make_trial(documents.single()),
        Trial(model="=1+1", device="cpu", target="ort-int8", runtime="ort", precision="int8", status="skipped"),
    ]
    for trial in trials:
        write_trial(tmp_path, trial)
    assert {path.name for path in tmp_path.iterdir()} == {"cpu-ort-fp32-batch1-trial2.json", "cpu-ort-int8.json"}
    assert read_trials(tmp_path) == trials
    write_table(tmp_path / "trials.csv", trials)
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == TABLE
    assert float(rows[0]["latency_median_ms"]) == pytest.approx(trials[0].latency_median_ms)
    assert (rows[1]["model"], rows[1]["latency_median_ms"]) == ("'=1+1", ""), "no formula, and an empty cell"


def test_each_reason_is_told_once() -> None:
    document = documents.single()
    document["measurements"][0]["energy"] = {"reason": "no meter"}
    lines = explain_gaps([make_trial(document), make_trial(document)])
    assert lines == ["note: cpu: no energy and no power: no meter"]
