from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import sealing

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_json
from modelwright.core.records.artifact import Requires, open_artifact, verify_files, write_manifest
from modelwright.core.records.artifact_files import MANIFEST, REFERENCE, hash_files, is_reserved, measure_size
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.seal import SEAL
from modelwright.core.records.signature import Signature, TensorSpec

EARLIER = Path(__file__).with_name("earlier") / MANIFEST
HASH = "0" * 64


def make(folder: Path, **changes: Any) -> Path:
    """Writes an artifact; its manifest is one of an earlier build but for the files and the changes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(b"weights")
    (folder / REFERENCE).write_bytes(b"outputs")
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 3))
    data = json.loads(EARLIER.read_text())
    data |= {
        "schema": 2, "model_file": "model.bin", "files": hash_files(folder), "size_bytes": measure_size(folder),
        "signature": encode(Signature(inputs=(spec,), outputs=(spec,))),
    }  # fmt: skip
    sealing.write_record(folder / MANIFEST, data | changes)
    return folder


def test_the_manifest_of_an_earlier_version_without_a_hash_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(EARLIER.read_bytes())
    with pytest.raises(BadInputError, match="schema: expected one of 2, found 1") as caught:
        open_artifact(tmp_path)
    assert caught.value.hint == "it was made by another version of modelwright: build it again"


def test_a_manifest_is_read_and_written_alike(tmp_path: Path) -> None:
    sealing.write_record(tmp_path / MANIFEST, json.loads(EARLIER.read_text()) | {"schema": 2})
    before = json.loads((tmp_path / MANIFEST).read_text())
    artifact = open_artifact(tmp_path)
    assert artifact.manifest.proof is not None
    assert artifact.manifest.proof.fidelity.outputs[0].cosine_mean == 0.9999802593486025
    assert artifact.manifest.machine.instruction_sets >= {"avx512_vnni", "avx2"}
    assert artifact.seal == before.pop(SEAL)
    assert artifact.seal == hash_json(before)
    written = write_manifest(tmp_path, artifact.manifest)
    after = json.loads((tmp_path / MANIFEST).read_text())
    assert after.pop(SEAL) == written.seal
    # What came later is absent, and says so.
    assert after["proof"].pop("roles") is None
    assert after["proof"].pop("chain") is None
    assert after["proof"].pop("arithmetic") is None
    assert after["proof"].pop("drop") is None
    assert after["proof"].pop("labels") is None
    assert after["proof"].pop("fits") == []
    assert after["proof"]["fidelity"].pop("task") is None
    assert json.dumps(after) == json.dumps(before), "the same keys in the same order"


def test_an_edited_manifest_is_found_and_a_reformatted_one_is_not(tmp_path: Path) -> None:
    path = make(tmp_path / "a") / MANIFEST
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data, indent=7, sort_keys=True).replace("\n", "\r\n"))
    open_artifact(path.parent)
    for change in ({"build_s": data["build_s"] + 1}, {"recipe": {}}, {"notes": ["shipped by hand"]}, {SEAL: HASH}):
        path.write_text(json.dumps(data | change))
        with pytest.raises(BadInputError, match="was changed after it was written"):
            open_artifact(path.parent)
    path.write_text(json.dumps({name: value for name, value in data.items() if name != SEAL}))
    with pytest.raises(BadInputError, match="record_sha256: missing"):
        open_artifact(path.parent)
    path.write_text(json.dumps(data | {SEAL: ["7"]}))
    with pytest.raises(BadInputError, match="record_sha256: expected a SHA-256"):
        open_artifact(path.parent)


def test_a_proof_that_no_comparison_gives_is_refused(tmp_path: Path) -> None:
    """A known scheme does not make 900 % of anything."""
    path = make(tmp_path / "a") / MANIFEST
    proof = json.loads(path.read_text())["proof"]
    for change, message in (
        (
            {"fidelity": proof["fidelity"] | {"agreement": 9.0}},
            r"fidelity\.agreement: expected a number at least 0",
        ),
        ({"fidelity": proof["fidelity"] | {"cosine": -1.5}}, r"fidelity\.cosine: expected a number"),
        ({"correct": proof["count"] + 1}, "more right answers than its"),
        ({"count": -1}, r"proof\.count: expected a whole number of 0 or more"),
    ):
        sealing.change_record(path, proof=proof | change)
        with pytest.raises(BadInputError, match=message):
            open_artifact(path.parent)


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


def test_only_the_manifest_itself_is_not_hashed(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    for inner in ("weights", "artifact.json-parts"):
        (folder / inner).mkdir(parents=True)
        (folder / inner / MANIFEST).write_bytes(b"weights")
        (folder / inner / REFERENCE).write_bytes(b"more")
    make(folder)
    artifact = open_artifact(folder)
    assert {"weights/artifact.json", "artifact.json-parts/reference.npz"} <= artifact.manifest.files.keys()
    assert artifact.manifest.size_bytes == len(b"weights") * 3 + len(b"more") * 2
    (folder / "weights" / MANIFEST).write_bytes(b"Weights")
    with pytest.raises(BadInputError, match=r"weights/artifact\.json was changed"):
        verify_files(artifact)


@pytest.mark.parametrize(
    ("name", "reserved"),
    [
        ("artifact.json", True), ("Artifact.JSON", True), ("REFERENCE.npz", True), ("artifact.json/weights", True),
        ("weights/artifact.json", False), ("artifact.json.data", False), ("model.onnx", False),
    ],
)  # fmt: skip
def test_names_that_an_artifact_needs_itself(name: str, reserved: bool) -> None:
    assert is_reserved(name) is reserved


def plant_link(folder: Path) -> None:
    (folder.parent / "elsewhere").write_bytes(b"weights")
    (folder / "model.bin").unlink()
    (folder / "model.bin").symlink_to(folder.parent / "elsewhere")


def plant_linked_folder(folder: Path) -> None:
    (folder / "inner").symlink_to(folder.parent, target_is_directory=True)


PLANTED = {
    "model.bin is a link": plant_link,
    "inner is a link": plant_linked_folder,
    "pipe is no file, but a pipe, socket or device": lambda folder: os.mkfifo(folder / "pipe"),
    "deep/empty is an empty folder": lambda folder: (folder / "deep" / "empty").mkdir(parents=True),
}


@pytest.mark.parametrize("message", PLANTED)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, message: str) -> None:
    folder = make(tmp_path / "a")
    artifact = open_artifact(folder)
    PLANTED[message](folder)
    with pytest.raises(BadInputError, match=message):
        verify_files(artifact)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_manifest_cannot_point_out_of_its_folder(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "a", model_file=name, files={name: HASH})
    with pytest.raises(BadInputError, match="expected the name of a file inside the folder"):
        open_artifact(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(schema=99), "schema: expected one of 2, found 99"),
        (lambda data: data.update(surprise=1), "surprise: unknown key"),
        (lambda data: data.pop("files"), "files: missing; expected a table"),
        (lambda data: data.update(files=[]), r"files: expected a table, found \[\]"),
        (lambda data: data.update(files={"model.bin": 7}), r"files\.model\.bin: expected a SHA-256 in hex, found 7"),
        (lambda data: data.update(target=["ort-fp32"]), "target: expected a text"),
        (lambda data: data.update(size_bytes=None), "size_bytes: expected a whole number"),
        (lambda data: data.update(notes="x"), "notes: expected a list of texts"),
        (lambda data: data.update(machine={}), r"machine\.name: missing; expected a text"),
        (lambda data: data["machine"].update(name="\x1b[2J"), r"machine\.name: expected a text of one line"),
        (lambda data: data.update(proof={"fidelity": 3}), r"proof\.fidelity: expected a table, found 3"),
        (
            lambda data: data.update(requires={"instruction_sets": 5}),
            r"requires\.instruction_sets: expected a list",
        ),
        (lambda data: data.update(requires={"packages": None}), r"requires\.packages: expected a table, found None"),
        (lambda data: data.update(requires={"packages": {"torch": 2}}), r"packages\.torch: expected a text"),
        (
            lambda data: data.update(requires={"packages": {"torch": "9" * 5000}}),
            r"packages\.torch: expected a text",
        ),
        (lambda data: data.update(requires={"gpu": ["8.9"]}), r"requires\.gpu: expected a table"),
        (lambda data: data.update(requires={"gpu": {"name": {"a": 1}}}), r"requires\.gpu\.name: expected a text"),
        (lambda data: data.update(requires={"gpu": {"runs_on": [8.9]}}), r"gpu\.runs_on: expected"),
        (
            lambda data: data.update(requires={"gpu": {"runs_on": ["8.9"] * 10_000}}),
            r"gpu\.runs_on: expected",
        ),
        (
            lambda data: data.update(requires={"gpu": {"memory_bytes": 10**400}}),
            r"gpu\.memory_bytes: expected",
        ),
        (
            lambda data: data.update(requires={"gpu": {"name": "\x1b[2J"}}),
            r"gpu\.name: expected a text of one",
        ),
        (
            lambda data: data["signature"]["inputs"][0].update(dtype="object"),
            r"inputs\[0\]\.dtype: expected",
        ),
        (lambda data: data["signature"]["inputs"][0].update(shape=[1.5]), r"signature\.inputs\[0\]\.shape: expected"),
        (lambda data: data.update(signature={}), r"signature\.inputs: missing"),
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
    assert open_artifact(make(tmp_path / "a", requires=requires)).manifest.requires == decode(Requires, requires)


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
    make(tmp_path / "comparison" / "artifacts" / "ort-int8")
    with pytest.raises(BadInputError) as caught:
        open_artifact(tmp_path / "comparison")
    assert caught.value.hint == "it holds artifacts: artifacts/ort-int8"
    with pytest.raises(BadInputError, match="no such artifact"):
        open_artifact(tmp_path / "absent")
