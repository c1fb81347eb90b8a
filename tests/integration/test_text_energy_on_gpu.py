"""The study of text models on a real GPU, from the folder to the table: `pytest -m gpu`."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="its programs run there")
pytest.importorskip("transformers", reason="its models")

from text_studies import ask, make_encoder, write_texts

from modelwright.core.nvidia.probe import probe_driver
from modelwright.examples.text_energy.study import run_study
from modelwright.examples.text_energy.trial import Trial
from modelwright.targets.pytorch.target import find_cuda_build

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Trial]]:
    status = probe_driver()
    if not status.ok:
        pytest.skip(f"needs an NVIDIA GPU: {status.reason}")
    if find_cuda_build() is None:
        pytest.skip("needs a PyTorch that is built for CUDA")
    place = tmp_path_factory.mktemp("study")
    asked = ask(
        make_encoder(place / "tiny"),
        write_texts(place / "data"),
        devices=("cpu", "cuda"),
        precisions=("fp32", "fp16", "bf16", "int8-static"),
        runtimes=("torch",),
        batches=(1, 4),
    )
    return place / "out", run_study(asked, place / "out")


def test_each_precision_and_batch_is_measured_there_and_what_torch_has_not_is_told(
    studied: tuple[Path, list[Trial]],
) -> None:
    out, trials = studied
    on_gpu = [trial for trial in trials if trial.device == "cuda"]
    wanted = {(precision, batch) for precision in ("fp32", "fp16", "bf16") for batch in (1, 4)}
    assert {(trial.precision, trial.batch) for trial in on_gpu if trial.status == "measured"} == wanted
    (absent,) = [trial for trial in on_gpu if trial.status != "measured"]
    assert "computes in int8-static on cuda" in str(absent.reason)
    with (out / "trials.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(trials)


def test_time_is_the_computation_and_memory_the_allocator(studied: tuple[Path, list[Trial]]) -> None:
    _, trials = studied
    right = {trial.target: trial.correct for trial in trials if trial.device == "cpu" and trial.batch == 1}
    for trial in trials:
        if trial.device != "cuda" or trial.status != "measured":
            continue
        print(trial)
        assert (trial.latency_of, trial.memory_of, trial.dtype) == ("computation", "allocator", trial.precision)
        assert trial.correct == right[trial.target], "it is the artifact's, wherever it runs"
        latencies = (trial.latency_min_ms, trial.latency_mean_ms, trial.latency_max_ms, trial.latency_std_ms)
        low, mean, high, deviation = (value or 0.0 for value in latencies)
        assert 0.0 < low <= mean <= high
        assert deviation > 0.0
        assert (trial.inferences or 0) > 0
        assert (trial.warm_up_steps or 0) > 0
        assert (trial.throughput_per_s or 0.0) > 0.0
        kept = (trial.memory_allocated_bytes, trial.memory_peak_bytes, trial.memory_reserved_bytes)
        allocated, peak, reserved = (value or 0 for value in kept)
        assert 0 < allocated <= peak
        assert allocated <= reserved


def test_energy_is_the_boards_or_the_reason_is_told(studied: tuple[Path, list[Trial]]) -> None:
    _, trials = studied
    for trial in trials:
        if trial.device != "cuda" or trial.status != "measured":
            continue
        if trial.energy_per_inference_j is None:
            assert (trial.unavailable or {})["energy"]
            assert trial.power_mean_w is trial.energy_total_j is trial.inferences_per_j is None
            continue
        assert trial.energy_source in ("measured:nvml", "measured:nvml-power")
        each = trial.energy_per_inference_j
        assert trial.energy_per_inference_mj == pytest.approx(1000 * each)
        assert trial.energy_total_j == pytest.approx(each * (trial.inferences or 0))
        assert trial.inferences_per_j == pytest.approx(1 / each)
        powers = (trial.power_min_w, trial.power_median_w, trial.power_mean_w, trial.power_max_w)
        low, median, mean, high = (value or 0.0 for value in powers)
        assert 0.0 < low <= median <= high
        assert mean > 0.0
        assert (trial.power_samples or 0) >= 10
        assert (trial.sampling_interval_s or 0.0) > 0.0
