"""What is measured is what was proved: files swapped at any moment, and names that artifacts need themselves."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import models
import numpy as np
import onnx
import pytest
from onnx.external_data_helper import set_external_data

from modelwright.core.errors import BadInputError, ModelwrightError
from modelwright.core.records.artifact import open_artifact, verify_files
from modelwright.core.records.artifact_files import MANIFEST, REFERENCE
from modelwright.harness import measure
from modelwright.harness.building import build_targets
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.measure_artifacts import Measured, measure_artifacts
from modelwright.harness.run.runner import MeasureSettings
from modelwright.profiles import detect_host

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bytes")
    models.make_cnn(folder / "cnn.onnx")
    models.make_samples(folder / "samples.npz", count=32, x=(3, 12, 12))
    for name in ("a", "b"):
        build_targets(
            folder / "cnn.onnx", samples=folder / "samples.npz", out=folder / name, targets=["ort-fp32"],
            evaluation_limit=8 if name == "a" else 16,
        )  # fmt: skip
    return folder


def take(folder: Path, **told: object) -> Measured:
    """Measures one artifact in two launches of three rounds; `told` are functions that are called meanwhile."""
    host = detect_host()
    settings = MeasureSettings(effort=Effort(name="test", rounds=3, window_s=0.01, launches=2))
    opened = {"it": open_artifact(folder)}
    return measure_artifacts(opened, settings, host, host, samples=None, **told).by_name["it"]  # type: ignore[arg-type]


def change(path: Path) -> None:
    """Changes a byte in the middle, in the file that may be mapped."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def test_a_file_that_changes_between_the_launches_is_not_measured(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(place / "a/ort-fp32", tmp_path / "a")

    def swap(text: str) -> None:
        if "launch 2" in text and text.startswith("loading"):
            change(folder / "model.onnx")

    measured = take(folder, on_event=swap)
    assert isinstance(measured.failure, BadInputError)
    assert "model.onnx was changed" in measured.failure.message


def test_another_whole_artifact_in_its_place_is_not_measured(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(place / "a/ort-fp32", tmp_path / "a")

    def swap(text: str) -> None:
        if text.startswith("loading"):
            shutil.rmtree(folder)
            shutil.copytree(place / "b/ort-fp32", folder)

    measured = take(folder, on_event=swap)
    assert isinstance(measured.failure, BadInputError)
    assert "was replaced by another one while it was measured" in measured.failure.message


def test_a_file_that_changes_after_the_last_load_costs_the_numbers(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(place / "a/ort-fp32", tmp_path / "a")

    def swap(done: int, total: int) -> None:
        if done == total:
            change(folder / "model.onnx")

    measured = take(folder, on_round=swap)
    assert "model.onnx was changed" in str(measured.failure)


def test_nothing_changed_is_measured(place: Path) -> None:
    measured = take(place / "a/ort-fp32")
    assert measured.failure is None
    assert measured.opened is not None
    assert measured.opened.seal == open_artifact(place / "a/ort-fp32").seal


def test_weights_in_files_with_names_of_ours_are_shipped_whole(place: Path, tmp_path: Path) -> None:
    model = onnx.load(str(place / "cnn.onnx"))
    names = (REFERENCE, "ARTIFACT.json", f"inner/{MANIFEST}")
    tensors = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) > 100]
    assert len(tensors) >= len(names)
    for tensor, name in zip(tensors, names, strict=False):
        set_external_data(tensor, name)
    (tmp_path / "inner").mkdir()
    onnx.save(model, str(tmp_path / "m.onnx"))
    built = build_targets(
        tmp_path / "m.onnx", samples=place / "samples.npz", out=tmp_path / "out", targets=["ort-fp32"]
    )
    artifact = built.artifacts["ort-fp32"]
    verify_files(artifact)
    assert {"weights-reference.npz", "weights-ARTIFACT.json", "inner/artifact.json"} < artifact.manifest.files.keys()
    with np.load(artifact.directory / REFERENCE) as packed:
        assert "input:x" in packed.files
    assert measure([artifact.directory], effort="quick").measurements[0].status == "measured"
    change(artifact.directory / "inner" / MANIFEST)
    with pytest.raises(BadInputError, match=r"inner/artifact\.json was changed"):
        verify_files(artifact)


def test_flipped_bits_in_a_manifest_are_found(place: Path, tmp_path: Path) -> None:
    """All that change what is read; the few that do not (`1e-5` and `1E-5`) change nothing."""
    whole = (place / "a/ort-fp32" / MANIFEST).read_bytes()
    seal = open_artifact(place / "a/ort-fp32").seal
    rng, same = random.Random(7), 0
    for _ in range(600):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / MANIFEST).write_bytes(data)
        try:
            assert open_artifact(tmp_path).seal == seal
        except ModelwrightError:
            continue
        same += 1
    assert same <= 3
