"""Names that lead out of their folder, in models, records and samples: nothing outside is read or written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from tally import Tally, command, list_hidden

from modelwright.core.errors import ModelwrightError
from modelwright.core.files import hash_json
from modelwright.core.records.artifact import MANIFEST
from modelwright.core.records.exported import load_exported, record_path
from modelwright.core.records.seal import SEAL
from modelwright.core.samples.materialize import materialize_samples

pytestmark = pytest.mark.timeout(0)

SECRET = np.float32(1234.5678).tobytes()
PARTS = ("..", ".", "", "deep", "link", "hidden", "~", "C:", "\\..", "..\\", "%2e%2e", "..\0", " ..", "\uff0e\uff0e")
LEAVES = ("secret.bin", "w.bin", "hard.bin", "soft.bin", "pipe", ".hidden.bin", "m.onnx", "w.bin/", "w.bin\0x", "W.BIN")


def list_attacks(outside: Path) -> list[str]:
    """Returns the paths that people have written such names with."""
    return [
        "../secret.bin", str(outside / "secret.bin"), "../../secret.bin", "deep/../../secret.bin", "link/secret.bin",
        "soft.bin", "hard.bin", "pipe", "./../secret.bin", "deep/../w.bin", "/dev/zero", "/proc/self/environ", "",
        ".", "..", "m.onnx", f"file://{outside}/secret.bin", "..\\secret.bin", "w.bin\0", "//secret.bin", ".hidden.bin",
    ]  # fmt: skip


def compose(generator: random.Random) -> str:
    return "/".join([*generator.choices(PARTS, k=generator.randrange(1, 4)), generator.choice(LEAVES)])


def attacks_of(counted: Tally, outside: Path, full: int) -> Iterator[str]:
    listed = list_attacks(outside)
    for number in counted.scaled(full, least=5):
        if number < len(listed):
            # A few of them are tried at any scale, and not always the same first ones.
            yield listed[(number * 8 + counted.seed) % len(listed)]
        else:
            yield compose(counted.generator(number))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """The folder around the one that the attacks come from, with what must not be read."""
    (tmp_path / "secret.bin").write_bytes(SECRET * 16384)
    return tmp_path


def lay_traps(folder: Path, outside: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "soft.bin").symlink_to(outside / "secret.bin")
    os.link(outside / "secret.bin", folder / "hard.bin")
    (folder / ".hidden.bin").write_bytes(SECRET * 16384)
    os.mkfifo(folder / "pipe")


def holds_secret(folder: Path) -> bool:
    return any(
        SECRET * 4 in path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    )


def test_external_data(place: Path, outside: Path, tally: Callable[[str], Tally]) -> None:
    counted = tally("paths of external data")
    for number, attack in enumerate(attacks_of(counted, outside, 60)):
        folder, out = outside / "in", outside / "out"
        folder.mkdir()
        onnx.save(onnx.load(place / "cnn.onnx"), folder / "m.onnx", save_as_external_data=True, location="w.bin",
                  size_threshold=64)  # fmt: skip
        lay_traps(folder, outside)
        model = onnx.load(folder / "m.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = attack
        (folder / "m.onnx").write_bytes(model.SerializeToString())
        ended = command("export", folder / "m.onnx", "-o", out / "o.onnx")
        inside = ended.code == 0 and not holds_secret(out)
        outcome = "crashed" if ended.crashed else "found" if ended.code else "harmless" if inside else "missed"
        if list_hidden(outside):
            outcome = "crashed"
        counted.add(outcome, f"{number} {attack!r}: {ended.text}", folder / "m.onnx")
        shutil.rmtree(folder)
        shutil.rmtree(out, ignore_errors=True)


def test_records(place: Path, outside: Path, tally: Callable[[str], Tally]) -> None:
    """In manifests and in records of exports, hashed anew: `files`, the model's own name, the program's."""
    counted = tally("paths in records")
    artifact = shutil.copytree(place / "built" / "ort-fp32", outside / "artifact")
    export = shutil.copytree(place / "built" / "model", outside / "model")
    for folder in (artifact, export):
        lay_traps(folder, outside)
    for path, name in ((artifact / MANIFEST, "model_file"), (record_path(export / "model.onnx"), "model_path")):
        values = json.loads(path.read_text())
        values.pop(SEAL)
        for attack in attacks_of(counted, outside, 38):
            secret = hashlib.sha256(SECRET * 16384).hexdigest()
            changed = {**values, name: attack, "files": {attack: secret, **values["files"]}}
            path.write_text(json.dumps({**changed, SEAL: hash_json(changed)}))
            if path.name == MANIFEST:
                ended = command("verify", artifact)
                counted.add(ended.outcome, f"{attack!r}: {ended.text}", path)
                continue
            try:
                load_exported(export / "model.onnx")
                inside = os.path.realpath(export / attack).startswith(f"{os.path.realpath(export)}/")
                counted.add("harmless" if inside else "missed", f"{attack!r} in the record of an export", path)
            except ModelwrightError:
                counted.add("found", attack)
            except Exception as error:
                counted.add("crashed", f"{attack!r}: {type(error).__name__}: {error}", path)


def test_samples(outside: Path, tally: Callable[[str], Tally]) -> None:
    """Names of arrays, which become file names where an archive is unpacked."""
    counted = tally("paths in samples")
    array = io.BytesIO()
    np.save(array, np.zeros((4, 3), np.float32))
    for number, attack in enumerate(attacks_of(counted, outside, 60)):
        folder = outside / "in"
        folder.mkdir()
        with zipfile.ZipFile(folder / "s.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{attack}.npy", array.getvalue())
        before = {path for path in outside.rglob("*") if folder not in path.parents}
        try:
            materialize_samples(str(folder / "s.npz"), None, folder / "unpacked" / "here")
            outcome = "harmless"
        except ModelwrightError:
            outcome = "found"
        except Exception as error:
            outcome, attack = "crashed", f"{attack!r}: {type(error).__name__}: {error}"
        if before != {path for path in outside.rglob("*") if folder not in path.parents}:
            outcome = "missed"
        if {path.name for path in folder.glob("unpacked/*")} - {"here"}:
            outcome = "missed"
        counted.add(outcome, f"{number} {attack!r}", folder / "s.npz")
        shutil.rmtree(folder)
