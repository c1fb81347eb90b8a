"""What the commands print of names and messages that come from elsewhere: it is read, it does not act."""

from __future__ import annotations

import io
import sys
from typing import Any

import documents
import pytest

from modelwright.cli import main, printing
from modelwright.core.errors import BadInputError, LimitNotMetError
from modelwright.harness.progress import Progress

EVIL = "x\x1b[31m\x1b]0;title\x07\u202e"
SHOWN = "x?]0;title??"


def test_colours_go_and_other_controls_are_replaced() -> None:
    assert printing.readable(f"{EVIL}\ny") == f"{SHOWN} y"


def test_an_error_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    main._show_error(BadInputError(f"{EVIL} has no input", hint=f"rename {EVIL}", detail=f"vendor:\n{EVIL}"))
    assert capsys.readouterr().err == (f"error: {SHOWN} has no input\n  | vendor:\n  | {SHOWN}\nhint: rename {SHOWN}\n")


def test_a_value_is_folded_beside_its_name_on_a_terminal_and_whole_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printing.print_field("with", "numpy 2, onnx 1")
    assert capsys.readouterr().out == "with               numpy 2, onnx 1\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "28")
    monkeypatch.setenv("TERM", "xterm")
    printing.print_field("with", "numpy 2, onnx 1")
    assert capsys.readouterr().out == "with               numpy 2,\n                   onnx 1\n"


def over_the_limit(target: str, title: str) -> dict[str, Any]:
    return documents.make_unmeasured(target, title, "failed", f"{target} loses too much") | {"exit_code": 7}


def test_the_baseline_alone_keeps_no_limit() -> None:
    fp32 = documents.make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=4.0)
    int8 = over_the_limit("ort-int8", "ONNX Runtime INT8")
    with pytest.raises(
        LimitNotMetError, match="no target but ort-fp32 keeps to --max-drop; what ort-int8 would lose is told above"
    ):
        printing.require_limits(documents.read(documents.make_document([fp32, int8])))
    other = documents.make_row("ort-int8-dynamic", "ONNX Runtime INT8 dynamic", latency_ms=2.0, ratio=2.0)
    printing.require_limits(documents.read(documents.make_document([fp32, int8, other])))
    printing.require_limits(documents.read(documents.make_document([fp32])))


@pytest.mark.parametrize("make", [printing.LineProgress, printing.LiveProgress])
def test_progress_cannot_steer_the_terminal(make: type[Progress], capsys: pytest.CaptureFixture[str]) -> None:
    progress = make()
    shown = io.StringIO()
    if isinstance(progress, printing.LiveProgress):
        progress._progress.console.file = shown
    progress.start("export", f"exporting {EVIL}")
    progress.say("export", EVIL)
    progress.finish("export", f"{EVIL}.onnx")
    text = shown.getvalue() + capsys.readouterr().err
    assert f"ok {SHOWN}.onnx\n" in text
    assert not {"\x07", "\u202e"} & set(text)
    assert "\x1b]" not in text
