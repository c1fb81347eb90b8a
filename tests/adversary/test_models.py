"""Damaged model files, through everything that reads one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from mutations import damage, damage_graph
from tally import Hung, Tally, command, limited, list_hidden

from modelwright.core.errors import ModelwrightError, UnexpectedError
from modelwright.core.files import hash_json
from modelwright.core.records.artifact import MANIFEST
from modelwright.core.records.seal import SEAL
from modelwright.harness import measure

pytestmark = pytest.mark.timeout(0)  # each attack has its own limit


def test_through_export_and_build(place: Path, tmp_path: Path, tally: Callable[[str], Tally]) -> None:
    """One sentence or a model that works; nothing is left of what was refused."""
    counted = tally("damaged models, export and build")
    beside = tmp_path / "beside"
    beside.mkdir()
    onnx.save(onnx.load(place / "cnn.onnx"), beside / "m.onnx", save_as_external_data=True, location="w.bin",
              size_threshold=64)  # fmt: skip
    sources = [place / "cnn.onnx", place / "two.onnx", beside / "m.onnx"]
    for number in counted.scaled(461, least=4):
        generator = counted.generator(number)
        folder, out = tmp_path / f"in-{number}", tmp_path / f"out-{number}"
        folder.mkdir()
        source = sources[number % len(sources)]
        change = generator.choice([damage, damage_graph])
        (folder / "m.onnx").write_bytes(change(source.read_bytes(), generator))
        if source.parent == beside:
            (folder / "w.bin").write_bytes((beside / "w.bin").read_bytes())
        ended = command("export", folder / "m.onnx", "-o", out / "m.onnx")
        outcome = "crashed" if ended.crashed else "found"
        if ended.code == 0:
            ended = command("build", folder / "m.onnx", "-s", "random:8", "-o", out / "built", "-t", "ort-fp32")
            outcome = "crashed" if ended.crashed else "harmless"
            if (out / "built" / "ort-fp32").exists() != (ended.code == 0):
                outcome = "missed"
        elif out.exists():
            outcome = "missed"
        if list_hidden(tmp_path):
            outcome = "crashed"
        counted.add(outcome, f"{number}: {ended.text}", folder)
        shutil.rmtree(folder)
        shutil.rmtree(out, ignore_errors=True)


@pytest.mark.usefixtures("short")
def test_through_verify_and_measure(place: Path, tmp_path: Path, tally: Callable[[str], Tally]) -> None:
    """Found by its hash; and hashed anew, as who can write the file can: a row with its reason, or right answers."""
    by_hash, anew = tally("damaged models, verify"), tally("damaged models with new hashes, measure")
    for number in by_hash.scaled(1695, least=6):
        generator = by_hash.generator(number)
        folder = shutil.copytree(place / "built" / ("ort-fp32", "ort-int8")[number % 2], tmp_path / f"a-{number}")
        model = folder / "model.onnx"
        before = model.read_bytes()
        changed = generator.choice([damage, damage_graph])(before, generator)
        if changed == before:
            shutil.rmtree(folder)
            continue
        model.write_bytes(changed)
        ended = command("verify", folder)
        by_hash.add(ended.outcome, f"{number}: {ended.text}", folder)
        reseal(folder)
        try:
            with limited(120.0):
                (row,) = measure([folder]).measurements
            anew.add("harmless" if row.measured else "found", row.reason or "", folder)
        except UnexpectedError as error:
            anew.add("crashed", f"{number}: {error}\n{error.detail}", folder)
        except ModelwrightError as error:
            anew.add("found", str(error))
        except (Hung, Exception) as error:
            anew.add("crashed", f"{number}: {type(error).__name__}: {error}", folder)
        shutil.rmtree(folder)


def reseal(folder: Path) -> None:
    """Hashes an artifact's files and its manifest anew."""
    values = json.loads((folder / MANIFEST).read_text())
    values.pop(SEAL)
    values["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in values["files"]}
    (folder / MANIFEST).write_text(json.dumps({**values, SEAL: hash_json(values)}))
