"""Finds the refusals of compression, samples, exporters and targets that have a hint, by reading the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("compression", "core/samples", "exporters", "targets")
_RAISING = frozenset({"failure", "raised"})
"""Names of parameters that hold the class of an error."""


def find_refusals(path: Path) -> Iterator[str]:
    """Yields the messages of a file's refusals with a hint: errors, and `Readiness.no` with what to do."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        hints = [keyword.value for keyword in node.keywords if keyword.arg == "hint"]
        if name == "no":
            hints += node.args[1:2]
        elif not (name.endswith("Error") or name in _RAISING):
            continue
        if hints and not (isinstance(hints[0], ast.Constant) and hints[0].value is None):
            yield from _spell(node.args[0])


def list_refusals() -> dict[str, set[str]]:
    """Returns file -> messages, for all rooms that the table is about."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if messages := set(find_refusals(path)):
                found[path.relative_to(ROOT).as_posix()] = messages
    return found


def _spell(node: ast.expr) -> list[str]:
    """Returns a message as it is written, `{}` for what is filled in; both where a condition chooses between two."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)]  # type: ignore[misc]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [left + right for left in _spell(node.left) for right in _spell(node.right)]
    if isinstance(node, ast.IfExp):
        return _spell(node.body) + _spell(node.orelse)
    return ["{}"]
