from __future__ import annotations

import pytest
from language_results import make_comparison, make_row

from modelwright.core.records.codec import decode, encode
from modelwright.harness.language.record import LanguageComparison
from modelwright.harness.language.schema import describe_language
from modelwright.harness.language.verdict import judge

jsonschema = pytest.importorskip("jsonschema")


def test_what_is_written_fits_the_schema_and_is_read_again() -> None:
    comparison = judge(make_comparison(make_row("torch-fp32", 62.0, 1.0, 0.0, memory=1000)))
    values = encode(comparison)
    schema = describe_language()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(values, schema)
    assert decode(LanguageComparison, values) == comparison
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "rows": [{"target": 3}]}, schema)


def test_every_key_says_what_it_means() -> None:
    parts = describe_language()["$defs"]
    for name in ("LanguageComparison", "LanguageRow", "LanguageProof", "Offline", "Turn", "Estimate"):
        for key, field in parts[name]["properties"].items():
            if (name, key) not in {("Estimate", "value"), ("Estimate", "ci95")}:
                assert "description" in field or "$ref" in field, f"{name}.{key}"
