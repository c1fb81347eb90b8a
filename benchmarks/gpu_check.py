"""All that waits for an NVIDIA GPU, in one call of at most 8 minutes: the tests, twins, comparisons with energy.

Each part runs in processes of its own under a time limit of its own, so that one that hangs takes no other's time; what
a part leaves over goes to those after it. After every part the JSON is written anew: GPU, driver, versions, and of each
part how it ended, in how many seconds, and its figures.

Exit codes: 0 all parts passed, 1 some did not, 4 there is no GPU or a package is missing; nothing is installed, it says
what to install.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BUDGET_S = 480.0
_GRACE_S = 5.0
"""For a part to end its own processes when its time is over, before it is killed."""
_TAIL_CHARS = 4000
NEEDED = {
    "modelwright": ".",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "pytest": "pytest",
    "pytest_timeout": "pytest-timeout",
    "safetensors": "safetensors",
    "torch": "torch",
}
"""Import name -> what pip installs it by, in this checkout."""
BOOTSTRAP = "python3 -m venv --system-site-packages .venv && .venv/bin/pip install"
NO_GPU = 4


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something to run.

    Attributes:
        name: In the JSON.
        command: Python's arguments; `{out}` is a folder for what it writes.
        limit_s: That it always has.
        read: Returns its figures from that folder; None where it left none.
    """

    name: str
    command: tuple[str, ...]
    limit_s: float
    read: Callable[[Path], Any]


def main(argv: Sequence[str] | None = None, parts: Sequence[Part] | None = None) -> int:
    """Runs the parts and writes the JSON; returns the exit code.

    Args:
        argv: Arguments of the command line.
        parts: Other ones than those that suit the machine.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the JSON; default: benchmarks/results/gpu-check-NAME.json")
    parser.add_argument("--effort", default="quick", help="of the comparisons")
    parser.add_argument("--batch", type=int, default=1, help="of the comparisons and the twins")
    parser.add_argument("--part", action="append", help="only these parts")
    arguments = parser.parse_args(argv)
    begun = time.monotonic()
    missing = [install for name, install in NEEDED.items() if importlib.util.find_spec(name) is None]
    if missing:
        print(f"missing here: {', '.join(missing)}; in this checkout: {BOOTSTRAP} {' '.join(missing)}", file=sys.stderr)
        return NO_GPU
    from modelwright.core.nvidia.probe import probe_driver

    status = probe_driver()
    if not status.ok:
        print(f"there is no GPU to check: {status.reason} (hint: {status.hint})", file=sys.stderr)
        return NO_GPU
    signal.signal(signal.SIGTERM, _leave)
    record = describe_machine()
    chosen = [
        part
        for part in (choose_parts(arguments.effort, arguments.batch) if parts is None else parts)
        if not arguments.part or part.name in arguments.part
    ]
    name = re.sub(r"[^a-z0-9]+", "-", str(record["gpu"]).lower()).strip("-")
    path = arguments.out or HERE / "results" / f"gpu-check-{name}.json"
    run_parts(chosen, record, path, begun)
    print(path)
    return 0 if all(part["outcome"] == "passed" for part in record["parts"]) else 1


def describe_machine() -> dict[str, Any]:
    """Returns what was checked on: GPU, driver and versions."""
    from modelwright.harness.results.assemble import describe_environment
    from modelwright.profiles import detect_host

    environment = describe_environment(detect_host())
    card = environment.accelerators[0] if environment.accelerators else None
    return {
        "gpu": None if card is None else card.name,
        "compute_capability": None if card is None else card.compute_capability,
        "driver": None if card is None else card.driver_version,
        "cuda": None if card is None else card.cuda_version,
        "processor": environment.cpu_model,
        "system": environment.os,
        "python": platform.python_version(),
        "versions": environment.versions,
        "timestamp": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "budget_s": BUDGET_S,
    }


def choose_parts(effort: str, batch: int) -> list[Part]:
    """Returns the parts that this machine has the packages for; their limits come to less than the budget."""
    from modelwright.profiles import detect_host
    from modelwright.targets.table import get_target

    machine = detect_host().machine()
    ort = [
        name
        for name in ("ort-cuda-fp32", "ort-cuda-fp16")
        if get_target(name).check_build(machine).ok and get_target(name).check_run(machine).ok
    ]
    measure = (str(HERE / "gpu.py"), f"--batch={batch}", "--results={out}")
    compare = (*measure, "--part=comparison", f"--effort={effort}", "--target=torch-fp32")
    eager, compiled = ("torch-fp16", "torch-bf16", *ort), ("torch-compile-fp32", "torch-compile-fp16")
    return [
        Part(
            name="tests",
            command=(
                "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "--timeout=60",
                "--junitxml={out}/tests.xml", str(HERE.parent / "tests" / "integration"),
            ),
            limit_s=110,
            read=count_tests,
        ),
        Part(name="twins", command=(*measure, "--part=twins"), limit_s=90, read=read_figures),
        Part(
            name="eager",
            command=(*compare, *(f"--target={name}" for name in eager)),
            limit_s=140,
            read=read_figures,
        ),
        Part(
            name="compiled",
            command=(*compare, *(f"--target={name}" for name in compiled)),
            limit_s=120,
            read=read_figures,
        ),
    ]  # fmt: skip


def run_parts(parts: Sequence[Part], record: dict[str, Any], path: Path, begun: float) -> None:
    """Runs one part after the other and writes the JSON after each.

    Args:
        parts: To run.
        record: Gets `parts`, `seconds` and `finished`.
        path: Of the JSON.
        begun: When the budget began, by `time.monotonic`.
    """
    record |= {
        "parts": [{"name": part.name, "outcome": "not run"} for part in parts],
        "seconds": 0.0,
        "finished": False,
    }
    write_whole(path, record)
    for index, part in enumerate(parts):
        reserved_s = sum(later.limit_s for later in parts[index + 1 :])
        left_s = BUDGET_S - (time.monotonic() - begun) - 2 * _GRACE_S
        print(f"{part.name} ...", flush=True)
        record["parts"][index] = run_part(part, min(left_s, max(part.limit_s, left_s - reserved_s)))
        ended = record["parts"][index]
        print(f"{part.name}: {ended['outcome']} after {ended['seconds']} s", flush=True)
        record["seconds"] = round(time.monotonic() - begun, 1)
        record["finished"] = index == len(parts) - 1
        write_whole(path, record)


def run_part(part: Part, limit_s: float) -> dict[str, Any]:
    """Runs a part in a process group of its own, which ends with it; returns how it ended."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, tempfile.TemporaryFile("w+b") as output:
        arguments = [argument.replace("{out}", folder) for argument in part.command]
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=HERE.parent,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(max(limit_s, 0.0))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
        outcome = "timed out" if code is None else "passed" if code == 0 else "failed"
        figures, fault = None, None
        try:
            figures = part.read(Path(folder))
        except (OSError, ValueError, ET.ParseError) as error:  # a part that was ended may have left half a file
            fault = f"{type(error).__name__}: {error}"
        output.seek(0, os.SEEK_END)
        output.seek(max(0, output.tell() - _TAIL_CHARS))
        tail = output.read().decode(errors="replace")
    return {
        "name": part.name,
        "outcome": outcome,
        "exit_code": code,
        "seconds": round(time.monotonic() - started, 1),
        "limit_s": round(limit_s, 1),
        "figures": figures,
        **({} if fault is None else {"unreadable": fault}),
        **({} if outcome == "passed" else {"output": tail}),
    }


def _leave(signum: int, _frame: object) -> None:
    """Ends this program by an exception, so that the part that runs ends with it; what is known is written already."""
    sys.exit(128 + signum)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all of its group, kindly first: its children of other groups end when it does."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


def count_tests(folder: Path) -> dict[str, Any]:
    """Returns how many tests passed, failed and were skipped, and why; failed ones by name."""
    suites = ET.parse(folder / "tests.xml").getroot()
    cases = list(suites.iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    reasons = [skipped.get("message", "") for case in cases if (skipped := case.find("skipped")) is not None]
    return {
        "passed": len(cases) - len(failed) - len(reasons),
        "failed": [f"{case.get('classname')}::{case.get('name')}" for case in failed],
        "skipped": {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
    }


def read_figures(folder: Path) -> Any:
    """Returns what `gpu.py` wrote; None when it wrote nothing."""
    path = next(folder.glob("*.json"), None)
    return None if path is None else json.loads(path.read_text())


def write_whole(path: Path, record: dict[str, Any]) -> None:
    """Writes the JSON under another name first: it is whole at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(record, indent=1) + "\n")
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
