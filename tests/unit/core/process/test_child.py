from __future__ import annotations

import contextlib
import itertools
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import models
import pytest

from modelwright.core.errors import BadInputError, BuildFailedError, MeasurementInvalidError, ToolchainMissingError
from modelwright.core.process.child import Child, run_in_child
from modelwright.core.process.pipes import PumpedPipes
from modelwright.core.process.transport import LOG_BYTES, LocalTransport, Program

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


def test_numpys_threads_wait_for_nobody_unless_someone_asks_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "OPENBLAS_NUM_THREADS"
    monkeypatch.delenv(name, raising=False)
    assert run_in_child("os:getenv", {"key": name}, purpose="asking") == "1"
    monkeypatch.setenv(name, "3")
    assert run_in_child("os:getenv", {"key": name}, purpose="asking") == "3"
    with Child("asking", threads=2) as child:
        assert child.call("os:getenv", {"key": name}) == "2"


def test_torchs_threads_sleep_while_they_wait_unless_they_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "OMP_WAIT_POLICY"
    monkeypatch.delenv(name, raising=False)
    assert run_in_child("os:getenv", {"key": name}, purpose="asking") == "PASSIVE"
    with Child("asking", threads=2) as child:
        assert child.call("os:getenv", {"key": name}) is None
    monkeypatch.setenv(name, "ACTIVE")
    assert run_in_child("os:getenv", {"key": name}, purpose="asking") == "ACTIVE"


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


def test_nothing_crashes_during_what_is_over() -> None:
    told: list[str] = []
    with pytest.raises(BuildFailedError, match=r"crashed during training: "):
        run_in_child(f"{HERE}:abort_after_telling", {}, purpose="building y", progress=told.append)
    assert told == ["training", "* epoch 1 is over"]


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


def test_a_result_that_is_no_json_is_said_to_be_that() -> None:
    with Child("asking") as child:
        for function in ("return_a_set", "return_itself"):
            with pytest.raises(BuildFailedError, match=f"{HERE}:{function} returned what cannot be sent back as JSON"):
                child.call(f"{HERE}:{function}")
        assert child.call(f"{HERE}:add", {"a": 1, "b": 1}) == 2, "the child is none the worse for it"


# Threads


def test_a_child_outlives_the_thread_that_started_it() -> None:
    made: list[Child] = []

    def start() -> None:
        made.append(Child("living on"))
        made[0].call(f"{HERE}:keep", {"value": 7})

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    time.sleep(0.2)  # for a signal at the thread's end to arrive
    with made[0] as child:
        assert child.call(f"{HERE}:recall") == 7


@pytest.mark.parametrize("forked", [False, True])
def test_a_child_of_a_thread_that_ended_dies_with_a_parent_that_was_killed(forked: bool) -> None:
    """Also where a fork of the parent, with copies of all that it holds open, lives on."""
    code = f"""
import os, signal, threading, time
from modelwright.core.process.child import Child
made = []
thread = threading.Thread(target=lambda: made.append(Child("starting")))
thread.start(); thread.join()
print(made[0].pid, made[0].call("{HERE}:start_grandchild"), flush=True)
threading.Thread(target=made[0].call, args=("{HERE}:sleep", {{"seconds": 60}}), daemon=True).start()
time.sleep(0.1)
if {forked}:
    fork = os.fork()
    if fork == 0:
        os.close(1), os.close(2)
        time.sleep(60)
    print("fork", fork, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    *pids, fork = f"{done.stdout} 0".split() if not forked else done.stdout.replace("fork", "").split()
    try:
        assert all(ends(int(pid)) for pid in pids)
    finally:
        if forked:
            os.kill(int(fork), signal.SIGKILL)


def test_many_children_of_many_threads() -> None:
    def ask(number: int) -> int:
        with Child(f"number {number}") as child:
            return int(child.call(f"{HERE}:add", {"a": number, "b": 1}))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(24))) == list(range(1, 25))


def test_ending_a_child_frees_the_thread_that_waits_for_it() -> None:
    child = Child("busy")
    caught: list[Exception] = []

    def wait() -> None:
        try:
            child.call(f"{HERE}:sleep", {"seconds": 60})
        except BuildFailedError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    child.close()
    thread.join(20)
    assert str(caught[0]) == "busy was closed, before it had answered"


# Children that misbehave


def test_endless_answers_end_at_the_deadline_and_cost_no_memory() -> None:
    started = time.monotonic()
    with pytest.raises(BuildFailedError, match=r"more than 64 MiB|did not answer within 5 s"):
        run_in_child(f"{HERE}:answer_without_end", {"seconds": 60}, purpose="x", timeout_s=5)
    with pytest.raises(BuildFailedError, match=r"did not answer within 0\.5 s during still at it"):
        run_in_child(f"{HERE}:report_for_ever", {}, purpose="x", timeout_s=0.5)
    assert time.monotonic() - started < 40
    assert read_own_peak_bytes() < 2**31


def read_own_peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.slow
def test_a_long_log_costs_neither_memory_nor_much_disk() -> None:
    with Child("printing") as child:
        before = read_own_peak_bytes()
        assert child.call(f"{HERE}:print_for_long", {"megabytes": 300}) == 300
        assert child.call(f"{HERE}:add", {"a": 1, "b": 1}) == 2
        assert os.fstat(child._process._log.file.fileno()).st_size <= LOG_BYTES  # type: ignore[attr-defined]
        with pytest.raises(BuildFailedError, match="SIGKILL") as caught:
            child.call(f"{HERE}:print_and_die", {"megabytes": 50})
        assert str(caught.value.detail).endswith("the very last line")
        assert len(str(caught.value.detail)) < 100_000
        assert read_own_peak_bytes() - before < 50e6


def test_nonsense_in_place_of_an_answer_is_an_error() -> None:
    with pytest.raises(BuildFailedError, match="something that is no message of ours"):
        run_in_child(f"{HERE}:answer_nonsense", {}, purpose="x", timeout_s=30)


def test_a_child_that_closes_its_pipe_and_lives_on_is_ended() -> None:
    with Child("hiding") as child:
        with pytest.raises(BuildFailedError, match="closed the pipe that it answers on and was stopped"):
            child.call(f"{HERE}:close_pipes_and_live")
        assert ends(child.pid)


def test_a_child_that_closes_all_it_has_open_is_ended() -> None:
    with Child("closing") as child:
        with pytest.raises(BuildFailedError, match="crashed: the process left with exit code"):
            child.call(f"{HERE}:close_everything", timeout_s=60)
        assert ends(child.pid)


def test_a_fork_that_keeps_the_pipe_open_hides_no_death() -> None:
    with pytest.raises(BuildFailedError, match="SIGKILL"):
        run_in_child(f"{HERE}:leave_a_fork_behind", {}, purpose="x", timeout_s=60)


def stop(pid: int) -> None:
    """Stops a process and waits until all its threads have noticed."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        while path.read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_stopped_child_blocks_nobody_past_the_limit() -> None:
    with Child("stopped") as child:
        child.call(f"{HERE}:own_pid")
        stop(child.pid)
        with pytest.raises(BuildFailedError, match=r"did not take its parameters within 0\.3 s"):
            child.call(f"{HERE}:measure", {"text": "x" * 1_000_000}, timeout_s=0.3)
        with pytest.raises(BuildFailedError, match="cannot go on: stopped did not take its parameters"):
            child.call(f"{HERE}:own_pid")
        assert ends(child.pid)
    with pytest.raises(BuildFailedError, match=r"did not answer within 0\.3 s"):
        run_in_child(f"{HERE}:stop_first", {}, purpose="x", timeout_s=0.3)


def test_large_parameters_arrive() -> None:
    assert run_in_child(f"{HERE}:measure", {"text": "x" * 5_000_000}, purpose="x") == 5_000_000


def test_a_child_that_dies_under_its_parameters_is_told_as_dead() -> None:
    with Child("dying") as child:
        child.call(f"{HERE}:own_pid")
        stop(child.pid)
        threading.Timer(0.3, os.kill, (child.pid, signal.SIGKILL)).start()
        with pytest.raises(BuildFailedError, match="SIGKILL"):
            child.call(f"{HERE}:measure", {"text": "x" * 1_000_000}, timeout_s=60)


def test_an_interrupted_call_gives_its_answer_to_no_other() -> None:
    def interrupt(phase: str) -> None:
        raise KeyboardInterrupt

    with Child("reporting") as child:
        with pytest.raises(KeyboardInterrupt):
            child.call(f"{HERE}:report_for_ever", progress=interrupt)
        with pytest.raises(BuildFailedError, match="cannot go on"):
            child.call(f"{HERE}:own_pid")


def test_a_closed_child_says_so() -> None:
    child = Child("gone")
    child.close()
    child.close()
    with pytest.raises(BuildFailedError, match="cannot go on: it was closed"):
        child.call(f"{HERE}:own_pid")


def test_too_few_descriptors_are_an_error_that_leaves_nothing_behind() -> None:
    with Child("warming up") as child:
        child.call(f"{HERE}:own_pid")
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = next(number for number in itertools.count() if str(number) not in before)
    refusals = 0
    for more in range(8):
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, limits[1]))
        try:
            Child("starting").close()
        except OSError:
            refusals += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert refusals
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_nothing_is_left_open() -> None:
    with Child("warming up") as child:
        child.call(f"{HERE}:own_pid")
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        with contextlib.suppress(BuildFailedError):
            run_in_child(f"{HERE}:abort", {}, purpose="x")
    with pytest.raises(OSError, match="No such file"):
        LocalTransport().start(Program(arguments=("-V",), python=Path("/nowhere/python")))
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


# What lies about


@pytest.mark.parametrize("path", [None, "", ":"])
def test_modules_in_the_working_directory_are_not_run(
    path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "numpy", "modelwright", "queue"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    if path is not None:  # an empty entry means the working directory to Python
        monkeypatch.setenv("PYTHONPATH", f"{path}{os.environ['PYTHONPATH']}{path}")
    assert "site-packages" in run_in_child(f"{HERE}:where_from", {"module": "numpy"}, purpose="importing")


# Where the system has less than Linux


@pytest.fixture
def _bare_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "killpg")
    monkeypatch.delattr(os, "setsid")
    monkeypatch.delattr(select, "poll")


@pytest.mark.usefixtures("_bare_system")
def test_children_work_where_the_system_has_less() -> None:
    with Child("adding") as child:
        assert type(child._process._pipes) is PumpedPipes  # type: ignore[attr-defined]
        assert child.call(f"{HERE}:measure", {"text": "x" * 1_000_000}) == 1_000_000
        assert child.call(f"{HERE}:print_much") == "done"
        stop(child.pid)
        with pytest.raises(BuildFailedError, match=r"did not take its parameters within 0\.3 s"):
            child.call(f"{HERE}:measure", {"text": "x" * 1_000_000}, timeout_s=0.3)
        assert ends(child.pid)
    with pytest.raises(BuildFailedError, match=r"crashed during loading the model: .* SIGABRT"):
        run_in_child(f"{HERE}:abort", {}, purpose="building y")
    with pytest.raises(BuildFailedError, match=r"did not answer within 0\.3 s"):
        run_in_child(f"{HERE}:sleep", {"seconds": 60}, purpose="building z", timeout_s=0.3)
    with pytest.raises(BuildFailedError, match=r"more than 64 MiB|did not answer"):
        run_in_child(f"{HERE}:answer_without_end", {"seconds": 60}, purpose="x", timeout_s=2)


def test_a_busy_child_ends_with_its_parent_without_any_guard() -> None:
    code = f"""
import os, select, signal, threading, time
del os.killpg, os.setsid, select.poll
from modelwright.core.process.child import Child
child = Child("working")
print(child.pid, flush=True)
threading.Thread(target=child.call, args=("{HERE}:sleep", {{"seconds": 60}}), daemon=True).start()
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert ends(int(done.stdout))


def test_a_file_that_changes_while_it_is_read_is_not_the_models_fault(tmp_path: Path) -> None:
    with Child("reading") as child, pytest.raises(BuildFailedError, match="SIGBUS") as caught:
        child.call(f"{HERE}:read_a_file_cut_short", {"path": str(tmp_path / "samples.npy")})
    assert "changed while it was read" in str(caught.value.hint)
