"""The side of the child: answers calls, one at a time, on the two pipes that it was started with.

Whoever starts `python -m modelwright.core.process.serve` sends one JSON line a call on standard input and gets JSON
lines back on standard output. What vendors print does not disturb the answers: it goes to standard error.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any

from modelwright.core.errors import ModelwrightError, ToolchainMissingError
from modelwright.core.system_errors import describe_os_error


def main() -> None:
    """Answers until the calls end, and then ends the process."""
    calls_fd, replies_fd = os.dup(0), os.dup(1)  # dup makes them this process's alone: what it starts has neither
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    # The calls are read beside the work, so that this process ends when they do, whatever it is doing.
    threading.Thread(target=_read_calls, args=(calls_fd, calls), daemon=True).start()
    while True:
        _write(replies_fd, _answer(calls.get(), replies_fd))


def _read_calls(fd: int, calls: queue.SimpleQueue[bytes]) -> None:
    try:
        with os.fdopen(fd, "rb") as stream:
            for line in stream:
                calls.put(line)
    finally:
        # Nobody is left to answer. Some runtimes crash or hang in their destructors at exit: nothing is left to save.
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(0)


def _answer(line: bytes, replies_fd: int) -> bytes:
    """Runs one call; every error becomes a message, because the border knows nothing but JSON."""
    call = json.loads(line)
    try:
        result = _run(call["function"], dict(call["params"]), replies_fd)
    except ModelwrightError as error:
        cause = error.__cause__
        if error.detail is None and cause is not None:
            error.detail = f"{type(cause).__name__}: {cause}"
        return _encode({"error": error.to_dict()})
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "modelwright"):
            return _describe_foreign(error)
        missing = ToolchainMissingError(f"Python package {package} is not installed", hint=f"pip install '{package}'")
        return _encode({"error": missing.to_dict()})
    except OSError as error:
        explained = describe_os_error(error)
        return _describe_foreign(error) if explained is None else _encode({"error": explained.to_dict()})
    except Exception as error:  # anything a vendor raises has to reach the parent as text
        return _describe_foreign(error)
    try:
        return _encode({"result": result})
    except (TypeError, ValueError, RecursionError) as error:
        summary = f"{call['function']} returned what cannot be sent back as JSON: {error}"
        return _encode({"error": {"summary": summary}})


def _run(function: str, params: dict[str, Any], replies_fd: int) -> Any:
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name)
    code = found.__code__
    if "progress" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        params["progress"] = lambda text: _write(replies_fd, _encode({"progress": text}))
    return found(**params)


def _describe_foreign(error: Exception) -> bytes:
    summary = f"{type(error).__name__}: {str(error).strip()[:400]}"
    return _encode({"error": {"summary": summary, "traceback": traceback.format_exc()}})


def _encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, allow_nan=True).encode() + b"\n"


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


if __name__ == "__main__":
    main()
