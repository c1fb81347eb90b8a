from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import modelwright.targets
from modelwright.core.errors import ToolchainMissingError
from modelwright.core.records.machine import Machine
from modelwright.targets.readiness import check_versions, list_requirements, require_import
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


def list_required() -> set[tuple[str, str]]:
    """Returns package and extra of every `require_import` in the targets that names both in place."""
    found = set()
    for path in Path(next(iter(modelwright.targets.__path__))).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require_import":
                words = [each.value for each in node.args if isinstance(each, ast.Constant)]
                if len(words) == 2:
                    found.add((words[0].split(".")[0], words[1]))
    return found


BROUGHT_BY = {
    "ai_edge_litert": ("ai-edge-litert",),
    "onnx_ir": ("onnx-ir",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}
"""Distributions that bring a package, where they are not called as it is."""


def test_what_is_said_to_be_installed_brings_what_is_missing() -> None:
    required = list_required()
    assert {("onnx", "onnx"), ("onnxruntime", "ort-cuda-run"), ("torch", "torch"), ("onnx_ir", "modelopt")} <= required
    for package, extra in sorted(required):
        brought = {re.split("[<>=]", requirement)[0] for requirement in list_requirements(extra)}
        assert brought.intersection(BROUGHT_BY.get(package, (package,))), (package, extra, brought)
    assert list_requirements("ort-cuda-run") == ["onnxruntime-gpu>=1.24"], "the CPU package would hide it"


@pytest.mark.parametrize(
    ("module", "extra", "told"),
    [
        ("onnxruntime", "ort-cuda-run", "pip install 'onnxruntime-gpu>=1.24'"),
        ("tensorrt_bindings", "tensorrt-run", "pip install 'tensorrt>=10.12'"),
        ("torch.export", "torch-run", "pip install 'torch>=2.10'"),
    ],
)
def test_a_missing_module_is_told_by_its_distribution(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, told: str
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, module.split(".")[0], None)
    with pytest.raises(ToolchainMissingError, match=f"{module} is not installed") as caught:
        require_import(module, extra)
    assert caught.value.hint == f"{told}  (modelwright's extra [{extra}])"


def test_a_broken_module_is_told_by_its_distribution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_import.py").write_text("raise OSError('a library is missing')")
    information = tmp_path / "broken_wheel-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-wheel\nVersion: 1.0\n")
    (information / "RECORD").write_text("broken_import.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ToolchainMissingError, match="is installed but does not import") as caught:
        require_import("broken_import", "onnx")
    assert caught.value.hint == "reinstall it: pip install --force-reinstall broken-wheel"


def test_a_module_whose_own_needs_are_missing_is_told_with_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "needy_import.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    wanted = "needy_import is installed but does not import: there is no Python package not_installed_anywhere"
    with pytest.raises(ToolchainMissingError, match=wanted) as caught:
        require_import("needy_import", "onnx")
    assert caught.value.hint == "reinstall it with what it needs: pip install --force-reinstall needy_import"
