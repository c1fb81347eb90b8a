"""A study from its file to its report, for real: what it writes, what a second run does, and a third after a change."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime", reason="the baseline")
pytest.importorskip("matplotlib", reason="the extra [study]")

from modelwright.core.errors import BadInputError
from modelwright.core.records.compressed import load_compressed
from modelwright.harness import run_study
from modelwright.harness.results.record import Comparison

NET = """
import torch
from torch import nn

class Net(nn.Module):
    output_names = ("y",)

    def __init__(self, width):
        super().__init__()
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 2)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))

def create():
    torch.manual_seed(3)
    return Net(64), torch.zeros(2, 6)

def small():
    torch.manual_seed(4)
    return Net(8), torch.zeros(2, 6)
"""
STUDY = """
schema = 1
targets = ["ort-fp32"]
[samples]
calibrate = "train.npz"
judge = "test.npz"
[training]
data = "train.npz"
judge = "test.npz"
loss = "mse"
epochs = 3
[variants.teacher]
source = "net.py:create"
[variants.pruned]
source = "teacher"
methods = ["prune:magnitude:0.5"]
[variants.small]
source = "net.py:small"
[measure]
effort = "quick"
[fleet]
devices = [1000]
inferences_per_day = 288
price_per_kwh = 0.5
currency = "EUR"
price_source = "the test"
[grid]
region = "DE"
"""


class Listener:
    """Notes what a study tells, and may interrupt it."""

    def __init__(self, stop_at: str = "\0") -> None:
        self.told: list[str] = []
        self._stop_at = stop_at

    def start(self, task: str, text: str) -> None:
        self.told.append(f"{task}: {text}")

    def say(self, task: str, text: str) -> None: ...

    def advance(self, task: str, done: int, total: int) -> None: ...

    def finish(self, task: str, text: str, *, ok: bool = True) -> None:
        self.told.append(text)
        if self._stop_at in text:
            raise KeyboardInterrupt


def make_data(path: Path, count: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)
    np.savez(path, x=x, target_y=np.stack((x[:, 0] + x[:, 1], x[:, 2] * 2), axis=1))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    make_data(tmp_path / "train.npz", 512, 1)
    make_data(tmp_path / "test.npz", 64, 2)
    return tmp_path


def run(place: Path, text: str = STUDY, listener: Listener | None = None, **more: Any) -> Comparison:
    (place / "study.toml").write_text(text)
    return run_study(place / "study.toml", out=place / "out", progress=listener or Listener(), **more)


@pytest.mark.slow
def test_a_study_is_resumed_and_does_only_what_has_changed(place: Path) -> None:
    # Interrupted in the middle of the training, it goes on from there.
    with pytest.raises(KeyboardInterrupt):
        run(place, listener=Listener("epoch 1 of 3"))
    assert not (place / "out" / "results.json").exists()
    listener = Listener()
    first = run(place, listener=listener)
    assert any("going on after epoch" in text for text in listener.told)

    # What comes out.
    rows = {row.target: row for row in first.measured}
    assert list(rows) == ["teacher/ort-fp32", "pruned/ort-fp32", "small/ort-fp32"]
    assert first.baseline == "teacher/ort-fp32"
    names = ("report.html", "results.json", "results.csv", "comparison.png", "comparison.svg", "fleet.csv")
    assert all((place / "out" / name).stat().st_size > 100 for name in names)
    with (place / "out" / "results.csv").open() as file:
        assert [row["model_variant"] for row in csv.DictReader(file)] == list(rows)
    record = load_compressed(place / "out" / "sources" / "pruned")
    assert record.after.zero_share == pytest.approx(0.5, abs=0.01)
    assert record.quality_after.metric == "r2"

    # Errors against the targets, by hand of what the pruned network's own record says.
    fits = {fit.name: fit for fit in rows["pruned/ort-fp32"].fits}
    assert list(fits) == ["y[0]", "y[1]"]
    assert np.mean([fit.r2 or 0 for fit in fits.values()]) == pytest.approx(record.quality_after.value, abs=1e-3)
    assert rows["teacher/ort-fp32"].fits[0].rmse == pytest.approx(fits["y[0]"].rmse_fp32, rel=1e-4)

    # A fleet, if this machine has a power model.
    fleet = first.fleet
    assert fleet is not None
    for row in fleet.rows:
        joules = rows[row.target].energy_j
        assert joules is not None
        assert row.energy_kwh == pytest.approx(joules * 288 * 365 * 1000 / 3.6e6)

    # Nothing changed: nothing is trained, built or measured.
    listener = Listener()
    again = run(place, listener=listener)
    assert again.run_id == first.run_id
    assert [row.latency_ms for row in again.measurements] == [row.latency_ms for row in first.measurements]
    assert not any(text.startswith("measure:") for text in listener.told)
    assert any("nothing that decides it has changed" in text for text in listener.told)
    assert all(row.reused for row in again.measurements)

    # Another price and grid are counted, not measured.
    changed = STUDY.replace("0.5\n", "1.0\n").replace('"DE"', '"FR"')
    priced = run(place, changed)
    assert priced.run_id == first.run_id
    assert priced.fleet is not None
    assert priced.fleet.g_per_kwh == 56
    assert [row.cost for row in priced.fleet.rows] == pytest.approx([2 * (row.cost or 0) for row in fleet.rows])
    carbon = [row.carbon.per_inference_g for row in priced.measured if row.carbon]
    assert carbon == pytest.approx(
        [(row.carbon.per_inference_g or 0) * 56 / 420 for row in first.measured if row.carbon]
    )
    assert json.loads((place / "out" / "results.json").read_text())["fleet"]["g_per_kwh"] == 56

    # A limit is applied to the figures that are there.
    limited = run(place, STUDY + "[limits]\nmax_size_mb = 0.000001\n")
    assert limited.run_id == first.run_id
    assert all(row.limits_missed for row in limited.measured)

    # Another method trains and builds its own variant alone; then all are measured, in one run.
    listener = Listener()
    other = run(place, STUDY.replace("magnitude:0.5", "magnitude:0.25"), listener)
    assert other.run_id != first.run_id
    assert load_compressed(place / "out" / "sources" / "pruned").after.zero_share == pytest.approx(0.25, abs=0.01)
    assert {row.target: row.reused for row in other.measured} == {
        "teacher/ort-fp32": True,
        "pruned/ort-fp32": False,
        "small/ort-fp32": True,
    }
    assert run(place, STUDY.replace("magnitude:0.5", "magnitude:0.25"), measure_again=True).run_id != other.run_id


@pytest.mark.slow
def test_a_variant_that_fails_is_a_row_and_the_folder_of_another_study_is_refused(place: Path) -> None:
    text = STUDY.replace('loss = "mse"', 'loss = "cross-entropy"')
    found = run(place, text + "[variants.further]\nsource = 'pruned'\n")
    rows = {row.target: row for row in found.measurements}
    assert [name for name, row in rows.items() if row.measured] == ["teacher/ort-fp32", "small/ort-fp32"]
    failed = rows["pruned/ort-fp32"]
    assert (failed.status, failed.variant, failed.exit_code) == ("failed", "pruned", 3)
    assert (failed.reason or "").startswith("pruned: the training data have no `labels`")
    assert rows["further/ort-fp32"].reason == "further: it is made of pruned, which is missing"
    (place / "out" / "mine.txt").write_text("kept")
    (place / "other.toml").write_text(STUDY)
    with pytest.raises(BadInputError, match=r"holds a comparison of .*study\.toml"):
        run_study(place / "other.toml", out=place / "out")
    assert (place / "out" / "mine.txt").read_text() == "kept"


def test_nothing_is_begun_where_a_target_a_method_or_a_file_is_unknown(place: Path) -> None:
    for text, words in (
        (STUDY.replace('"test.npz"\n[training]', '"away.npz"\n[training]'), r"samples\.judge: there is no .*away\.npz"),
        (
            STUDY.replace('data = "train.npz"', 'data = "away/train.npz"'),
            r"training\.data: there is no .*away",
        ),
        (
            STUDY.replace("[training]", 'preprocess = "size=8,mean=1/2/3"\n[training]'),
            "samples.preprocess: --preprocess .* expected one number, or three",
        ),
        (STUDY.replace("net.py:small", "nets.py:small"), r"variants\.small\.source: there is no .*nets\.py"),
        (
            STUDY.replace('"train.npz"\njudge = "test.npz"\n[tr', '"net.py:make"\n[tr'),
            "defines no function make",
        ),
        (STUDY.replace('targets = ["ort-fp32"]', 'targets = ["ort-fp23"]'), "targets: there is no target 'ort-fp23'"),
        (STUDY.replace("prune:magnitude", "prone:magnitude"), "variants.pruned.methods: prone:magnitude"),
        (STUDY.replace("[fleet]", 'settings = ["fast"]\n[fleet]'), "'fast' is no setting"),
    ):
        with pytest.raises(BadInputError, match=words):
            run(place, text)
    assert not (place / "out").exists()
