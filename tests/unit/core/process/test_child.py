from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import models
import pytest

from modelwright.core.errors import BadInputError, BuildFailedError, MeasurementInvalidError, ToolchainMissingError
from modelwright.core.process.child import Child, run_in_child

HERE = "children"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def test_result_comes_back_from_another_process() -> None:
    with Child("adding") as child:
        assert child.call(f"{HERE}:add", {"a": 2, "b": 3}) == 5
        assert child.call(f"{HERE}:own_pid") == child.pid != os.getpid()


def test_state_stays_between_calls_of_one_child_only() -> None:
    with Child("keeping") as first, Child("keeping") as second:
        first.call(f"{HERE}:keep", {"value": 7})
        assert first.call(f"{HERE}:recall") == 7
        assert second.call(f"{HERE}:recall") is None


def test_own_error_keeps_its_class_and_hint() -> None:
    with pytest.raises(BadInputError, match="the file is bad") as caught:
        run_in_child(f"{HERE}:refuse", {}, purpose="reading")
    assert caught.value.hint == "bring another"


def test_foreign_error_becomes_the_crash_error_with_its_traceback() -> None:
    with pytest.raises(MeasurementInvalidError, match="measuring x failed: KeyError") as caught:
        run_in_child(f"{HERE}:break_down", {}, purpose="measuring x", crash_error=MeasurementInvalidError)
    assert "something of a vendor" in (caught.value.detail or "")


def test_crash_names_the_signal_the_phase_and_the_vendors_last_words() -> None:
    with pytest.raises(BuildFailedError, match=r"crashed during loading the model: .* SIGABRT") as caught:
        run_in_child(f"{HERE}:abort", {}, purpose="building y")
    assert "assertion failed in kernel.cc" in (caught.value.detail or "")


def test_hang_is_ended_after_the_timeout() -> None:
    started = time.monotonic()
    with pytest.raises(BuildFailedError, match=r"did not answer within 0\.3 s"):
        run_in_child(f"{HERE}:sleep", {"seconds": 60}, purpose="building z", timeout_s=0.3)
    assert time.monotonic() - started < 30


def test_progress_reaches_the_parent() -> None:
    told: list[str] = []
    with pytest.raises(BuildFailedError):
        run_in_child(f"{HERE}:abort", {}, purpose="x", progress=told.append)
    assert told == ["loading the model"]


def test_what_vendors_print_does_not_disturb_the_answers(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_in_child(f"{HERE}:print_much", {}, purpose="printing") == "done"
    assert capfd.readouterr().out == ""


def test_a_dead_child_is_an_error_not_a_hang() -> None:
    with Child("dying") as child:
        pid = child.call(f"{HERE}:own_pid")
        os.kill(pid, 9)
        with pytest.raises(BuildFailedError, match="SIGKILL"):
            child.call(f"{HERE}:own_pid")


def test_close_ends_what_the_child_started() -> None:
    child = Child("starting")
    grandchild = child.call(f"{HERE}:start_grandchild")
    child.close()
    assert ends(grandchild)


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().split(")")[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_nothing_outlives_a_parent_that_was_killed() -> None:
    code = f"""
import os, signal
from modelwright.core.process.child import Child
child = Child("starting")
print(child.pid, child.call("{HERE}:start_grandchild"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert all(ends(int(pid)) for pid in done.stdout.split())


def test_a_package_that_is_missing_in_the_child_is_a_missing_toolchain() -> None:
    with pytest.raises(ToolchainMissingError, match="a_package_that_nobody_has is not installed"):
        run_in_child(f"{HERE}:lack_a_package", {}, purpose="importing")


def test_a_full_disk_in_the_child_is_told_as_such() -> None:
    with pytest.raises(BuildFailedError, match="no space left on the disk"):
        run_in_child(f"{HERE}:fill_the_disk", {}, purpose="writing")


def test_interrupt_ends_a_busy_child_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Child("busy") as child:
        child.call(f"{HERE}:own_pid")
        raise KeyboardInterrupt
    assert time.monotonic() - started < 10


def test_onnxruntime_keeps_no_telemetry_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
    model = models.make_cnn(tmp_path / "cnn.onnx")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    assert run_in_child(f"{HERE}:open_onnxruntime", {"model": str(model)}, purpose="opening a session") == []
