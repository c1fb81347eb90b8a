"""What integration tests share."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.harness.run.effort import EFFORTS, Effort


@pytest.fixture(autouse=True)
def brief_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `quick` take moments: no test asserts a time. The command line in a process of its own is as ever."""
    monkeypatch.setitem(EFFORTS, "quick", Effort(name="quick", rounds=6, window_s=0.02))


@pytest.fixture(scope="session")
def compile_cpp(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compiles a program against what OpenVINO's own package brings; the same text, of several artifacts, once."""
    folder = tmp_path_factory.mktemp("cpp")
    done: dict[str, Path] = {}

    def compile_once(text: str) -> Path:
        if text not in done:
            source, program = folder / f"{len(done)}.cpp", folder / f"{len(done)}"
            source.write_text(text)
            package = Path(importlib.util.find_spec("openvino").origin).parent
            (library,) = (package / "libs").glob("libopenvino.so.*")
            compiler = ["g++", "-std=c++17", "-Wall", "-Wno-unused-variable", f"-I{package / 'include'}", str(source)]
            subprocess.run([*compiler, "-o", str(program), str(library), f"-Wl,-rpath,{library.parent}"], check=True)
            done[text] = program
        return done[text]

    return compile_once
