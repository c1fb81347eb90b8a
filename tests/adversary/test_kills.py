"""A comparison is killed at a random moment: no process stays, nothing is half-written, the same command finishes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tally import Tally, list_hidden

from modelwright.core.errors import ModelwrightError
from modelwright.core.records.artifact import open_artifact, verify_files
from modelwright.core.records.exported import load_exported
from modelwright.harness.results.file import read_results

pytestmark = [pytest.mark.timeout(0), pytest.mark.slow]

_GONE_S = 20.0
"""For the processes of a killed run to be gone."""


def start(place: Path, out: Path, mark: str) -> subprocess.Popen[bytes]:
    words = ["compare", "cnn.onnx", "-s", "samples.npz", "-o", str(out), "-t", "ort-int8", "-e", "quick"]
    return subprocess.Popen(
        [sys.executable, "-m", "modelwright.cli", *words],
        cwd=place,
        env={**os.environ, "ADVERSARY_MARK": mark, "TMPDIR": str(out.parent / "tmp")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def find_processes(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"ADVERSARY_MARK={mark}\0".encode() in (entry / "environ").read_bytes() + b"\0":
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def hash_artifacts(out: Path) -> dict[str, str]:
    """Returns the hashes of all files that a build makes the same each time."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((out / "artifacts").rglob("*.onnx"))
    }


def find_fault(out: Path) -> str | None:
    """Returns what is half-made in a folder under a final name."""
    try:
        for folder in (out / "artifacts").glob("[!.]*"):
            verify_files(open_artifact(folder))
        if (out / "model" / "model.export.json").is_file() and (out / "model" / "model.onnx").is_file():
            load_exported(out / "model" / "model.onnx")
        if (out / "results.json").is_file():
            read_results(out / "results.json")
    except ModelwrightError as error:
        return str(error)
    return None


def test_kills(place: Path, tmp_path: Path, tally: Callable[[str], Tally]) -> None:
    counted = tally("kills")
    (tmp_path / "tmp").mkdir()
    started = time.monotonic()
    assert start(place, tmp_path / "whole", "whole").wait(300) == 0
    whole_s = time.monotonic() - started
    expected = hash_artifacts(tmp_path / "whole")
    assert len(expected) == 2
    for number in counted.scaled(58, least=2):
        out, mark = tmp_path / f"out-{number}", f"{os.getpid()}-{number}"
        generator = counted.generator(number)
        process = start(place, out, mark)
        kills = generator.choice([1, 1, 2])
        for _ in range(kills):
            try:
                process.wait(generator.uniform(0.2, whole_s))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            faults = []
            until = time.monotonic() + _GONE_S
            while (orphans := find_processes(mark)) and time.monotonic() < until:
                time.sleep(0.05)
            faults += [f"lives on: {line}" for line in orphans]
            faults += [fault for fault in (find_fault(out),) if fault]
            process = start(place, out, mark)
        code = process.wait(300)
        faults += [f"the same command ended with {code}"] if code else []
        faults += [f"left behind: {name}" for folder in (out, tmp_path / "tmp") for name in list_hidden(folder)]
        faults += ["other files than undisturbed"] if hash_artifacts(out) != expected else []
        faults += [fault for fault in (find_fault(out),) if fault]
        counted.add("crashed" if faults else "harmless", f"{number}: {'; '.join(faults)}", *([out] if faults else []))
