"""A folder is replaced by an artifact only where all in it is an artifact's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelwright.core.errors import BadInputError
from modelwright.targets.building.replacing import require_own


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "ort-int8"
    (folder / "data").mkdir(parents=True)
    for name in ("model.onnx", "data/w.bin"):
        (folder / name).touch()
    (folder / "artifact.json").write_text(json.dumps({"files": {"model.onnx": "", "data/w.bin": "", "gone": ""}}))
    return folder


def test_an_artifact_and_an_empty_folder_are_replaced(artifact: Path, tmp_path: Path) -> None:
    require_own(artifact)
    (artifact / "artifact.json").write_text("{ damaged")
    require_own(artifact)
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    require_own(tmp_path / "empty")


def test_what_no_build_made_is_named_and_stays(artifact: Path, tmp_path: Path) -> None:
    (artifact / "data" / "notes.txt").touch()
    (artifact / "link").symlink_to(tmp_path)
    with pytest.raises(BadInputError, match=r"no build made data/notes\.txt, link in it"):
        require_own(artifact)
    (tmp_path / "photos").mkdir()
    for number in range(7):
        (tmp_path / "photos" / f"{number}.jpg").touch()
    with pytest.raises(BadInputError, match=r"no build made 0\.jpg, .*4\.jpg and 2 more"):
        require_own(tmp_path / "photos")


def test_a_link_and_a_file_are_not_replaced(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(artifact)
    (tmp_path / "file").touch()
    for name, what in (("link", "a link"), ("file", "a file")):
        with pytest.raises(BadInputError, match=f"is {what}"):
            require_own(tmp_path / name)
