"""What starting the command costs: nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.targets import get_target, target_names

PROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


def list_vendor_packages() -> Iterator[str]:
    """Yields the import name of every package that a target builds or runs with."""
    for name in target_names():
        record = get_target(name).record
        for alternatives in (*record.build_packages, *record.run_packages):
            yield from alternatives.split("|")


HEAVY = {"jinja2", "tflite_runtime", *list_vendor_packages()}


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import modelwright.cli.main",
        "import modelwright.targets, modelwright.exporters, modelwright.harness, modelwright.profiles",
        "from modelwright.targets import get_target, target_names\nfor name in target_names(): get_target(name)",
        "import modelwright.harness.comparing, modelwright.harness.measuring",
        "import modelwright.harness.run.worker, modelwright.harness.report",
    ],
)
def test_no_vendor_package_is_imported(statement: str) -> None:
    assert not loaded_after(statement) & HEAVY


def test_lint_keeps_vendor_packages_inside_functions() -> None:
    settings = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    banned = settings["flake8-tidy-imports"]["banned-module-level-imports"]
    assert set(list_vendor_packages()) <= set(banned), "add them to banned-module-level-imports in pyproject.toml"


def test_a_measuring_child_loads_nothing_for_reports() -> None:
    """Its memory is the artifact's: it knows the results of nobody."""
    loaded = loaded_after("import modelwright.harness.run.worker")
    assert not loaded & {"rich", "jinja2", "click"}
    rooms = ("results", "report", "verdict", "meters")
    assert not [name for name in loaded if name.startswith(tuple(f"modelwright.harness.{room}" for room in rooms))]


def test_help_loads_neither_numpy_nor_rich() -> None:
    loaded = loaded_after("import modelwright.cli.main, modelwright.cli.compare")
    assert not loaded & {"numpy", "rich", "msgspec", "packaging"}


def test_a_measuring_child_loads_no_report() -> None:
    loaded = loaded_after("import modelwright.harness.run.worker")
    assert not loaded & {"rich", "jinja2", "markupsafe", "modelwright.harness.report"}
