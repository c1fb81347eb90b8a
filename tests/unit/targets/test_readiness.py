from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import modelwright.targets
from modelwright.core.errors import ToolchainMissingError
from modelwright.core.records.machine import Machine
from modelwright.targets.language import table as language_table
from modelwright.targets.readiness import check_packages, check_versions, list_requirements, require_import
from modelwright.targets.table import TABLE, get_target

PROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"
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


@pytest.mark.parametrize(
    ("required", "reason"),
    [
        ("numpy>=1.2", None),
        ("numpy", None),
        ("not-installed-anywhere>=7", None),  # numpy is there, from elsewhere
        ("numpy>=9999", f"package numpy>=9999 is needed, and {version('numpy')} is installed"),
    ],
)
def test_a_package_that_is_too_old_is_told_with_what_to_install(required: str, reason: str | None) -> None:
    readiness = check_packages({"numpy|not_importable": required}, "tflite-run")
    assert (readiness.ok, readiness.reason) == (reason is None, reason)
    assert readiness.ok or readiness.hint == "pip install 'numpy>=9999'  (part of modelwright's extra [tflite-run])"


def read_extra(name: str, extras: dict[str, list[str]]) -> dict[str, str]:
    """Returns distribution -> least version of what an extra brings, those of other extras of ours included."""
    brought: dict[str, str] = {}
    for each in map(Requirement, extras[name]):
        if each.name == "modelwright":
            for inner in each.extras:
                brought |= read_extra(inner, extras)
        else:
            brought[each.name] = str(each.specifier).removeprefix(">=")
    return brought


def test_extras_bring_what_targets_ask_for() -> None:
    """What `check_packages` refuses, the extra that it names puts right."""
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    records = [get_target(name).record for name in TABLE]
    language = [language_table.get_target(name).record for name in language_table.TABLE]
    compared = 0
    for record in (*records, *language):
        for packages, extra in (
            (record.build_packages, record.build_extra),
            (record.run_packages, record.run_extra),
        ):
            brought = read_extra(extra, extras)
            for required in map(Requirement, packages.values()):
                if required.name not in brought:  # the GPU's onnxruntime takes the place of the CPU's
                    assert (required.name, f"{required.name}-gpu" in brought) == ("onnxruntime", True), record.name
                    continue
                assert required.specifier.contains(brought[required.name]), (record.name, extra, str(required))
                compared += bool(required.specifier)
    assert compared > 50


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
