from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.files import hash_file, is_plain_file, read_json, require_writable, write_json, write_text
from modelwright.core.system_errors import explain_os_error


def test_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert hash_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


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
    with pytest.raises(BadInputError, match="is a folder, not a file"):
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


@pytest.mark.parametrize("name", ["x" * 300, "file/inside"])
def test_every_refusal_of_the_system_is_explained(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="cannot write"):
        write_text(tmp_path / name, "text")


@pytest.mark.parametrize("kind", ["a device", "a pipe", "a socket", "a link"])
def test_only_a_file_is_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "results.json"
    mine = tmp_path / "mine"
    mine.write_text("mine")
    if kind == "a device":
        path = Path(os.devnull)
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to(mine)
    before = path.lstat()
    for act in (lambda: write_text(path, "ours"), lambda: require_writable(path)):
        with pytest.raises(BadInputError, match=f"is {kind}, not a file"):
            act()
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert mine.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    require_writable(tmp_path / "not" / "yet" / "results.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "results.json", Path("/proc/nothing/results.json")):
        with pytest.raises(BadInputError, match="cannot write"):
            require_writable(place)


def test_links_planted_under_the_old_temporary_name_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "out").mkdir()
    for name in (f".modelwright-{os.getpid()}.tmp", f"f.json.{os.getpid()}.tmp"):
        (tmp_path / "out" / name).symlink_to(victim)
    write_text(tmp_path / "out" / "f.json", "ours")
    assert victim.read_text() == "mine"
    assert (tmp_path / "out" / "f.json").read_text() == "ours"
    assert (tmp_path / "out" / "f.json").stat().st_mode & 0o777 == 0o666 & ~read_umask()


def test_a_plain_file_is_reached_over_no_link(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside / "deep", outside):
        folder.mkdir(parents=True)
        (folder / "w.bin").touch()
    (inside / "link").symlink_to(outside)
    (inside / "soft.bin").symlink_to(outside / "w.bin")
    os.mkfifo(inside / "pipe")
    assert is_plain_file(inside, "deep/w.bin")
    for name in ("link/w.bin", "soft.bin", "pipe", "deep", "absent", "deep/w.bin/x", "a\0b", "x" * 300):
        assert not is_plain_file(inside, name), name


def read_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
