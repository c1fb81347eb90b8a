"""The published JSON Schema: real documents keep to it, and it says something of every key."""

from __future__ import annotations

import json
from pathlib import Path

import documents
import jsonschema
import pytest
from msgspec.structs import replace

from modelwright.harness.results.file import encode_results, read_results
from modelwright.harness.results.metrics import METRICS
from modelwright.harness.results.record import Comparison
from modelwright.harness.results.schema import describe_results
from modelwright.harness.verdict.judge import judge

SCHEMA_1 = Path(__file__).with_name("results_schema_1.json")


def make_validator() -> jsonschema.Draft202012Validator:
    schema = describe_results()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def real_results() -> list[Comparison]:
    made = [documents.read(make()) for make in documents.ALL.values()]
    return [*(replace(comparison, verdict=judge(comparison)) for comparison in made), read_results(SCHEMA_1)]


def test_what_is_written_keeps_to_the_schema() -> None:
    validator = make_validator()
    for comparison in real_results():
        written = json.loads(json.dumps(encode_results(comparison)))
        assert [error.message for error in validator.iter_errors(written)] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("status", "passed"), ("colour", "red"), ("size_bytes", -1), ("latency_ms", {"p50": "1"}), ("target", None)],
)
def test_what_is_refused_when_read_does_not_keep_to_the_schema(key: str, value: object) -> None:
    written = json.loads(json.dumps(encode_results(documents.read(documents.single()))))
    written["measurements"][0][key] = value
    assert list(make_validator().iter_errors(written))


def test_every_key_is_described() -> None:
    parts = describe_results()["$defs"]
    assert {"Comparison", "Measurement", "Latency", "Energy", "Fidelity", "Verdict"} <= set(parts)
    bare = [
        f"{part}.{name}"
        for part, schema in parts.items()
        for name, field in schema["properties"].items()
        if not field.get("description")
    ]
    assert bare == []


def test_the_table_of_metrics_describes_its_figures() -> None:
    parts = describe_results()["$defs"]
    assert parts["Latency"]["properties"]["p99"]["title"] == "99th percentile of the latency"
    words = parts["Latency"]["properties"]["p99"]["description"]
    assert "in ms; lower is better; null where too few independent inferences support it." in words
    assert parts["Measurement"]["properties"]["size_bytes"]["title"] == "size of the artifact's files"
    titles = {field.get("title") for schema in parts.values() for field in schema["properties"].values()}
    alone = {metric.key for metric in METRICS if metric.key.startswith("compute_latency_ms.")}
    missing = {metric.key for metric in METRICS if metric.title not in titles} - alone
    assert missing == set()
