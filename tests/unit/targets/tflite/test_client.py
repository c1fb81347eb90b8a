"""The border between the tool and the converter's process: what comes back, and what an error becomes."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from onnx import helper

from modelwright.core.errors import BuildFailedError, ModelwrightError, ToolchainMissingError
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.contract import BuildRequest
from modelwright.targets.tflite import client, environment
from modelwright.targets.tflite import target as tflite
from modelwright.targets.tflite.converter import convert
from modelwright.targets.tflite.converter.operators import UnsupportedOperatorError, name_operator

SCRIPT = """
import json, os, pathlib, signal, sys
request = json.loads(pathlib.Path(sys.argv[1]).read_text())
result = pathlib.Path(sys.argv[2])
print("noise of a library", file=sys.stderr)
print("modelwright: half done", flush=True)
print("more noise")
"""


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that runs a step with a script in the converter's place."""
    monkeypatch.setattr(client, "hold_environment", lambda progress: nullcontext(Path(sys.executable)))
    monkeypatch.setattr(client, "doubt_environment", lambda: None)

    def run(body: str, request: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[str]]:
        script = tmp_path / "script.py"
        script.write_text(SCRIPT + body)
        monkeypatch.setattr(client, "_SCRIPT", script)
        lines: list[str] = []
        return client.run_step(request or {"action": "convert"}, lines.append), lines

    return run


def fail_with(converter: Any, error: dict[str, Any]) -> ModelwrightError:
    with pytest.raises(ModelwrightError) as caught:
        converter(f"result.write_text(json.dumps({{'ok': False, 'error': {error!r}}}))")
    return caught.value


def test_the_request_goes_in_and_the_result_comes_out(converter: Any) -> None:
    body = "result.write_text(json.dumps({'ok': True, 'file': request['onnx'], 'isolated': sys.flags.isolated}))"
    result, lines = converter(body, {"action": "convert", "onnx": Path("/models/ä.onnx")})
    assert result == {"ok": True, "file": "/models/ä.onnx", "isolated": 1}
    assert lines == ["half done"]


def test_an_unsupported_operator_is_named_with_its_node(converter: Any) -> None:
    error = fail_with(
        converter, {"kind": "unsupported_operator", "operator": "NonMaxSuppression", "node": "nms", "message": "why"}
    )
    assert isinstance(error, BuildFailedError)
    assert error.message == "TFLite cannot express operator NonMaxSuppression (node nms)"
    assert error.detail == "why"


@pytest.mark.parametrize("kind", ["ModuleNotFoundError", "ImportError"])
def test_a_broken_environment_says_what_to_remove(converter: Any, kind: str) -> None:
    error = fail_with(converter, {"kind": "failed", "type": kind, "message": "No module named 'onnx2tf'"})
    assert isinstance(error, ToolchainMissingError)
    assert str(environment.get_environment_folder()) in str(error.hint)
    assert error.detail == "No module named 'onnx2tf'"


@pytest.mark.parametrize(
    "body",
    [
        "result.write_text(json.dumps({'ok': False, 'error': {'kind': 'failed', 'message': 'bad magic number'}}))",
        "os.kill(os.getpid(), signal.SIGSEGV)",
    ],
    ids=["it fails", "it dies"],
)
def test_a_damaged_environment_is_not_the_models_fault(
    converter: Any, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(client, "doubt_environment", lambda: "has a file that was changed: onnx2tf.py")
    with pytest.raises(
        ToolchainMissingError, match=r"environment in \S+ has a file that was changed: onnx2tf.py"
    ) as caught:
        converter(body)
    assert "run the same command again" in str(caught.value.hint)


def test_any_other_error_keeps_its_words_and_trace(converter: Any) -> None:
    error = fail_with(converter, {"kind": "failed", "type": "ValueError", "message": "bad shape", "trace": "at line 7"})
    assert isinstance(error, BuildFailedError)
    assert "bad shape" in error.message
    assert error.detail == "at line 7"


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", -9), ("os.abort()", -6)]
)
def test_a_converter_that_dies_shows_its_last_lines(converter: Any, end: str, code: int) -> None:
    with pytest.raises(BuildFailedError, match=f"exit code {code}") as caught:
        converter(f"[print('line', n, file=sys.stderr) for n in range(100)]; sys.stderr.flush(); {end}")
    assert str(caught.value.detail).splitlines()[-1] == "line 99"
    assert len(str(caught.value.detail).splitlines()) == 20


def test_half_a_result_is_no_result(converter: Any) -> None:
    with pytest.raises(BuildFailedError, match="exit code 1"):
        converter("result.write_text('{\"ok\": tr'); sys.exit(1)")


def test_libraries_may_print_without_end(converter: Any) -> None:
    result, _ = converter("sys.stdout.write('x' * 10**6); result.write_text('{\"ok\": true}')")
    assert result == {"ok": True}


def test_a_step_that_hangs_is_ended(converter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "STEP_TIMEOUT_S", 0.5)
    with pytest.raises(BuildFailedError, match=r"the TFLite converter took longer than 0\.5 s"):
        converter("sys.stdout.flush(); sys.stderr.flush(); signal.pause()")


def test_what_lies_about_is_not_run(converter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('ran what lay beside the script')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert converter("result.write_text('{\"ok\": true}')")[0] == {"ok": True}


def test_an_environment_that_cannot_be_made_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(progress: Any) -> Path:
        raise ToolchainMissingError("no index")

    monkeypatch.setattr(client, "hold_environment", refuse)
    with pytest.raises(ToolchainMissingError, match="no index"):
        client.run_step({"action": "convert"}, lambda line: None)


# The converter's side


def run_script(tmp_path: Path, request: dict[str, Any]) -> dict[str, Any]:
    (tmp_path / "request.json").write_text(json.dumps(request))
    assert convert.main(str(tmp_path / "request.json"), str(tmp_path / "result.json")) == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["ok"] is False
    return dict(result["error"])


def test_whatever_goes_wrong_is_written_down(tmp_path: Path) -> None:
    request = {"action": "convert", "onnx": "/no/such.onnx", "output": str(tmp_path), "file": "m.tflite"}
    ways = {"resizes": False, "splits_batch": False, "infinities": False}
    error = run_script(tmp_path, {**request, **ways, "shapes": {"x": [1, 4]}})
    assert error["kind"] == "failed"
    assert error["type"] == "FileNotFoundError"
    assert "/no/such.onnx" in error["message"]
    assert "Traceback" in error["trace"]


def test_the_script_takes_of_the_project_what_needs_no_other_packages() -> None:
    code = f"""
import runpy, sys
sys.path += [{str(Path(np.__file__).parents[1])!r}]  # and not what installs modelwright there
import_own = runpy.run_path({convert.__file__!r})["_import_own"]
for module in ("job", "lower"):
    import_own(f"modelwright.targets.tflite.converter.{{module}}")
print(*sorted(name for name in sys.modules if name.startswith("modelwright")))
print(*sorted({{name.partition(".")[0] for name in sys.modules}} & {{"msgspec", "click", "packaging", "rich"}}))
"""
    command = [sys.executable, "-I", "-S", "-c", code]
    ours, foreign = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    shared = [name for name in ours.split() if not name.startswith("modelwright.targets.tflite")]
    assert shared == [
        "modelwright",
        "modelwright.core",
        "modelwright.core.onnx",
        "modelwright.core.onnx.facts",
        "modelwright.core.onnx.sparse",
        "modelwright.core.onnx.walk",
        "modelwright.targets",
    ]
    assert foreign == ""


def test_an_unsupported_operator_crosses_the_border() -> None:
    described = convert._describe_error(UnsupportedOperatorError("Det", "det_1", "no builder"))
    error = client._make_error(json.loads(json.dumps(described)))
    assert isinstance(error, BuildFailedError)
    assert "operator Det (node det_1)" in error.message
    assert "no builder" in str(error.detail)


def test_a_reason_of_our_own_is_read_first() -> None:
    described = convert._describe_error(UnsupportedOperatorError("If", "choice", "its branches differ", ours=True))
    error = client._make_error(described)
    assert str(error) == "TFLite cannot express operator If (node choice): its branches differ"


class NodeError(Exception):
    node_op, node_name = "Det", "det_1"


@pytest.mark.parametrize(
    ("text", "cause", "named"),
    [
        ("cannot build", NodeError("no builder"), ("Det", "det_1")),
        ("failed: op=Det node=det_1 reason", None, ("Det", "det_1")),
        ("failed: op=Det", None, ("Det", "det_0")),
        ("Conv auto_pad is not supported. op=conv_a", None, ("Conv", "conv_a")),
        ("failed: op=det_1, node=", None, ("Det", "det_1")),
    ],
)
def test_operator_and_node_are_found_in_the_vendors_error(
    text: str, cause: Exception | None, named: tuple[str, str]
) -> None:
    error = NotImplementedError(text)
    error.__cause__ = cause
    found = name_operator(error, make_model())
    assert isinstance(found, UnsupportedOperatorError)
    assert (found.operator, found.node) == named


def make_model() -> onnx.ModelProto:
    nodes = [
        onnx.helper.make_node(kind, ["x"], [name], name)
        for kind, name in (("Det", "det_0"), ("Det", "det_1"), ("Conv", "conv_a"))
    ]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], []))


def test_what_the_vendors_code_was_at_is_named() -> None:
    def build(node: onnx.NodeProto) -> None:
        raise KeyError("kernel")

    try:
        build(make_model().graph.node[2])
    except KeyError as error:
        found = name_operator(error, make_model())
    assert isinstance(found, UnsupportedOperatorError)
    assert (found.operator, found.node) == ("Conv", "conv_a")


def test_an_error_that_names_no_operator_of_the_model_stays_as_it_is() -> None:
    for text in ("not yet", "op=Elsewhere", "node=?"):
        error = NotImplementedError(text)
        assert name_operator(error, make_model()) is error


# The target's side


def make_request(tmp_path: Path, **changes: Any) -> BuildRequest:
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=changes.pop("shape", ("n", 2))),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 2)),),
    )
    for name in ("out", "scratch", "shared"):
        (tmp_path / name).mkdir()
    nodes, ends = [helper.make_node("Identity", ["x"], ["y"])], [("x", 1, ["n", 2]), ("y", 1, ["n", 2])]
    return BuildRequest(
        model_path=models.save(tmp_path / "m.onnx", nodes, ends[:1], ends[1:], {}),
        signature=signature,
        directory=tmp_path / "out",
        machine=Machine(name="box", architecture="x86_64", instruction_sets=frozenset(), cores=4),
        calibration=None,
        tuning=None,
        reference=None,
        scratch=tmp_path / "scratch",
        shared=tmp_path / "shared",
        progress=lambda line: None,
    )


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Scripts the converter; returns the requests that it got."""
    got: list[dict[str, Any]] = []

    def run_step(order: dict[str, Any], progress: Any) -> dict[str, Any]:
        got.append(order)
        if order["action"] == "quantize":
            for each in order["orders"]:
                Path(each["file"]).write_bytes(b"quantize")
            facts = {"keeps_state": True, "outline": []}
            return {"made": [facts] * len(order["orders"]), "versions": {"ai-edge-quantizer": "1"}}
        file = Path(order["output"], f"{order['action']}.tflite")
        file.write_bytes(order["action"].encode())
        told = {"recipe": {}, "has_infinities": False, "versions": {"onnx2tf": "1"}}
        entries = [{"shape": [1, 2], "scales_with_batch": [True, False]}]
        binding = {"dynamic_batch": True, "splits_batch": False, "inputs": entries, "outputs": entries}
        return {"file": file.name, "binding": binding, "notes": [order["action"]], **told}

    monkeypatch.setattr(client, "run_step", run_step)
    return got


def test_all_precisions_share_one_conversion(tmp_path: Path, steps: list[dict[str, Any]]) -> None:
    request = make_request(tmp_path)
    fp32 = tflite.TfliteFp32().build(request)
    assert (request.directory / fp32.model_file).read_bytes() == b"convert"
    fp16 = tflite.TfliteFp16().build(request)
    assert (request.directory / fp16.model_file).read_bytes() == b"quantize"
    assert [order["action"] for order in steps] == ["convert", "quantize"]
    assert steps[0]["shapes"] == {"x": [1, 2]}
    assert steps[0]["resizes"] is True
    assert fp16.recipe["binding"] == fp32.recipe["binding"] | {"reset_variables": True}
    assert fp16.signature == request.signature
    assert fp16.recipe["search"]["chosen"]["name"] == "weights"
    assert fp16.versions == {"ai-edge-quantizer": "1"}
    assert fp16.notes[0] == "convert"
    assert "unchecked" in fp16.notes[1]


def test_shapes_that_only_samples_could_tell_are_asked_for(tmp_path: Path, steps: list[dict[str, Any]]) -> None:
    with pytest.raises(BuildFailedError, match=r"x float32 \[n, length\]") as caught:
        tflite.TfliteFp32().build(make_request(tmp_path, shape=("n", "length")))
    assert "samples" in str(caught.value.hint)
    assert steps == []
