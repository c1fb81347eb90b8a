"""Folders that are not finished: whole or not there, held while somebody works, cleared away when nobody does."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from modelwright.core import scratch
from modelwright.core.errors import BadInputError
from modelwright.core.locks import Lock
from modelwright.core.scratch import (
    clear_leftovers,
    locked_folder,
    made_folder,
    scratch_directory,
    staged_directory,
)

WORK = """
import sys, time
from pathlib import Path
from modelwright.core.scratch import scratch_directory
with scratch_directory(Path(sys.argv[1])) as folder:
    Path(folder, "file").touch()
    print(folder, flush=True)
    time.sleep(60)
"""


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
    for name in (".modelwright.json", ".hidden"):
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


@pytest.mark.parametrize("deep", [".", "a"], ids=["in the same folder", "in one below"])
def test_what_another_process_works_in_stays_until_it_is_gone(tmp_path: Path, deep: str) -> None:
    """`build --out runs/a` works on while `build --out runs` begins."""
    (tmp_path / deep).mkdir(exist_ok=True)
    worker = subprocess.Popen([sys.executable, "-c", WORK, str(tmp_path / deep)], stdout=subprocess.PIPE, text=True)
    with worker:
        assert worker.stdout is not None
        folder = Path(worker.stdout.readline().strip())
        with locked_folder(tmp_path), scratch_directory(tmp_path / deep):
            assert (folder / "file").exists()
        worker.send_signal(signal.SIGKILL)
    assert folder.exists()
    with locked_folder(tmp_path):
        assert not folder.exists()


def test_a_new_one_clears_away_what_killed_ones_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / ".modelwright-killed" / "model").mkdir(parents=True)
    (tmp_path / ".modelwright-mine").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    with scratch_directory(tmp_path):
        assert not (tmp_path / ".modelwright-killed").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".modelwright-mine", "elsewhere"]
    assert (tmp_path / "elsewhere" / "file").exists()


def test_where_nothing_can_be_locked_nothing_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".modelwright-someones").mkdir()
    monkeypatch.setattr(scratch, "try_lock", lambda _handle: Lock.UNKNOWN)
    with locked_folder(tmp_path), scratch_directory(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".modelwright-someones"]


def test_one_that_is_cleared_away_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = scratch.tempfile.mkdtemp
    turns = iter(["swept", "kept"])

    def swept_at_once(**options: object) -> str:
        folder = make(**options)
        if next(turns) == "swept":
            clear_leftovers(tmp_path)
        return folder

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", swept_at_once)
    with scratch_directory(tmp_path) as folder:
        assert Path(folder).is_dir()
    assert next(turns, None) is None


def test_many_at_once_take_nothing_from_each_other(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(25):
                with scratch_directory(tmp_path) as folder:
                    Path(folder, "file").touch()
                    clear_leftovers(tmp_path)
                    Path(folder, "file").unlink()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(tmp_path.iterdir()) == []
