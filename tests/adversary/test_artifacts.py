"""Bits flipped in artifacts, and numbers changed in all records that are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import documents
import pytest
from mutations import change_numbers, flip_bit
from tally import SCALE, Ended, Tally, command, limited

from modelwright.cli.printing import print_comparison
from modelwright.core.errors import BadInputError, ModelwrightError, UnexpectedError
from modelwright.core.files import hash_json
from modelwright.core.records.artifact import MANIFEST
from modelwright.core.records.exported import load_exported, record_path
from modelwright.core.records.seal import SEAL
from modelwright.exporters.cache import origin_path
from modelwright.exporters.placing import find_own_files
from modelwright.harness.report import render_csv, render_html
from modelwright.harness.results.file import decode_results, render_results
from modelwright.harness.verdict.judge import judge

pytestmark = pytest.mark.timeout(0)


def test_flips_in_files(place: Path, tmp_path: Path, tally: Callable[[str], Tally]) -> None:
    """Any flip in any file of an artifact is found."""
    counted = tally("flips in files of artifacts")
    folder = shutil.copytree(place / "built" / "ort-int8", tmp_path / "a")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    for number in counted.scaled(300):
        path = files[number % len(files)]
        before = path.read_bytes()
        path.write_bytes(flip_bit(before, counted.generator(number)))
        ended = command("verify", folder)
        counted.add(ended.outcome, f"{path.name}: {ended.text}", folder)
        path.write_bytes(before)


def test_flips_in_manifests(place: Path, tmp_path: Path, tally: Callable[[str], Tally]) -> None:
    """Any flip in a manifest is found, unless its JSON means the same as before."""
    counted = tally("flips in manifests")
    folder = shutil.copytree(place / "built" / "ort-int8", tmp_path / "a")
    path = folder / MANIFEST
    before = path.read_bytes()
    for number in counted.scaled(600, least=20):
        changed = flip_bit(before, counted.generator(number))
        path.write_bytes(changed)
        ended = command("verify", folder)
        same = ended.outcome == "missed" and json.loads(changed) == json.loads(before)
        counted.add("harmless" if same else ended.outcome, f"{number}: {ended.text}", folder)
    path.write_bytes(before)
    assert command("verify", folder).code == 0, "what was not damaged passes"


@pytest.mark.usefixtures("short")
def test_numbers_in_manifests(place: Path, tmp_path: Path, tally: Callable[[str], Tally]) -> None:
    """Numbers changed by who also hashes anew: refused or of no consequence, never a traceback."""
    counted, measured = tally("numbers in manifests"), tally("numbers in manifests, measured")
    folder = shutil.copytree(place / "built" / "ort-int8", tmp_path / "a")
    values = json.loads((folder / MANIFEST).read_text())
    values.pop(SEAL)
    every = max(1, round(0.25 / SCALE))
    for number, (what, changed) in enumerate(change_numbers(values, every)):
        (folder / MANIFEST).write_text(json.dumps({**changed, SEAL: hash_json(changed)}))
        for words in (("verify", folder), ("inspect", folder), ("inspect", folder, "--json")):
            ended = command(*words)
            counted.add(_accepted(ended), f"{what}: {ended.text}", folder / MANIFEST)
        if number % 5 == 0:
            ended = command("measure", folder, "--json")
            measured.add(_accepted(ended), f"{what}: {ended.text}", folder / MANIFEST)


def test_numbers_in_records_of_exports(place: Path, tmp_path: Path, tally: Callable[[str], Tally]) -> None:
    """The same in what lies beside an exported model."""
    counted = tally("numbers in records of exports")
    model = shutil.copytree(place / "built" / "model", tmp_path / "model") / "model.onnx"
    every = max(1, round(0.25 / SCALE))
    for path in (record_path(model), origin_path(model)):
        before = path.read_text()
        values = json.loads(before)
        values.pop(SEAL)
        for what, changed in change_numbers(values, every):
            path.write_text(json.dumps({**changed, SEAL: hash_json(changed)}))
            try:
                load_exported(model)
                find_own_files(model)
                counted.add("harmless", what)
            except BadInputError:
                counted.add("found", what)
            except Exception as error:
                counted.add("crashed", f"{what}: {type(error).__name__}: {error}", path)
        path.write_text(before)


@pytest.mark.parametrize("kind", list(documents.ALL))
def test_numbers_in_results(
    kind: str, tmp_path: Path, tally: Callable[[str], Tally], capsys: pytest.CaptureFixture[str]
) -> None:
    """Results with changed numbers are refused, or judged and shown in every form."""
    counted = tally(f"numbers in results, {kind}")
    every = max(1, round(2 / SCALE))
    for what, changed in change_numbers(documents.ALL[kind](), every):
        outcome, said = _show(changed)
        capsys.readouterr()
        (tmp_path / "results.json").write_text(json.dumps(changed))
        counted.add(outcome, f"{what}: {said}", tmp_path / "results.json")


def _show(values: dict[str, Any]) -> tuple[str, str]:
    try:
        with limited(60.0):
            comparison = decode_results(values, where="results.json")
    except ModelwrightError as error:
        return ("crashed" if isinstance(error, UnexpectedError) else "found"), str(error)
    except Exception as error:
        return "crashed", f"{type(error).__name__}: {error}"
    try:
        with limited(60.0):
            judge(comparison)
            print_comparison(comparison, as_json=False, details=True)
            for render in (render_results, render_csv, render_html):
                render(comparison)
    except Exception as error:
        return "crashed", f"accepted, and then {type(error).__name__}: {error}"
    return "harmless", ""


def _accepted(ended: Ended) -> str:
    """What it means where a change may also be of no consequence."""
    return "crashed" if ended.crashed else "harmless" if ended.code == 0 else "found"
