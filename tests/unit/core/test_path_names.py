"""Paths in what others get: known answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.core.path_names import drop_folders, relate_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ann/clients/acme/net.py:create", "net.py:create"),
        ("/data/x.npz", "x.npz"),
        ("nets/net.py:create", "nets/net.py:create"),
        ("random:64", "random:64"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_absolute_paths_lose_their_folders(text: str, expected: str) -> None:
    assert drop_folders(text) == expected


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "homes" / "ann"
    (home / "work" / "out").mkdir(parents=True)
    (home / "work" / "net.py").touch()
    (tmp_path / "homes" / "bob").mkdir()
    (tmp_path / "homes" / "bob" / "x.npz").touch()
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.chdir(home / "work")
    return home


def test_the_way_from_the_results_to_a_file(home: Path) -> None:
    out = Path("out")
    assert relate_path("net.py", out) == "../net.py"
    assert relate_path("net.py:create", out) == "../net.py:create"
    assert relate_path(str(home / "work" / "net.py:create"), out) == "../net.py:create"
    assert relate_path("net.py", home / "work") == "net.py"


def test_a_way_through_the_root_or_past_a_home_is_none(home: Path) -> None:
    assert relate_path(str(home / "work" / "net.py:create"), Path("/usr")) == "net.py:create"
    assert relate_path(str(home.parent / "bob" / "x.npz"), Path("out")) == "x.npz"
    assert relate_path("../../bob/x.npz", Path("out")) == "x.npz"


def test_what_is_no_file_here_stays_or_loses_its_folders(home: Path) -> None:
    assert relate_path("random:64", home) == "random:64"
    assert relate_path("made/elsewhere.npz", home) == "made/elsewhere.npz"
    assert relate_path("/home/someone/elsewhere.npz", home) == "elsewhere.npz"
    assert relate_path("x" * 5000, home) == "x" * 5000
    assert relate_path("", home) == ""
