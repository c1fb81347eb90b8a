from __future__ import annotations

from importlib.metadata import version

import pytest

from modelwright.core.records.machine import Machine
from modelwright.targets.readiness import check_versions
from modelwright.targets.table import get_target

MACHINE = Machine(name="box", architecture="x86_64", instruction_sets=frozenset(), cores=4)


def test_versions_that_a_manifest_asks_for_are_compared() -> None:
    here = version("numpy")
    assert check_versions({"numpy": f">={here}", "not-installed-anywhere": ">=7"}).ok
    refused = check_versions({"numpy": ">=9999"})
    assert refused.reason == f"it needs numpy >=9999, and {here} is installed"
    assert "pip install 'numpy>=9999'" in (refused.hint or "")


@pytest.mark.parametrize("rule", ["banana", "", "\x1b[2J"])
def test_a_rule_that_is_none_is_no_traceback(rule: str) -> None:
    readiness = check_versions({"numpy": rule})
    assert readiness.ok is (rule == "")
    assert "\x1b" not in (readiness.reason or "")


@pytest.mark.parametrize("target", ["ort-fp32", "openvino-fp32", "tflite-fp32", "torch-fp32"])
def test_every_runtime_has_its_needs_looked_at(target: str) -> None:
    refused = get_target(target).check_artifact({"packages": {"numpy": ">=9999"}}, MACHINE)
    assert not refused.ok
    assert "numpy" in (refused.reason or "")
