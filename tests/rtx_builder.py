"""Asks the real TensorRT for RTX, in a process of its own: `python rtx_builder.py MODEL` prints one JSON line.

`{"parsed": bool, "built": bool, "errors": [[node, operator, text], ...], "types": {layer: [types read]}}`: of an engine
for compute capability 8.9, ahead of time, dynamic dimensions from 1 to 8. It needs no GPU.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def require_rtx() -> None:
    """Skips the test that calls it where TensorRT for RTX is not installed."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT for RTX is not installed: tensorrt-rtx-cu13-libs and tensorrt-rtx-cu13-bindings")


def ask_rtx(path: Path) -> dict[str, Any]:
    """Parses a model and builds an engine from it in a child process."""
    command = [sys.executable, str(Path(__file__)), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _main(path: str) -> dict[str, Any]:
    import tensorrt_rtx_libs  # noqa: F401, I001 - the bindings find the libraries that this one loads
    import tensorrt_rtx_bindings as trt

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[Any, str]] = []

        def log(self, severity: Any, text: str) -> None:
            self.lines.append((severity, text))

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(path):
        found = [parser.get_error(number) for number in range(parser.num_errors)]
        errors = [[error.node_name(), error.node_operator(), error.desc()] for error in found]
        return {"parsed": False, "built": False, "errors": errors, "types": {}}
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    dynamic = [value for value in inputs if any(size < 0 for size in value.shape)]
    for value in dynamic:
        low, high = ([size if size > 0 else bound for size in value.shape] for bound in (1, 8))
        profile.set_shape(value.name, low, low, high)
    if dynamic:
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    errors = [["", "", text] for severity, text in log.lines if severity <= trt.ILogger.ERROR]
    table = "\n".join(text for _, text in log.lines if "Layers:" in text)
    return {"parsed": True, "built": engine is not None, "errors": errors, "types": _read_types(table)}


def _read_types(table: str) -> dict[str, list[str]]:
    """Returns layer -> the types of what it reads, from the builder's table of layers."""
    types = {}
    for line in table.splitlines():
        found = re.match(r"Name: (.*?), LayerType: .*?Inputs: (.*?)Outputs: ", line)
        if found:
            types[found[1]] = re.findall(r"Data[Tt]ype: (\w+)", found[2])
    return types


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1])))
