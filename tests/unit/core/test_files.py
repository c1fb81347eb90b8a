from __future__ import annotations

import errno
from pathlib import Path

import pytest

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.files import (
    explain_os_error,
    hash_file,
    locked_folder,
    made_folder,
    read_json,
    staged_directory,
    write_json,
    write_text,
)


def test_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert hash_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_staged_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    with pytest.raises(ValueError, match="boom"), staged_directory(final) as staging:
        (staging / "half").write_text("x")
        raise ValueError("boom")
    assert list(tmp_path.iterdir()) == []
    with staged_directory(final) as staging:
        (staging / "whole").write_text("x")
        assert not final.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
    assert (final / "whole").read_text() == "x"


def test_failed_replacement_keeps_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    with staged_directory(final) as staging:
        (staging / "old").touch()
    with pytest.raises(KeyboardInterrupt), staged_directory(final) as staging:
        raise KeyboardInterrupt
    assert (final / "old").exists()
    with staged_directory(final) as staging:
        (staging / "new").touch()
    assert [path.name for path in final.iterdir()] == ["new"]
    assert len(list(tmp_path.iterdir())) == 1


def test_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match="no space left"), explain_os_error(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(BuildFailedError, match="no space left"), explain_os_error(full), full.open("w") as file:
        file.write("x" * 10_000)
        file.flush()


def test_write_text_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInputError, match="directory"):
        write_text(tmp_path / "folder", "ok")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_any_text_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / "f.txt", "\xe9 \udce9")  # a file name that is not UTF-8, as the system hands it over
    assert (tmp_path / "f.txt").read_bytes() == b"\xc3\xa9 \\udce9"


def test_nan_never_gets_into_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "f.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00", "[" * 100_000])
def test_bad_json_names_the_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(content)
    with pytest.raises(BadInputError, match=r"m\.json"):
        read_json(path, "a manifest")


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with locked_folder(tmp_path):
        with pytest.raises(BadInputError, match="another modelwright is working"), locked_folder(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []
    with locked_folder(tmp_path):
        pass


def test_what_a_killed_run_left_is_cleared_away_and_nothing_else(tmp_path: Path) -> None:
    for name in (".modelwright-abc", "artifacts/.modelwright-def", "artifacts/ort-int8"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    for name in (".modelwright-12.tmp", ".modelwright.json", ".hidden"):
        (tmp_path / name).touch()
    with locked_folder(tmp_path):
        left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".hidden", ".modelwright.json", "artifacts/ort-int8/file"]


def test_a_folder_made_for_nothing_goes_away_again(tmp_path: Path) -> None:
    with pytest.raises(BadInputError), made_folder(tmp_path / "a" / "b"):
        raise BadInputError("no")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInputError), made_folder(tmp_path / "a"):
        (tmp_path / "a" / "kept").touch()
        raise BadInputError("no")
    assert (tmp_path / "a" / "kept").exists()


@pytest.mark.parametrize("name", ["x" * 300, "file/inside"])
def test_every_refusal_of_the_system_is_explained(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="cannot write"):
        write_text(tmp_path / name, "text")
