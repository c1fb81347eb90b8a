from __future__ import annotations

import errno
from pathlib import Path

import pytest

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.files import explain_os_error, hash_file, read_json, staged_directory, write_json, write_text


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
