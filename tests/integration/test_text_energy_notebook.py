"""The notebook of the study of text models, run: on the tables beside it, and on one with known figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from lab_checks import list_texts, read_tables

from modelwright.examples.text_energy.renew import NOTEBOOK, run_notebook
from modelwright.examples.text_energy.trial import Trial, write_table

pytestmark = pytest.mark.slow


def test_the_tables_beside_it_give_its_outputs() -> None:
    kept = nbformat.read(NOTEBOOK, as_version=4)
    assert list(list_texts(run_notebook())) == list(list_texts(kept)), "run `make notebook`"


def make_trial(number: int, precision: str, ms: float, **more: Any) -> Trial:
    return Trial(
        model="tiny", device="cpu", target=f"ort-{precision}", runtime="ort", precision=precision, batch=4,
        trial=number, status="measured", correct=9, evaluated=10, accuracy=0.9, parameters=1_000_000,
        size_bytes=2_000_000, machine="a board", latency_median_ms=ms, throughput_per_s=4000 / ms, **more,
    )  # fmt: skip


def test_ratios_are_of_a_trial_and_energies_of_a_meter(tmp_path: Path) -> None:
    metered = {
        "energy_per_text_j": 0.25, "power_mean_w": 20.0, "power_min_w": 15.0, "power_max_w": 25.0, "power_samples": 30,
        "energy_source": "measured:rapl", "energy_scope": "CPU package",
    }  # fmt: skip
    trials = [
        make_trial(1, "fp32", 10.0), make_trial(1, "int8", 5.0, **metered),
        make_trial(2, "fp32", 40.0), make_trial(2, "int8", 10.0, **metered),
        Trial(
            model="tiny", device="cpu", target="fp16", runtime="ort", precision="fp16", status="skipped", reason="no",
        ),
    ]  # fmt: skip
    write_table(tmp_path / "trials.csv", trials)
    notebook = run_notebook([tmp_path / "trials.csv"])
    artifacts, speed, energy = read_tables(notebook)
    assert [row["right answers (95 %)"].split(" (")[0] for row in artifacts] == ["9 of 10"] * 2
    assert [(row["times as fast"], row["of the trials"]) for row in speed] == [("3.00", "2.00 to 4.00")]
    assert [(row["mJ a text"], row["texts a J"], row["samples"]) for row in energy] == [("250", "4", "60")]
    assert energy[0]["W (lowest to highest)"] == "20.0 (15.0 to 25.0)"
    assert "tiny: fp16 on cpu is missing: no." in list(list_texts(notebook))
