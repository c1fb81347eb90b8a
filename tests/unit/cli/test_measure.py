"""What `measure` does with what it found when something fails after everything was measured."""

from __future__ import annotations

from pathlib import Path

import documents
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from modelwright import harness
from modelwright.cli.measure import measure
from modelwright.core.errors import ModelwrightError
from modelwright.harness.results.file import read_results
from modelwright.harness.writing import UnfinishedError


@pytest.mark.parametrize("show_paths", [False, True])
def test_what_could_not_be_judged_is_written_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, show_paths: bool
) -> None:
    found = documents.read(documents.images())
    found = replace(found, source=replace(found.source, path="/home/someone/secret/model.onnx"))

    def fail(*_: object, **__: object) -> None:
        raise UnfinishedError(found, [ModelwrightError("there is no verdict")])

    monkeypatch.setattr(harness, "measure", fail, raising=False)
    out = tmp_path / "results.json"
    words = ["artifact", "--json", "--out", str(out), *(["--show-paths"] if show_paths else [])]
    done = CliRunner().invoke(measure, words)
    assert isinstance(done.exception, UnfinishedError)
    assert read_results(out).measurements == found.measurements
    for shown in (done.stdout, out.read_text()):
        assert ("/home/someone/secret" in shown) is show_paths
