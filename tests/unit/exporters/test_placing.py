"""What an export replaces: its own of earlier, nobody else's; and what a killed one leaves is gone on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.records.codec import encode
from modelwright.core.records.exported import ExportedModel, ExportSource, load_exported, record_path
from modelwright.core.records.signature import Signature
from modelwright.exporters import placing
from modelwright.exporters.cache import Origin, origin_path
from modelwright.exporters.inputs import Inputs
from modelwright.exporters.placing import find_own_files, place_export, require_free

Place = Callable[..., ExportedModel]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Places an ONNX model with the given files beside it."""

    def act(out: Path, content: bytes, **beside: bytes) -> ExportedModel:
        staging = tmp_path / f"staging-{hashlib.sha256(content).hexdigest()[:6]}"
        staging.mkdir(exist_ok=True)
        files = {out.name: content, **{f"{name}.data": data for name, data in beside.items()}}
        for name, data in files.items():
            (staging / name).write_bytes(data)
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        exported = ExportedModel(
            model_path=out,
            signature=Signature(inputs=(), outputs=()),
            source=ExportSource(kind="onnx", path="source.onnx", sha256="0" * 64, files={}),
            num_parameters=0,
            opset=17,
            sha256=hashes[out.name],
            files=hashes,
            size_bytes=1,
            comparison=None,
            comparison_reason="none",
            notes=(),
            versions={},
        )
        inputs = Inputs(
            files={}, kinds={}, folders={}, environment={}, packages={}, modules=(), local=(), missing=(),
            working_directory=None, folder=None,
        )  # fmt: skip
        origin = Origin(
            request="1" * 64, inputs=inputs, onnx_sha256=exported.sha256, program_sha256=None, created="2026-01-01"
        )
        place_export(staging, out, exported, origin, replace_own=True)
        return exported

    return act


def test_an_earlier_export_is_replaced_with_all_that_was_its(tmp_path: Path, place: Place) -> None:
    out = tmp_path / "out" / "m.onnx"
    out.parent.mkdir()
    place(out, b"one", a=b"1", b=b"2")
    second = place(out, b"two", b=b"3")
    assert load_exported(out) == second
    assert {path.name for path in out.parent.iterdir()} == {
        "m.onnx", "b.data", record_path(out).name, origin_path(out).name,
    }  # fmt: skip


def test_a_foreign_file_is_never_replaced(tmp_path: Path, place: Place) -> None:
    out = tmp_path / "out" / "m.onnx"
    out.parent.mkdir()
    (out.parent / "w.data").write_bytes(b"mine")
    with pytest.raises(BadInputError, match=r"w\.data exists, which no earlier export left"):
        place(out, b"one", w=b"theirs")
    place(out, b"one", a=b"1")
    (out.parent / "a.data").write_bytes(b"edited")
    with pytest.raises(BadInputError, match=r"a\.data was changed after it was exported"):
        place(out, b"two", a=b"2")
    assert [(out.parent / name).read_bytes() for name in ("w.data", "a.data", "m.onnx")] == [b"mine", b"edited", b"one"]


def test_what_the_record_of_a_model_of_the_users_lists_is_theirs(tmp_path: Path, place: Place) -> None:
    """A model that was exported to where it lies has a record, and no word on what it was made from."""
    out = tmp_path / "out" / "m.onnx"
    out.parent.mkdir()
    place(out, b"one", a=b"1")
    origin_path(out).unlink()
    assert find_own_files(out) == set()
    with pytest.raises(BadInputError, match="was changed after it was exported"):
        require_free(out, overwrite=False, replace_own=True)
    place(out, b"two", b=b"2")
    assert (out.parent / "a.data").read_bytes() == b"1"


def test_a_record_from_elsewhere_names_nothing_outside_its_folder(tmp_path: Path, place: Place) -> None:
    out = tmp_path / "out" / "m.onnx"
    out.parent.mkdir()
    (tmp_path / "mine").write_bytes(b"mine")
    exported = place(out, b"one")
    data = encode(exported) | {"files": {"../mine": hashlib.sha256(b"mine").hexdigest()}, "program": 7}
    record_path(out).write_text(json.dumps(data))
    assert find_own_files(out) == set()


def test_what_a_record_names_over_a_link_is_not_ours(tmp_path: Path, place: Place) -> None:
    """It would be removed when the export is replaced."""
    out = tmp_path / "out" / "m.onnx"
    out.parent.mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_bytes(b"mine")
    (out.parent / "link").symlink_to(tmp_path / "mine")
    exported = place(out, b"one")
    files = {**exported.files, "link/file": hashlib.sha256(b"mine").hexdigest()}
    record_path(out).write_text(json.dumps(encode(exported) | {"files": files}))
    assert find_own_files(out) == {"m.onnx"}
    place(out, b"two")
    assert (tmp_path / "mine" / "file").read_bytes() == b"mine"


def kill(act: Callable[..., object], folder: Path, steps: Iterator[int], at: int) -> Callable[..., object]:
    """Returns an operation on files that is interrupted at one step in a folder."""

    def killed(*paths: Path, **options: bool) -> object:
        if folder in {path.parent for path in paths} and next(steps) == at:
            raise KeyboardInterrupt
        return act(*paths, **options)

    return killed


def test_wherever_it_is_killed_the_same_export_goes_on(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "m.onnx"
    out.parent.mkdir()
    kills = 0
    for kill_at in range(20):
        place(out, b"one", a=b"1", b=b"2")
        steps = iter(range(20))
        with monkeypatch.context() as patch:
            patch.setattr(placing.Path, "unlink", kill(Path.unlink, out.parent, steps, kill_at))
            patch.setattr(placing.Path, "replace", kill(Path.replace, out.parent, steps, kill_at))
            try:
                place(out, b"two", b=b"3", c=b"4")
            except KeyboardInterrupt:
                kills += 1
        require_free(out, overwrite=False, replace_own=True)
        again = place(out, b"two", b=b"3", c=b"4")
        assert load_exported(out) == again
        assert sorted(path.name for path in out.parent.glob("*.data")) == ["b.data", "c.data"], kill_at
    assert kills == 8  # three files go, five come
