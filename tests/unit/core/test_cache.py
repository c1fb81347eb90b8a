"""Where the cache lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.core.cache import get_cache_folder


def test_the_cache_folder_follows_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("MODELWRIGHT_CACHE", "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert get_cache_folder() == Path("/home/someone/mine")
    monkeypatch.setenv("MODELWRIGHT_CACHE", "")
    assert get_cache_folder() == Path("/xdg/modelwright")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert get_cache_folder() == Path("/home/someone/.cache/modelwright")
