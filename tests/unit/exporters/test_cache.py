"""Exports that are kept: found again, never believed, bounded, and safe with many at work. No toolchain is needed."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_file
from modelwright.core.locks import Lock, try_lock
from modelwright.core.records.codec import encode
from modelwright.core.records.exported import load_exported
from modelwright.core.samples.sample_set import SampleRef
from modelwright.exporters import cache, exporting
from modelwright.exporters.exporting import Export, find_or_export, format_age
from modelwright.exporters.inputs import Inputs

SIGNATURE = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 3]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 2]}],
}


class Exporter:
    """Stands in for the child process: the "model" is the content of the source and of its weights."""

    def __init__(self) -> None:
        self.runs = 0
        self.opaque: str | None = None
        self.data_files: list[str] = []
        self.size_bytes = 0

    def __call__(self, source: Any, directory: Path, name: str, *_: Any, **_named: Any) -> dict[str, Any]:
        self.runs += 1
        read = [source.path, *sorted(source.folder.glob("*.weights"))]
        content = b"".join(path.read_bytes() for path in read) + bytes(self.size_bytes)
        names = [name, *self.data_files]
        for file in names:
            (directory / file).write_bytes(content)
        program = f"{Path(name).stem}.program.pt2"
        (directory / program).write_bytes(content[::-1])
        files = {file: hash_file(directory / file) for file in names}
        model = {
            "signature": SIGNATURE,
            "source": {"sha256": "0" * 64, "files": {}},
            "num_parameters": 8,
            "opset": 18,
            "sha256": files[name],
            "files": files,
            "size_bytes": len(content),
            "comparison": None,
            "comparison_reason": "a test",
            "notes": [],
            "versions": {},
            "program": program,
            "program_sha256": hash_file(directory / program),
        }
        inputs = Inputs(
            files={f"source:{path.name}": hash_file(path) for path in read},
            kinds={},
            folders={},
            environment={},
            packages={},
            modules=[],
            local=[],
            missing=[],
            working_directory=None,
            folder=None,
        )
        return {"model": model, "inputs": encode(inputs), "opaque": self.opaque}


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Exporter:
    stand_in = Exporter()
    monkeypatch.setattr(exporting, "_run", stand_in)
    monkeypatch.setenv("MODELWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "1")
    return stand_in


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "net.py").write_text("def create(): ...\n")
    (folder / "net.weights").write_bytes(b"weights")
    return folder / "net.py"


def make(source: Path, out: Path, **options: Any) -> Export:
    return find_or_export(f"{source}:create", out, **options)


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "exports").glob("*"))


def test_a_second_export_is_found_beside_the_first_and_elsewhere(
    exporter: Exporter, source: Path, tmp_path: Path
) -> None:
    first = make(source, tmp_path / "a" / "net.onnx")
    again = make(source, tmp_path / "a" / "net.onnx")
    elsewhere = make(source, tmp_path / "b" / "other.onnx")
    assert (first.reused, again.reused, elsewhere.reused, exporter.runs) == (False, True, True, 1)
    assert first.created == again.created == elsewhere.created
    assert again.model == first.model
    assert elsewhere.model == load_exported(tmp_path / "b" / "other.onnx")
    assert elsewhere.model.files == {"other.onnx": first.model.sha256}
    assert elsewhere.model.program == "other.program.pt2"
    assert "unchanged (made less than a minute ago)" in again.summarize()
    assert again.describe() == {"reused": True, "exported": first.created}
    assert not first.describe()["reused"]


@pytest.mark.parametrize("kept", ["beside", "cached"])
def test_what_decides_an_export_makes_it_again(
    kept: str, exporter: Exporter, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("samples", 1.0), ("others", 2.0)):
        np.savez(tmp_path / f"{name}.npz", x=np.full((4, 3), value, np.float32))
    numbers = iter(range(100))

    def runs(**options: Any) -> int:
        """Returns how often the exporter ran for two exports, in one place or in two."""
        before = exporter.runs
        options.setdefault("samples", SampleRef(path=tmp_path / "samples.npz"))
        for _ in range(2):
            name = "same" if kept == "beside" else str(next(numbers))
            make(source, tmp_path / name / "net.onnx", overwrite=True, **options)
        return exporter.runs - before

    if kept == "beside":
        monkeypatch.setenv(cache.LIMIT_VARIABLE, "0")
    assert runs() == 1
    assert runs() == 0
    assert runs(samples=SampleRef(path=tmp_path / "others.npz")) == 1
    assert runs(samples=None) == 1
    assert runs(tolerance=0.5) == 1
    assert runs(fresh=True) == 2
    source.write_text("def create(): ...  # edited\n")
    assert runs() == 1
    source.with_name("net.weights").write_bytes(b"other weights")
    assert runs() == 1
    monkeypatch.setattr(cache.sys, "version", "another Python")
    assert runs() == 1
    monkeypatch.setattr("modelwright.exporters.inputs.hash_package", lambda name: "0" * 64)
    os.utime(source, (1, 1))
    shutil.copy(tmp_path / "samples.npz", tmp_path / "copied.npz")
    assert runs(samples=SampleRef(path=tmp_path / "copied.npz")) == 0, "the same content by another name"


def test_a_linked_source_is_the_one_that_it_leads_to(exporter: Exporter, source: Path, tmp_path: Path) -> None:
    other = source.with_name("v2.py")
    other.write_text("def create(): return 2\n")
    link = source.with_name("link.py")
    link.symlink_to(source)
    make(link, tmp_path / "a.onnx")
    link.unlink()
    link.symlink_to(other)
    assert not make(link, tmp_path / "b.onnx").reused


def test_the_user_hears_what_has_changed(exporter: Exporter, source: Path, tmp_path: Path) -> None:
    make(source, tmp_path / "net.onnx")
    source.with_name("net.weights").write_bytes(b"other weights")
    said: list[str] = []
    make(source, tmp_path / "net.onnx", overwrite=True, progress=said.append)
    assert "exporting again: net.weights has changed" in said


def test_what_cannot_be_seen_is_made_each_time(exporter: Exporter, source: Path, tmp_path: Path) -> None:
    exporter.opaque = "it asks the network (hub)"
    for _ in range(2):
        made = make(source, tmp_path / "net.onnx", overwrite=True)
        assert not made.reused
        assert "it will be made anew each time: it asks the network (hub)" in made.summarize()
    assert exporter.runs == 2
    assert not (tmp_path / "net.made-from.json").exists()
    assert entries(tmp_path) == []


def test_another_model_is_not_overwritten_unasked(exporter: Exporter, source: Path, tmp_path: Path) -> None:
    make(source, tmp_path / "net.onnx")
    source.write_text("def create(): return 2\n")
    with pytest.raises(BadInputError, match="exists"):
        make(source, tmp_path / "net.onnx")
    assert make(source, tmp_path / "net.onnx", overwrite=True).model.sha256 != ""


def damage_content(entry: Path) -> None:
    path = entry / "model.onnx"
    path.unlink()  # a link to the user's own file: that one stays as it is
    path.write_bytes(b"other")


def damage_program(entry: Path) -> None:
    (entry / "model.program.pt2").unlink()


def damage_origin(entry: Path) -> None:
    (entry / "model.made-from.json").write_text("{")


def damage_record(entry: Path) -> None:
    (entry / "model.export.json").write_text('{"schema": 99}')


def swap_record(entry: Path) -> None:
    """The record and the model of another export, which agree with one another."""
    text = (entry / "model.export.json").read_text()
    old = hash_file(entry / "model.onnx")
    damage_content(entry)
    (entry / "model.export.json").write_text(text.replace(old, hash_file(entry / "model.onnx")))


@pytest.mark.parametrize(
    "damage", [damage_content, damage_program, damage_origin, damage_record, swap_record], ids=lambda f: f.__name__
)
def test_damaged_entries_are_made_again(
    damage: Callable[[Path], None], exporter: Exporter, source: Path, tmp_path: Path
) -> None:
    first = make(source, tmp_path / "a" / "net.onnx")
    (entry,) = entries(tmp_path)
    damage(entry)
    again = make(source, tmp_path / "b" / "net.onnx")
    assert (again.reused, again.model.sha256, exporter.runs) == (False, first.model.sha256, 2)
    assert load_exported(tmp_path / "a" / "net.onnx") == first.model
    assert make(source, tmp_path / "c" / "net.onnx").reused, "the new one is kept"
    assert len(entries(tmp_path)) == 1


def test_a_damaged_result_is_put_right_from_the_cache(exporter: Exporter, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    first = make(source, out)
    out.unlink()
    out.write_bytes(b"other")
    assert make(source, out, overwrite=True).model == first.model
    assert (exporter.runs, load_exported(out)) == (1, first.model)
    # Edited in place, through the link that the cache shares: both are damaged, and neither is believed.
    out.write_bytes(b"other")
    assert make(source, out, overwrite=True).model == first.model
    assert (exporter.runs, load_exported(out)) == (2, first.model)


def test_data_files_are_copied_not_linked(exporter: Exporter, source: Path, tmp_path: Path) -> None:
    exporter.data_files = ["net.onnx.data"]
    make(source, tmp_path / "a" / "net.onnx")
    found = make(source, tmp_path / "b" / "other.onnx")
    assert found.reused
    assert set(found.model.files) == {"other.onnx", "net.onnx.data"}
    for folder in ("a", "b"):
        # onnx refuses data files with more than one link
        assert (tmp_path / folder / "net.onnx.data").stat().st_nlink == 1


def test_a_cache_that_cannot_be_used_is_none(
    exporter: Exporter, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, cache_folder in enumerate((source, Path("/proc/nowhere"))):  # a file, and what nobody may write
        monkeypatch.setenv("MODELWRIGHT_CACHE", str(cache_folder))
        out = tmp_path / str(number) / "net.onnx"
        assert not make(source, out).reused
        assert make(source, out).reused, "beside the result it is found all the same"
        assert not make(source, tmp_path / f"other{number}" / "net.onnx").reused


def test_a_cache_that_may_only_be_read_is_read(
    exporter: Exporter, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(source, tmp_path / "a" / "net.onnx")

    def refuse(path: Any, *_: Any, **__: Any) -> None:
        # Simulated, for root may write everywhere. Linking is what the system refuses for files of other users.
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(cache.os, "utime", refuse)
    monkeypatch.setattr(cache.os, "link", refuse)
    monkeypatch.setattr(cache, "scratch_directory", refuse)
    found = make(source, tmp_path / "b" / "net.onnx")
    assert (found.reused, load_exported(tmp_path / "b" / "net.onnx")) == (True, found.model)
    source.write_text("def create(): return 2\n")
    assert not make(source, tmp_path / "c" / "net.onnx").reused, "and no error"


def test_the_least_recently_used_goes_first(
    exporter: Exporter, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter.size_bytes = 1_000_000  # and as much again for the program
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "0.0045")  # two of them

    def export_version(number: int, name: str) -> bool:
        source.write_text(f"def create(): return {number}\n")
        return make(source, tmp_path / name / "net.onnx").reused

    assert not export_version(1, "a")
    assert not export_version(2, "b")
    for entry in entries(tmp_path):
        os.utime(entry, (time.time() - 60,) * 2)
    assert export_version(1, "c"), "used: now the other one is the older"
    assert not export_version(3, "d")
    assert len(entries(tmp_path)) == 2
    assert export_version(1, "e")
    assert not export_version(2, "f")
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "0.001")
    assert not export_version(4, "g"), "larger than the bound: not kept"
    assert not export_version(4, "h")
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "0")
    assert not export_version(2, "i"), "a bound of nothing uses nothing"


def test_no_more_than_a_tenth_of_the_free_disk(
    exporter: Exporter, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter.size_bytes = 1_000_000
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _path: usage._replace(free=10_000_000))
    make(source, tmp_path / "a" / "net.onnx")
    assert entries(tmp_path) == []


def test_what_a_killed_run_left_is_cleared_away_and_never_used(
    exporter: Exporter, source: Path, tmp_path: Path
) -> None:
    make(source, tmp_path / "a" / "net.onnx")
    (entry,) = entries(tmp_path)
    half = entry.with_name(".modelwright-killed") / "new"
    shutil.copytree(entry, half)
    shutil.rmtree(entry)
    holder = os.open(half.parent, os.O_RDONLY)
    assert try_lock(holder) is Lock.HELD
    assert not make(source, tmp_path / "b" / "net.onnx").reused
    assert half.exists(), "somebody is at work on it"
    os.close(holder)
    source.write_text("def create(): return 2\n")
    make(source, tmp_path / "c" / "net.onnx")
    assert not half.exists()


def test_many_at_once(exporter: Exporter, source: Path, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                out = tmp_path / f"{number}-{turn}" / "net.onnx"
                made = make(source, out)
                assert load_exported(out) == made.model
                for entry in entries(tmp_path) if number == 0 else ():
                    shutil.rmtree(entry, ignore_errors=True)  # as evicting does
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not [path for path in entries(tmp_path) if path.name.startswith(".")]


def test_samples_count_by_their_values(tmp_path: Path) -> None:
    def save(name: str, **arrays: Any) -> SampleRef:
        np.savez(tmp_path / f"{name}.npz", **arrays)
        return SampleRef(path=tmp_path / f"{name}.npz")

    rows = np.arange(24, dtype=np.float32).reshape(8, 3)
    hashes = [
        cache.hash_samples(ref)
        for ref in (
            save("a", x=rows),
            save("b", x=np.concatenate([rows[:-1], rows[:1]])),
            save("c", x=rows.reshape(4, 6)),
            save("d", x=rows.astype(np.float64)),
            save("e", y=rows),
            save("f", x=rows, labels=np.zeros(8, np.int64)),
        )
    ]
    assert len(set(hashes)) == len(hashes)
    assert cache.hash_samples(save("again", x=rows)) == hashes[0]
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "x.npy", rows)
    assert cache.hash_samples(SampleRef(path=folder)) == hashes[0], "however they are stored"


def test_ages_in_words() -> None:
    words = [format_age(seconds) for seconds in (5, 60, 200, 3600, 7200 + 5, 86400, 3 * 86400)]
    assert words == ["less than a minute", "1 minute", "3 minutes", "1 hour", "2 hours", "1 day", "3 days"]
