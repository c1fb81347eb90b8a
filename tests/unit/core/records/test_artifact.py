from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.records.artifact import (
    MANIFEST,
    REFERENCE,
    Manifest,
    hash_files,
    measure_size,
    open_artifact,
    verify_files,
    write_manifest,
)
from modelwright.core.records.signature import Signature, TensorSpec


def make(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(b"weights")
    (folder / REFERENCE).write_bytes(b"outputs")
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 3))
    values: dict[str, Any] = {
        "target": "ort-fp32", "model_file": "model.bin", "files": hash_files(folder),
        "size_bytes": measure_size(folder), "signature": Signature(inputs=(spec,), outputs=(spec,)),
        "source": {"path": "p", "sha256": "s"}, "samples": {}, "machine": {"name": "host", "architecture": "x86_64"},
        "requires": {}, "recipe": {}, "versions": {}, "build_host": {"system": "Linux"},
        "build_s": 1.0, "proof": None, "proof_reason": "why", "notes": [], "key": "k", "created": "c",
    }  # fmt: skip
    write_manifest(folder, Manifest(**(values | changes)))
    return folder


def test_manifest_comes_back_as_written(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    artifact = open_artifact(folder)
    assert artifact.manifest.signature.inputs[0].describe() == "x float32 [batch, 3]"
    assert artifact.manifest.size_bytes == len(b"weights")
    verify_files(artifact)


def test_changed_missing_and_added_files_are_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    (folder / "model.bin").write_bytes(b"Weights")
    (folder / REFERENCE).unlink()
    (folder / "extra").touch()
    with pytest.raises(BadInputError, match=r"reference.npz is missing; extra is not in the manifest; model.bin was"):
        verify_files(open_artifact(folder))


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_manifest_cannot_point_out_of_its_folder(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "a", model_file=name, files={name: "0" * 64})
    with pytest.raises(BadInputError, match="not inside the artifact"):
        open_artifact(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(schema=99), "schema 99"),
        (lambda data: data.update(surprise=1), "unknown keys"),
        (lambda data: data.pop("files"), "missing keys"),
        (lambda data: data.update(files=[]), "files must be dict"),
        (lambda data: data.update(files={"model.bin": 7}), r"files\.model\.bin must be str"),
        (lambda data: data.update(target=["ort-fp32"]), "target must be str"),
        (lambda data: data.update(size_bytes=None), "size_bytes must be int"),
        (lambda data: data.update(notes="x"), "notes must be list"),
        (lambda data: data.update(machine={}), r"machine\.name must be str"),
        (lambda data: data["machine"].update(name="\x1b[2J"), r"machine\.name is no name"),
        (lambda data: data.update(proof={"fidelity": 3}), r"proof\.fidelity must be dict"),
        (lambda data: data.update(requires={"instruction_sets": 5}), "must be a list of texts"),
        (lambda data: data.update(requires={"packages": None}), r"requires\.packages must be dict"),
        (lambda data: data.update(requires={"packages": {"torch": 2}}), r"requires\.packages\.torch must be str"),
        (lambda data: data.update(requires={"packages": {"torch": "9" * 5000}}), "which no build writes"),
        (lambda data: data.update(requires={"gpu": ["8.9"]}), r"requires\.gpu must be dict"),
        (lambda data: data.update(requires={"gpu": {"name": {"a": 1}}}), r"requires\.gpu\.name must be str"),
        (lambda data: data.update(requires={"gpu": {"runs_on": [8.9]}}), "which no build writes"),
        (lambda data: data.update(requires={"gpu": {"runs_on": ["8.9"] * 10_000}}), "which no build writes"),
        (lambda data: data.update(requires={"gpu": {"memory_bytes": 10**400}}), "which no build writes"),
        (lambda data: data.update(requires={"gpu": {"name": "\x1b[2J"}}), "which no build writes"),
        (lambda data: data["signature"]["inputs"][0].update(dtype="object"), "signature cannot be read"),
        (lambda data: data["signature"]["inputs"][0].update(shape=[1.5]), "signature cannot be read"),
        (lambda data: data.update(signature={}), "signature cannot be read"),
    ],
)
def test_strange_manifests_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    folder = make(tmp_path / "a")
    data = json.loads((folder / MANIFEST).read_text())
    change(data)
    (folder / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(BadInputError, match=message):
        open_artifact(folder)


def test_needs_that_a_build_writes_are_read(tmp_path: Path) -> None:
    gpu = {"name": "NVIDIA GeForce RTX 4090", "runs_on": ["8.9"], "memory_bytes": 15_286_662, "driver_version": None}
    requires = {"packages": {"tensorrt-rtx": "==1.7.1.116"}, "gpu": gpu, "instruction_sets": ["avx2"]}
    assert open_artifact(make(tmp_path / "a", requires=requires)).manifest.requires == requires


def test_the_folder_of_the_exported_model_is_told_from_an_artifact(tmp_path: Path) -> None:
    (tmp_path / "model.export.json").touch()
    with pytest.raises(BadInputError) as caught:
        open_artifact(tmp_path)
    assert "exported ONNX model" in str(caught.value.hint)


def test_a_folder_of_artifacts_says_what_it_holds(tmp_path: Path) -> None:
    make(tmp_path / "ort-fp32")
    with pytest.raises(BadInputError) as caught:
        open_artifact(tmp_path)
    assert caught.value.hint == "it holds artifacts: ort-fp32"
    with pytest.raises(BadInputError, match="no such artifact"):
        open_artifact(tmp_path / "absent")
