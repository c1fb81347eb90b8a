"""Runs conversion steps in the converter's environment and turns its errors into those of the tool."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import BuildFailedError, ToolchainMissingError
from modelwright.core.process.program import run_program
from modelwright.core.process.transport import Program
from modelwright.core.scratch import scratch_directory
from modelwright.targets.tflite.environment import doubt_environment, get_environment_folder, hold_environment
from modelwright.targets.tflite.installation import FOREIGN_VARIABLES

_SCRIPT = Path(__file__).with_name("converter") / "convert.py"
STEP_TIMEOUT_S = 6 * 3600.0
_PREFIX = "modelwright: "
"""Marks the script's own lines between those of the libraries."""


def run_step(request: Mapping[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """Runs one step, such as `convert`, and returns its result; the steps and their formats are in `converter/job.py`.

    Args:
        request: The step's request, `action` included.
        progress: Takes a line about what is going on.

    Raises:
        ToolchainMissingError: The converter's environment cannot be made.
        BuildFailedError: The model cannot be converted; names the operator and the node where there is one.
    """
    with hold_environment(progress) as python, scratch_directory() as folder:
        request_file, result_file = Path(folder, "request.json"), Path(folder, "result.json")
        request_file.write_text(json.dumps(request, default=str), encoding="utf-8")
        finished = run_program(
            Program(
                python=python,
                isolated=True,
                # -B: nothing is written beside the packages, whose files are checked.
                arguments=("-B", str(_SCRIPT), str(request_file), str(result_file)),
                environment=FOREIGN_VARIABLES,
            ),
            purpose="the TFLite converter",
            timeout_s=STEP_TIMEOUT_S,
            error=BuildFailedError,
            on_line=lambda line: _report(line, progress),
        )
        try:
            result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError) as error:  # it died before or while it wrote
            raise _doubt("\n".join(finished.tail)) or BuildFailedError(
                f"the TFLite converter died with exit code {finished.code}",
                hint="the model may be damaged, too large for this machine's memory, or the temporary folder full",
                detail="\n".join(finished.tail),
            ) from error
        if not result["ok"]:
            raise _make_error(result["error"])
    return result


def _report(line: str, progress: Callable[[str], None]) -> None:
    if line.startswith(_PREFIX):
        progress(line.removeprefix(_PREFIX))


def _make_error(error: Mapping[str, Any]) -> Exception:
    if error["kind"] == "unsupported_operator":
        why = f": {error['why']}" if error.get("why") else ""
        return BuildFailedError(
            f"TFLite cannot express operator {error['operator']} (node {error['node']}){why}",
            hint="choose another runtime for this model, or export it without that operator",
            detail=str(error["message"]),
        )
    damaged = _doubt(str(error["message"]))
    if damaged is not None:
        return damaged
    if error.get("type") in ("ModuleNotFoundError", "ImportError"):
        return ToolchainMissingError(
            "the TFLite converter's environment holds what was installed, and does not import",
            hint=f"this machine may lack a library; if not, remove {get_environment_folder()} and build again",
            detail=str(error["message"]),
        )
    message = re.sub(r"([^.]+\.)\1+", r"\1", str(error["message"]))  # the runtime says some things once a kernel
    return BuildFailedError(
        f"TFLite conversion failed: {message}",
        hint="the ort-* and openvino-* targets take the ONNX model as it is",
        detail=str(error.get("trace", "")),
    )


def _doubt(detail: str) -> ToolchainMissingError | None:
    """Returns what to raise where the environment, and not the model, is at fault; None where its files are right."""
    damage = doubt_environment()
    if damage is None:
        return None
    return ToolchainMissingError(
        f"the TFLite converter's environment in {get_environment_folder()} {damage}",
        hint="run the same command again: the environment is made anew",
        detail=detail or None,
    )
