"""Programs that are run to their end, and what they may cost while they run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.process.program import Finished, run_program
from modelwright.core.process.transport import Program


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Returns a function that runs a script, a module of a library's name beside it; gives its end and its lines."""
    (tmp_path / "json.py").write_text("raise SystemExit(7)")

    def call(body: str, *, timeout_s: float = 60, **fields: Any) -> tuple[Finished, list[str]]:
        script = tmp_path / "script.py"
        script.write_text(f"import json, os, sys, time\n{body}")
        lines: list[str] = []
        program = Program(arguments=(str(script),), **fields)
        done = run_program(
            program, purpose="the script", timeout_s=timeout_s, error=ToolchainMissingError, on_line=lines.append
        )
        return done, lines

    return call


def test_lines_come_out_and_the_last_ones_are_kept(run: Any) -> None:
    done, lines = run("print('a\\n\\nb'); print('c', end=''); print('of stderr', file=sys.stderr); sys.exit(3)")
    assert done == Finished(code=3, tail=("a", "", "b", "c", "of stderr"))
    assert lines == ["a", "", "b", "c"]


def test_it_has_nothing_to_read(run: Any) -> None:
    assert run("sys.exit(len(sys.stdin.read()))")[0].code == 0


def test_variables_are_set_and_taken_away(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAKEN", "1")
    body = "print(os.environ.get('TAKEN'), os.environ.get('SET'), sys.flags.isolated, sys.flags.safe_path)"
    assert run(body, environment={"TAKEN": None, "SET": "2"})[1] == ["None 2 0 True"]
    assert run(body, isolated=True)[1] == ["1 None 1 True"]


@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(60)",
        "while True: print('x' * 9999)",
        "while True: sys.stdout.write('x' * 9999)",
        "os.close(1); time.sleep(60)",
        "os.fork() or time.sleep(60); os.wait()",
        "os.kill(os.getpid(), 19)",
    ],
)
def test_whatever_it_does_it_ends_at_its_limit(run: Any, body: str) -> None:
    started = time.monotonic()
    with pytest.raises(ToolchainMissingError, match=r"the script took longer than 0\.5 s and was stopped"):
        run(body, timeout_s=0.5)
    assert time.monotonic() - started < 20


def test_a_fork_that_keeps_the_output_open_is_not_waited_for(run: Any) -> None:
    assert run("print('done', flush=True); os.fork() or time.sleep(60)")[0] == Finished(code=0, tail=("done",))


def test_a_line_without_an_end_costs_no_memory(run: Any) -> None:
    done, lines = run("[sys.stdout.write('x' * 10**6) for _ in range(100)]")
    assert done.code == 0
    assert len(lines) == 1
    assert len(lines[0]) <= 2**16


def test_what_the_reader_of_lines_raises_ends_it(run: Any, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import time\nprint('line', flush=True)\ntime.sleep(60)")

    def refuse(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_program(
            Program(arguments=(str(script),)), purpose="x", timeout_s=60, error=ToolchainMissingError, on_line=refuse
        )
