"""The JSON Schema of results of language models, made from the records and their docstrings."""

from __future__ import annotations

from typing import Any

from modelwright.harness.language.record import SCHEMA, LanguageComparison
from modelwright.harness.results.schema import describe_records, finish_schema


def describe_language() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of what this version writes."""
    root, parts = describe_records(LanguageComparison)
    return finish_schema(f"results.json of language models, modelwright schema {SCHEMA}", root, parts)
