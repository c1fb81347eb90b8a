"""The JSON Schema of `tune.json`, made from the records and their docstrings."""

from __future__ import annotations

from typing import Any

from modelwright.harness.results.schema import describe_records, finish_schema
from modelwright.harness.tuning.record import SCHEMA, Tuning


def describe_tuning() -> dict[str, Any]:
    """Returns the JSON Schema of what this version writes."""
    root, parts = describe_records(Tuning)
    return finish_schema(f"tune.json of modelwright, schema {SCHEMA}", root, parts)
