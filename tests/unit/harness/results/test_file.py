"""results.json: what was written is read back, older files are read, and what is no result is refused by its key."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import documents
import pytest
from msgspec.structs import replace

from modelwright.core.errors import BadInputError
from modelwright.core.files import write_text
from modelwright.harness.report import render_csv, render_html
from modelwright.harness.results.file import decode_results, encode_results, read_results, render_results
from modelwright.harness.results.record import SCHEMA
from modelwright.harness.verdict.judge import judge

SCHEMA_1 = Path(__file__).with_name("results_schema_1.json")
"""The demo's results as the last version before schema 2 wrote them, without what is long: recipes, window medians."""


def change(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Sets the value at `measurements.0.latency_ms.p50`; ... deletes it."""
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    part: Any = document
    for key in keys:
        part = part[key]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return document


@pytest.mark.parametrize("name", list(documents.ALL))
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    comparison = documents.read(documents.ALL[name]())
    comparison = replace(comparison, verdict=judge(comparison))
    write_text(tmp_path / "results.json", render_results(comparison))
    assert read_results(tmp_path / "results.json") == comparison


def test_a_file_name_that_is_no_text_can_be_read_back(tmp_path: Path) -> None:
    comparison = documents.read(change(documents.single(), "source.path", "/models/r\udce9sum\udce9.onnx"))
    write_text(tmp_path / "results.json", render_results(comparison))
    assert read_results(tmp_path / "results.json").source.path == r"/models/r\udce9sum\udce9.onnx"


def test_results_of_schema_1_are_read_judged_and_rendered_as_then() -> None:
    comparison = read_results(SCHEMA_1)
    assert comparison.schema == SCHEMA
    assert comparison.verdict is not None
    verdict, then = judge(comparison), comparison.verdict
    assert verdict.warnings[0] == then.warnings[0].replace("FP32 here:", "FP32 here beyond doubt:")
    assert verdict.warnings[1:] == then.warnings[1:]
    words = {"indistinguishable": then.indistinguishable, "warnings": then.warnings}
    assert replace(verdict, **words) == then, "the rules say what they said then"
    told = set(verdict.indistinguishable) - set(then.indistinguishable)
    assert told == {("tflite-int8-dynamic", "openvino-int8")}, "one launch cannot tell apart what its rounds seemed to"
    assert comparison.verdict.ship == "tflite-int8"
    assert "<h2>Ship TFLite INT8</h2>" in render_html(comparison)
    fast = next(line for line in render_csv(comparison).splitlines() if ",tflite-int8," in line)
    assert fast.startswith("86e1e353d124,tflite-int8,2026-11-26T22:37:18+00:00,317004,0.459")
    written = encode_results(comparison)
    assert decode_results(written, where="again") == comparison


def test_rows_of_schema_1_without_figures_are_read() -> None:
    document = json.loads(SCHEMA_1.read_text())
    head = {"target": "tflite-fp32 #2", "title": "TFLite FP32", "runtime": "tflite", "precision": "fp32"}
    document["measurements"] += [
        head | {"is_float": True, "status": "skipped", "reason": "no", "hint": None, "detail": None, "exit_code": 4}
    ]
    row = decode_results(document, where="here").measurements[-1]
    assert (row.status, row.reason, row.exit_code, row.latency_ms, row.notes) == ("skipped", "no", 4, None, ())


def test_schema_1_told_devices_apart_only_when_shown() -> None:
    titles = [row.title for row in decode_results(documents.gpu() | {"schema": 1}, where="here").measurements]
    assert titles[1:3] == ["PyTorch FP32 on CPU", "PyTorch FP32 on CUDA"]
    titles = [row.title for row in decode_results(documents.gpu(), where="here").measurements]
    assert titles[1:3] == ["PyTorch FP32", "PyTorch FP32"], "since then, where they are measured"


@pytest.mark.parametrize("schema", [None, 0, SCHEMA + 1, 10**30, "1", True, [1], {"a": 1}, 1.0])
def test_an_unknown_schema_says_what_to_do(tmp_path: Path, schema: object) -> None:
    (tmp_path / "r.json").write_text(json.dumps(documents.single() | {"schema": schema}))
    with pytest.raises(BadInputError, match=r"r\.json cannot be read as results of a comparison: ") as caught:
        read_results(tmp_path / "r.json")
    assert "schema" in caught.value.message
    assert len(caught.value.message) < 250 + len(str(tmp_path))
    assert "update modelwright" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("measurements.0.passed", True, "measurements[0].passed: unknown key"),
        ("measurements.0.latency_ms.p100", 1, "measurements[0].latency_ms.p100: unknown key"),
        ("environment.colour", "red", "environment.colour: unknown key"),
        ("verdict", {"ship": "a"}, "verdict"),
        ("limits", {"max_p5_ms": 1}, "limits.max_p5_ms: unknown key"),
        ("limits", {"max_p50_ms": "1"}, "limits"),
        ("measurements.0.status", "passed", "measurements[0].status"),
        ("measurements.0.target", ..., "measurements[0].target: missing"),
        ("measurements.0.target", 5, "measurements[0].target"),
        ("measurements.0.target", "ort-int8", "'ort-int8' is there 2 times"),
        ("run_id", ..., "run_id: missing"),
        ("measurements", None, "measurements"),
        ("measurements", {}, "measurements"),
        ("measurements.0", [], "measurements[0]"),
        ("measurements.0.latency_ms", "fast", "measurements[0].latency_ms"),
        ("measurements.0.latency_ms.p50", "1.0", "measurements[0].latency_ms.p50"),
        ("measurements.0.latency_ms.p50", True, "measurements[0].latency_ms.p50"),
        ("measurements.0.latency_ms.p50", -1, "measurements[0].latency_ms.p50"),
        ("measurements.0.latency_ms.p50", 1e300, "measurements[0].latency_ms.p50"),
        ("measurements.0.latency_ms.p50", 10**400, "measurements[0].latency_ms.p50"),
        ("measurements.0.size_bytes", -1, "measurements[0].size_bytes"),
        ("measurements.0.size_bytes", 1.5, "measurements[0].size_bytes"),
        ("measurements.0.size_bytes", 10**30, "measurements[0].size_bytes"),
        ("measurements.0.accuracy", 1.5, "measurements[0].accuracy"),
        ("measurements.0.speedup.ratio", 0, "measurements[0].speedup.ratio"),
        ("measurements.0.speedup.ci95", [1], "measurements[0].speedup.ci95"),
        ("measurements.0.round_log_ratios.3", None, "measurements[0].round_log_ratios"),
        ("measurements.0.round_log_ratios.3", 1e9, "measurements[0].round_log_ratios"),
        ("measurements.0.rounds", [0.5], "measurements[0].rounds"),
        ("measurements.0.energy.per_inference_j", "none", "measurements[0].energy.per_inference_j"),
        ("measurements.0.fidelity", {"passed": True}, "measurements[0].fidelity"),
        ("measurements.0.notes", "one", "measurements[0].notes"),
        ("measurements.0.unavailable", {"p99": 5}, "measurements[0].unavailable"),
        ("measurements.0.status", "half \udce9", "measurements[0].status"),
        ("measurements.0.latency_ms.p50", "half \udce9", "measurements[0].latency_ms.p50"),
        ("settings.rounds", "many", "settings.rounds"),
        ("samples.evaluation.count", None, "samples.evaluation.count"),
    ],
)
def test_what_is_no_result_is_refused_by_its_key(tmp_path: Path, path: str, value: Any, words: str) -> None:
    document = documents.images()
    (tmp_path / "r.json").write_text(json.dumps(change(document, path, value)))
    with pytest.raises(BadInputError) as caught:
        read_results(tmp_path / "r.json")
    assert caught.value.message.startswith(f"{tmp_path / 'r.json'}: ")
    assert words in caught.value.message
    assert len(caught.value.message) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '{"schema": 2, "run_id": NaN}', '{"schema": 2, "run_id": Infinity}', "[" * 100_000, "\x00"],
)
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(BadInputError, match=r"r\.json"):
        read_results(tmp_path / "r.json")


def test_the_largest_numbers_that_are_read_are_shown(tmp_path: Path) -> None:
    document = documents.images()
    for row in document["measurements"]:
        row["size_bytes"] = row["peak_memory_bytes"] = row["num_inferences"] = 2**63 - 1
        row["latency_ms"] = dict.fromkeys(("mean", "p50", "p90", "p95", "p99"), 1e15)
        row["throughput_per_s"] = row["energy"]["per_inference_j"] = row["carbon"]["per_inference_g"] = 1e15
        row["speedup"] = {"ratio": 1e12, "ci95": [1e-12, 1e12]}
        row["round_log_ratios"] = [-28.0, 28.0] * 12
    comparison = documents.read(document)
    for text in (render_html(comparison), render_csv(comparison), judge(comparison).sentence):
        assert "inf" not in text.lower().replace("inference", "").replace("info", "")
    document["measurements"][0]["latency_ms"] = dict.fromkeys(("mean", "p50", "p90", "p95", "p99"), 5e-324)
    document["measurements"][1]["latency_ms"] = dict.fromkeys(("mean", "p50", "p90", "p95", "p99"), 0.0)
    assert render_html(documents.read(document))
    assert math.isfinite(documents.read(document).measurements[0].typical_ms or 0)


def test_what_ran_is_read_from_files_that_told_it_in_the_runtimes_own_words() -> None:
    document = documents.single()
    told = {"precision": "mixed", "source": "profile", "compute_nodes": {"int8": 1}, "operators": {"Conv": 2}}
    document["measurements"][0]["precision_executed"] = told
    executed = decode_results(document, where="here").measurements[0].precision_executed
    assert (executed.precision, executed.source) == ("mixed", "profile")
    assert executed.facts == {"compute_nodes": {"int8": 1}, "operators": {"Conv": 2}}
    assert executed.describe() == "mixed"
