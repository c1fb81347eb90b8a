"""Compiles the stand-ins for the NVIDIA driver's libraries, for tests on machines without a GPU."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pynvml
import pytest

_SOURCES = {"cuda.c": "libcuda.so.1", "nvml.c": "libnvidia-ml.so.1"}


def build_fake_driver(folder: Path, *, defines: Sequence[str] = ()) -> Path:
    """Compiles the fake `libcuda.so.1` and `libnvidia-ml.so.1`; skips the test where there is no C compiler.

    Args:
        folder: Where to put them; made when it is not there.
        defines: Of the sources: `OLD_DRIVER`, `ANCIENT_DRIVER`, `CRASHING`.

    Returns:
        The folder, for `LD_LIBRARY_PATH` of a child process: the dynamic loader reads it once, at a process's start.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler to make the fake NVIDIA driver with")
    folder.mkdir(parents=True, exist_ok=True)
    for source, library in _SOURCES.items():
        path = Path(__file__).parent / source
        if path.exists():
            subprocess.run(
                [
                    *(compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
                    *(f"-D{define}" for define in defines),
                    *(f"-Wl,-soname,{library}", "-o", str(folder / library), str(path)),
                ],
                check=True,
            )
    return folder


def use_fake_nvml(monkeypatch: pytest.MonkeyPatch, library: str | Path | None) -> None:
    """Lets NVIDIA's own binding run against a library, in this process and this test; None for no driver at all."""

    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(pynvml, "nvmlLib", None if library is None else ctypes.CDLL(str(library)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(pynvml, "CDLL", refuse)
