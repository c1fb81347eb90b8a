"""The commands of a device, where the system has no more than Windows has: no fcntl, no fork, no process groups."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import models
import pytest

from modelwright.harness.building import build_targets

pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
BARE = Path(__file__).parent.parent / "bare_system"


@pytest.fixture(autouse=True)
def _own_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing can be locked, neighbours that can lock take what lies in a common one for nobody's."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    paths = filter(None, (str(BARE), os.environ.get("PYTHONPATH")))
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def modelwright(*arguments: str) -> str:
    done = run("-m", "modelwright.cli", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    model = models.make_cnn(folder / "cnn.onnx")
    samples = models.make_samples(folder / "samples.npz", count=32, x=(3, 12, 12))
    built = build_targets(model, samples=samples, out=folder / "out", targets=["ort-fp32"])
    return built.artifacts["ort-fp32"].directory


@pytest.mark.parametrize("module", ["fcntl", "resource", "pwd", "termios"])
def test_what_is_hidden_is_not_there(module: str) -> None:
    assert f"No module named '{module}'" in run("-c", f"import {module}").stderr


def test_help_and_all_rooms_can_be_imported() -> None:
    assert "compare" in modelwright("--help")
    rooms = "cli.main core.files core.process.child exporters harness profiles targets"
    imports = ", ".join(f"modelwright.{room}" for room in rooms.split())
    assert run("-c", f"import {imports}").stderr == ""


@pytest.mark.slow
def test_an_artifact_is_inspected_verified_and_measured(artifact: Path, tmp_path: Path) -> None:
    assert "ort-fp32" in modelwright("inspect", str(artifact))
    assert "ort-fp32" in modelwright("verify", str(artifact))
    assert "profile of onnxruntime" in modelwright("inspect", str(artifact), "--operators")
    results = tmp_path / "results.json"
    modelwright("measure", str(artifact), "--effort", "quick", "--out", str(results))
    (row,) = json.loads(results.read_text())["measurements"]
    assert row["status"] == "measured"
    assert row["latency_ms"]["p50"] > 0
    assert row["precision_executed"]["precision"] == "fp32"
    assert row["operators"]["types"], "profiled in a process of its own"
