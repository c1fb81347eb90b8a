from __future__ import annotations

import pytest

from modelwright.core.versions import is_at_least, parse_version, satisfies


@pytest.mark.parametrize(
    ("found", "least", "expected"),
    [
        ("2.13.0+cpu", "2.10", True),
        ("2.9.1+cu128", "2.10", False),
        ("2.10.0a0+b4e4ee8153.nv25.12", "2.10", True),
        ("2.11a0", "2.10", True),
        ("2.9.0.dev20260101", "2.10", False),
        ("1.31.1.dev2026", "1.30", True),
        ("1.31.1.dev2026", "1.31.1", True),
        ("1.24", "1.24", True),
        ("1.24.0", "1.24", True),
        ("10.13.0.35", "10.12", True),
        ("10.9.0.34", "10.12", False),
        ("10.13.0.35.post1", "10.13.0.35", True),
        ("12.1", "8.0", True),
        ("7.5", "8.0", False),
        ("13.0", "12.9", True),
        ("2026.4.1-21919-abc", "2025.0", False),
        ("", "0.1", False),
        ("unknown", "0.1", False),
    ],
)
def test_versions_are_compared_as_numbers(found: str, least: str, expected: bool) -> None:
    assert is_at_least(found, least) is expected


@pytest.mark.parametrize(
    ("found", "rule", "expected"),
    [
        ("1.31.1", ">=1.22", True),
        ("1.9.0", ">=1.22", False),
        ("2.13.0+cpu", ">=2.13", True),
        ("2.13.0a0+gitabc", ">=2.13", True),
        ("2.12.1", ">=2.13", False),
        ("2.1", ">=2.1,<3", True),
        ("3.0", ">=2.1,<3", False),
        ("unknown", ">=2.1", False),
    ],
)
def test_versions_that_a_rule_asks_for(found: str, rule: str, expected: bool) -> None:
    assert satisfies(found, rule) is expected


@pytest.mark.parametrize("rule", ["2.1", ">=banana", "==", "onnx>=1"])
def test_what_is_no_rule_is_told(rule: str) -> None:
    with pytest.raises(ValueError, match="Invalid specifier"):
        satisfies("2.1", rule)


def test_what_is_no_version_comes_first() -> None:
    versions = ["10.13.0.35", "unknown", "2.13.0+cpu", "2.11a0", "2.11"]
    assert sorted(versions, key=parse_version) == ["unknown", "2.11a0", "2.11", "2.13.0+cpu", "10.13.0.35"]
