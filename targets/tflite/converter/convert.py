"""Runs one conversion step: `python convert.py REQUEST.json RESULT.json`, with the converter environment's Python.

It runs where modelwright is not installed, so it makes packages of the project's folders and imports what needs no more
than this environment has. Progress goes to standard output, one line a step. The result holds `{"ok": true, ...}` or
`{"ok": false, "error": {"kind", "message", ...}}`.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
import types
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[3]
_PACKAGES = {"modelwright": _ROOT, "modelwright.targets": _ROOT / "targets"}
"""What must not run its own `__init__`, which knows all targets."""


def main(request_path: str, result_path: str) -> int:
    """Reads the request, runs its `action`, writes the result."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    try:
        job = _import_own("modelwright.targets.tflite.converter.job")
        actions = (job.convert, job.calibrate, job.quantize, job.run, job.measure)
        step = next(action for action in actions if action.__name__ == request["action"])
        result = {"ok": True, **step(request, _print_progress)}
    except Exception as error:  # the vendors raise anything; the parent gets all of it in one form
        result = {"ok": False, "error": _describe_error(error)}
    text = json.dumps(result, indent=1, default=float)
    Path(result_path).write_text(text, encoding="utf-8")
    return 0 if result["ok"] else 1


def _print_progress(line: str) -> None:
    print(f"modelwright: {line}", flush=True)


def _import_own(module: str) -> Any:
    """Imports a module of the project, whatever its place, without putting it on `sys.path`."""
    for name, folder in _PACKAGES.items():
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = [str(folder)]
            sys.modules[name] = package
    return importlib.import_module(module)


def _describe_error(error: Exception) -> dict[str, Any]:
    operator, node = getattr(error, "operator", None), getattr(error, "node", None)
    described: dict[str, Any] = {
        "kind": "failed" if operator is None else "unsupported_operator",
        "message": str(error) or type(error).__name__,
        "type": type(error).__name__,
        "trace": traceback.format_exc(limit=-6),
    }
    if operator is not None:
        described.update(operator=operator, node=node, why=getattr(error, "why", None))
    return described


if __name__ == "__main__":
    # This folder's modules are named for what they hold; on sys.path they would shadow others of the same name.
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    sys.exit(main(*sys.argv[1:3]))
