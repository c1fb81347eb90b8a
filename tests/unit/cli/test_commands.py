"""The command line as a user meets it, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import documents
import pytest

from modelwright.cli import main
from modelwright.cli.printing import print_comparison

COMMANDS = tuple(main._COMMANDS)


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelwright.cli", *arguments],
        capture_output=True, text=True, check=False, cwd=cwd, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_in_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = run(command, "--help")
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    assert "Usage:" in done.stdout
    assert len(done.stdout.splitlines()) > 8


def test_the_list_names_every_command_and_exit_code() -> None:
    text = run("--help").stdout
    assert all(f"  {command} " in text for command in COMMANDS)
    assert "7 a limit you set was not met" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nonsense",), 2, "No such command"),
        (("compare", "m.onnx"), 2, "--samples"),
        (("compare", "m.onnx", "-s", "s.npz", "-o", "o", "-t", "ort-int9"), 2, "did you mean ort-int8"),
        (("compare", "m.onnx", "-s", "s.npz", "-o", "o", "--effort", "huge"), 2, "huge"),
        (("compare", "absent.onnx", "-s", "s.npz", "-o", "o"), 3, "absent.onnx"),
        (("export", "absent.onnx", "-o", "o.onnx"), 3, "absent.onnx"),
        (("inspect", "absent"), 3, "no such artifact"),
        (("verify", "absent"), 3, "no such artifact"),
        (("measure", "absent"), 3, "no such artifact"),
        (("profiles", "raspbery-pi-5"), 3, "raspberry-pi-5"),
        (("targets", "--profile", "absent.toml"), 3, "absent.toml"),
    ],
)
def test_mistakes_get_one_clear_error(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_options_of_a_comparison_stand_under_headings() -> None:
    sections = dict(part.split(":\n", 1) for part in run("compare", "--help").stdout.split("\n\n") if ":\n  -" in part)
    assert [title.strip() for title in sections][:5] == [
        "Options", "Building", "Pictures and texts as samples", "Measuring", "On a GPU",
    ]  # fmt: skip
    assert "--cuda-graph" in sections["On a GPU"]
    assert "--cuda-graph" not in sections["Options"]
    assert "SOURCE" not in sections["Options"]


def test_errors_are_json_when_asked(tmp_path: Path) -> None:
    done = run("inspect", "absent", "--json", cwd=tmp_path)
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert error["exit_code"] == 3
    assert "no such artifact" in error["message"]


def test_schema_prints_and_writes_the_json_schema(tmp_path: Path) -> None:
    printed = json.loads(run("schema", "results").stdout)
    assert printed["$ref"] == "#/$defs/Comparison"
    assert run("schema", "results", "--out", "s.json", cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "s.json").read_text()) == printed
    again = run("schema", "results", "--out", "s.json", cwd=tmp_path)
    assert (again.returncode, "s.json exists" in again.stderr) == (3, True)
    assert run("schema", "results", "--out", "s.json", "--overwrite", cwd=tmp_path).returncode == 0
    assert run("schema", "manifest").returncode == 2


def test_targets_says_of_each_whether_it_can_be_built_and_run() -> None:
    rows = json.loads(run("targets", "--json").stdout)
    assert {"ort-fp32", "ort-int8", "openvino-bf16", "tflite-int8-dynamic"} <= {row["target"] for row in rows}
    for row in rows:
        for what in ("build", "run"):
            assert row[what]["ok"] or row[what]["reason"]


def test_bf16_is_refused_for_a_cpu_without_it() -> None:
    rows = {row["target"]: row for row in json.loads(run("targets", "--profile", "x86-avx2", "--json").stdout)}
    assert not rows["openvino-bf16"]["build"]["ok"]
    assert "bf16" in rows["openvino-bf16"]["build"]["reason"]


def test_profiles_lists_all_and_shows_one() -> None:
    rows = json.loads(run("profiles", "--json").stdout)
    assert {"raspberry-pi-5", "x86-amx", "nvidia-h200"} <= {row["name"] for row in rows}
    shown = json.loads(run("profiles", "desktop-i5-10400").stdout)
    assert (shown["power"]["tdp_w"], shown["power"]["inference_share"], shown["power"]["idle_w"]) == (65, 0.4, 5)


def test_details_print_what_does_not_fit_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = documents.read(documents.images())
    print_comparison(comparison, as_json=False)
    assert "first inference" not in capsys.readouterr().out
    print_comparison(comparison, as_json=False, details=True)
    assert "first inference" in capsys.readouterr().out
