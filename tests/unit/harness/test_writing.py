"""A comparison's files: each for itself, in its place or aside."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import documents
import pytest

from modelwright.core.errors import BadInputError
from modelwright.harness import writing
from modelwright.harness.results.file import read_results
from modelwright.harness.results.record import Comparison
from modelwright.harness.writing import UnfinishedError, require_places, write_comparison, write_results

FILES = {"results.json", "results.csv", "report.html"}


@pytest.fixture
def comparison() -> Comparison:
    return documents.read(documents.images())


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_all_files_are_written(tmp_path: Path, comparison: Comparison) -> None:
    assert write_comparison(tmp_path / "out", comparison, show_paths=False) == []
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert read_results(tmp_path / "out" / "results.json") == comparison


@pytest.mark.parametrize("broken", sorted(FILES))
def test_one_that_cannot_be_made_costs_itself_only(
    tmp_path: Path, comparison: Comparison, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_comparison: Comparison, **_options: bool) -> str:
        raise KeyError("title")

    render = {"results.json": "render_results", "results.csv": "render_csv", "report.html": "render_html"}[broken]
    monkeypatch.setattr(writing, render, fail)
    (fault,) = write_comparison(tmp_path / "out", comparison, show_paths=False)
    assert fault.message == f"making {tmp_path / 'out' / broken} failed: KeyError: 'title'"
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES - {broken}


def test_what_cannot_be_written_in_its_place_lies_aside(tmp_path: Path, comparison: Comparison) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").mkdir()
    (fault,) = write_comparison(tmp_path / "out", comparison, show_paths=False)
    assert "results.json is a folder, not a file" in fault.message
    aside = Path((fault.hint or "").removeprefix("it lies in ").partition(" instead")[0])
    assert read_results(aside) == comparison
    error = UnfinishedError(comparison, [fault])
    assert (error.exit_code, error.hint, error.comparison) == (3, fault.hint, comparison)


def test_a_full_disk_everywhere_is_said(
    tmp_path: Path, comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    (fault,) = write_results(tmp_path / "file" / "results.json", comparison)
    assert "cannot write" in fault.message
    assert "nor could it be written to the folder for temporary files" in (fault.hint or "")


def test_a_place_that_cannot_be_had_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    require_places(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "report.html").symlink_to(os.devnull)
    with pytest.raises(BadInputError, match=r"report\.html is a link"):
        require_places(tmp_path)
