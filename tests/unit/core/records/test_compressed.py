"""The record of a compressed model, and what a loss of quality is in points."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_file
from modelwright.core.records.compressed import (
    COMPRESSED_PROGRAM,
    COMPRESSION_RECORD,
    CompressedModel,
    DataUsed,
    Quality,
    Size,
    is_compressed_folder,
    load_compressed,
    save_compressed,
)
from modelwright.exporters.source import parse_source


def quality(metric: str, value: float, loss: float = 1.0) -> Quality:
    return Quality(metric=metric, value=value, loss=loss, samples=100)  # type: ignore[arg-type]


def make_folder(folder: Path) -> CompressedModel:
    (folder / COMPRESSED_PROGRAM).write_bytes(b"PK\x03\x04 program")
    size = Size(parameters=10, macs=20, weights_bytes=40, deflated_bytes=30, zero_share=0.5)
    record = CompressedModel(
        key="0" * 64, source="net.py:create", source_sha256="1" * 64, methods=("prune:magnitude:0.5",), loss="mse",
        seed=0, batch=64, train=DataUsed(name="train.npz", sha256="2" * 64, samples=100), evaluation=None, stages=(),
        before=size, after=size, quality_before=quality("r2", 0.9), quality_after=quality("r2", -3.0),
        sparsity={"layer": 0.5}, files={COMPRESSED_PROGRAM: hash_file(folder / COMPRESSED_PROGRAM)},
        versions={"torch": "2.13.0"}, notes=(),
    )  # fmt: skip
    save_compressed(record, folder)
    return record


@pytest.mark.parametrize(
    ("before", "after", "points"),
    [
        (quality("accuracy", 0.9), quality("accuracy", 0.885), 1.5),
        (quality("accuracy", 0.9), quality("accuracy", 0.95), -5.0),
        (quality("r2", 0.75), quality("r2", 0.5), 25.0),
        (quality("loss", 0.2), quality("loss", 0.25), 25.0),
        (quality("loss", 0.2), quality("loss", 0.1), -50.0),
    ],
)
def test_points_that_are_lost(before: Quality, after: Quality, points: float) -> None:
    assert before.points_lost(after) == pytest.approx(points)


def test_a_folder_with_its_record_is_a_source(tmp_path: Path) -> None:
    assert not is_compressed_folder(tmp_path)
    record = make_folder(tmp_path)
    assert load_compressed(tmp_path) == record
    source = parse_source(tmp_path)
    assert (source.kind, source.path, source.text) == ("pt2", tmp_path / COMPRESSED_PROGRAM, str(tmp_path))


def test_a_program_that_was_changed_is_no_source_any_more(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / COMPRESSED_PROGRAM).write_bytes(b"PK\x03\x04 another")
    with pytest.raises(BadInputError, match=r"model\.pt2 was changed after compression\.json"):
        parse_source(tmp_path)


def test_a_link_in_the_place_of_the_program_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / COMPRESSED_PROGRAM).rename(tmp_path / "elsewhere")
    (tmp_path / COMPRESSED_PROGRAM).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInputError, match="no plain file"):
        parse_source(tmp_path)


def test_a_record_that_was_changed_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    text = (tmp_path / COMPRESSION_RECORD).read_text()
    (tmp_path / COMPRESSION_RECORD).write_text(text.replace('"macs": 20', '"macs": 21'))
    with pytest.raises(BadInputError, match="was changed after it was written"):
        parse_source(tmp_path)
