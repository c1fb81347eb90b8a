"""The check of a GPU machine: every part gets its time, whatever others do, and what is known is always written."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_driver.build import build_fake_driver

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", BENCHMARKS / "gpu_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    return module


def make_part(check: ModuleType, name: str, code: str, limit_s: float = 20.0) -> Any:
    return check.Part(name=name, command=("-c", code), limit_s=limit_s, read=check.read_figures)


def run(check: ModuleType, path: Path, parts: list[Any]) -> dict[str, Any]:
    check.run_parts(parts, {"gpu": "NVIDIA Fake"}, path, time.monotonic())
    written = json.loads(path.read_text())
    assert isinstance(written, dict)
    return written


def test_a_part_that_hangs_or_fails_takes_nothing_from_the_next(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_GRACE_S", 0.5)
    monkeypatch.setattr(check, "BUDGET_S", 26.0)  # two limits, a second for the hanging one, and the grace
    hang = "import signal, time; signal.signal(15, signal.SIG_IGN); print('begun', flush=True); time.sleep(300)"
    good = "import sys, json, pathlib; pathlib.Path(sys.argv[1], 'x.json').write_text(json.dumps({'ratio': 1.0}))"
    parts = [
        make_part(check, "hangs", hang, limit_s=1.0),
        make_part(check, "fails", "print('no such GPU'); raise SystemExit(3)", limit_s=12.0),
        check.Part(name="works", command=("-c", good, "{out}"), limit_s=12.0, read=check.read_figures),
    ]
    hangs, fails, works = run(check, tmp_path / "gpu.json", parts)["parts"]
    assert (hangs["outcome"], hangs["exit_code"], hangs["limit_s"]) == ("timed out", None, pytest.approx(1.0, abs=0.1))
    assert "begun" in hangs["output"]
    assert (fails["outcome"], fails["exit_code"]) == ("failed", 3)
    assert "no such GPU" in fails["output"]
    assert (works["outcome"], works["figures"]) == ("passed", {"ratio": 1.0})
    assert fails["limit_s"] >= 11.5
    assert works["limit_s"] >= fails["limit_s"], "what is left over goes to those after it"


def test_the_json_is_written_after_every_part(check: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "new" / "gpu.json"
    code = f"import pathlib, sys; pathlib.Path(sys.argv[1], 'seen.json').write_text(open({str(path)!r}).read())"
    parts = [
        make_part(check, "first", ""),
        check.Part(name="second", command=("-c", code, "{out}"), limit_s=20.0, read=check.read_figures),
    ]
    written = run(check, path, parts)
    seen = written["parts"][1]["figures"]
    assert [(part["name"], part["outcome"]) for part in seen["parts"]] == [("first", "passed"), ("second", "not run")]
    assert seen["finished"] is False
    assert written["finished"] is True


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_what_a_part_started_ends_with_it(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_GRACE_S", 0.5)
    monkeypatch.setattr(check, "BUDGET_S", 3.0)
    pid = tmp_path / "pid"
    code = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']); "
        f"open({str(pid)!r}, 'w').write(str(child.pid)); time.sleep(300)"
    )
    run(check, tmp_path / "gpu.json", [make_part(check, "starts", code, limit_s=2.0)])
    deadline = time.monotonic() + 30
    while is_running(int(pid.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_who_ends_the_check_ends_its_part_and_keeps_what_is_known(tmp_path: Path) -> None:
    pid, path = tmp_path / "pid", tmp_path / "gpu.json"
    hang = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    code = (
        "import sys, signal, time; sys.path.insert(0, sys.argv[1]); import gpu_check; from pathlib import Path\n"
        "part = lambda name, code: gpu_check.Part(\n"
        "    name=name, command=('-c', code), limit_s=60, read=gpu_check.read_figures)\n"
        "signal.signal(signal.SIGTERM, gpu_check._leave)\n"
        "parts = [part('first', ''), part('hangs', sys.argv[3])]\n"
        "gpu_check.run_parts(parts, {'gpu': 'NVIDIA Fake'}, Path(sys.argv[2]), time.monotonic())"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(BENCHMARKS), str(path), hang])
    deadline = time.monotonic() + 60
    while not pid.exists() or not pid.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 143
    while is_running(int(pid.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    written = json.loads(path.read_text())
    assert [(part["name"], part["outcome"]) for part in written["parts"]] == [("first", "passed"), ("hangs", "not run")]
    assert written["finished"] is False


def test_half_a_file_is_said_and_costs_no_other_part(check: ModuleType, tmp_path: Path) -> None:
    code = "import pathlib, sys; pathlib.Path(sys.argv[1], 'x.json').write_text('{\"ratio\": ')"
    part = check.Part(name="half", command=("-c", code, "{out}"), limit_s=20.0, read=check.read_figures)
    tests = check.Part(name="tests", command=("-c", ""), limit_s=20.0, read=check.count_tests)
    half, missing = run(check, tmp_path / "gpu.json", [part, tests])["parts"]
    assert half["figures"] is None
    assert "JSONDecodeError" in half["unreadable"]
    assert "FileNotFoundError" in missing["unreadable"]


def test_tests_are_counted(check: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "tests.xml").write_text(
        "<testsuites><testsuite>"
        "<testcase classname='a' name='one'/><testcase classname='a' name='two'><failure message='x'/></testcase>"
        "<testcase classname='b' name='three'><skipped message='no modelopt'/></testcase>"
        "<testcase classname='b' name='four'><skipped message='no modelopt'/></testcase>"
        "</testsuite></testsuites>"
    )
    assert check.count_tests(tmp_path) == {"passed": 1, "failed": ["a::two"], "skipped": {"no modelopt": 2}}


def test_the_limits_of_all_parts_fit_into_the_budget(check: ModuleType) -> None:
    parts = check.choose_parts("quick", 1)
    assert [part.name for part in parts] == ["tests", "twins", "eager", "compiled"]
    assert sum(part.limit_s for part in parts) + 2 * check._GRACE_S <= check.BUDGET_S <= 480


def test_without_a_gpu_one_line_says_so(tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable}
    done = subprocess.run(
        [BENCHMARKS / "gpu_check", "--out", tmp_path / "gpu.json"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr.startswith("there is no GPU to check: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "gpu.json").exists()


def test_a_missing_package_is_said_with_its_cure(
    check: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(check.NEEDED, "no_such_package", "no-such-package")
    assert check.main([]) == 4
    assert "missing here: no-such-package; in this checkout: python3 -m venv" in capsys.readouterr().err


def test_on_a_fake_driver_it_says_what_it_checked(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import gpu_check; from pathlib import Path\n"
        "part = gpu_check.Part(name='quick', command=('-c', ''), limit_s=20, read=gpu_check.read_figures)\n"
        "sys.exit(gpu_check.main(['--out', sys.argv[2]], [part]))"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(build_fake_driver(tmp_path / "driver"))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(BENCHMARKS), str(tmp_path / "gpu.json")],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["gpu"]
    assert written["driver"]
    assert written["cuda"]
    assert {"torch", "onnxruntime", "modelwright"} <= written["versions"].keys()
    assert [part["outcome"] for part in written["parts"]] == ["passed"]
