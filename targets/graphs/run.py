"""ONNX Runtime on the CPU as an evaluator: opens models and files of a build, and names what it refuses."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelwright.core.cores import available_cores
from modelwright.core.errors import BuildFailedError, MeasurementInvalidError
from modelwright.targets.contract import RunSettings
from modelwright.targets.graphs.files import is_large, save_model
from modelwright.targets.readiness import require_import

_HOW: Mapping[str, Any] = {
    "providers": ["CPUExecutionProvider"],
    # onnxruntime 1.31.1 ends the process in it on FP16 graphs of some transformers.
    "disabled_optimizers": ["MatmulTransposeFusion"],
}


def open_session(model: Any, scratch: Path, *, threads: int = 0, entries: Mapping[str, str] | None = None) -> Any:
    """Opens a model in memory as an ONNX Runtime session on the CPU; one over 2 GiB goes through a file.

    Args:
        model: The model.
        scratch: For the file of a large one.
        threads: 0 takes all that this process may use.
        entries: Configuration entries of the session.

    Raises:
        BuildFailedError: ONNX Runtime refuses the model; its own words say which node or operator.
    """
    ort = require_import("onnxruntime", "ort")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    try:
        if not is_large(model):
            return ort.InferenceSession(model.SerializeToString(), options, **_HOW)
        # A folder of its own: sessions map their weights, and an earlier one may still be open.
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            path = Path(folder) / "model.onnx"
            save_model(model, path)
            return ort.InferenceSession(str(path), options, **_HOW)
    except Exception as error:  # onnxruntime raises a class of its own for every status code
        raise BuildFailedError("ONNX Runtime cannot load an intermediate of the build", detail=str(error)) from error


@contextmanager
def extra_outputs(model: Any, names: Sequence[str], nodes: Sequence[Any] = (), dtype: int = 1) -> Iterator[None]:
    """Makes tensors outputs of the graph for a while, with the nodes that they need."""
    onnx = require_import("onnx", "onnx")
    graph = model.graph
    before = len(graph.output), len(graph.node)
    present = {value.name for value in graph.output}
    graph.node.extend(nodes)
    graph.output.extend(onnx.helper.make_tensor_value_info(name, dtype, None) for name in names if name not in present)
    try:
        yield
    finally:
        del graph.output[before[0] :]
        del graph.node[before[1] :]


_NAMED_OPERATOR = re.compile(
    r"implementation for (\S+?\(\d+\))|Op \((\w+)\)|(?:: |^)([\w.]+:\w+\(-?\d+\))|running (\w+) node"
)
_NAMED_NODE = re.compile(r"node with name '([^']*)'|[Nn]ode:? ?\(([^)]*)\)|Name:'([^']*)'")


def session_options(settings: RunSettings) -> Any:
    """Returns the options that every session here runs with.

    How the pool waits is left to the vendor, as in every other runtime: it spins where there is more than one thread,
    for 20 to 30 ms of a core after the last inference, which the next one's warm-up holds.
    """
    ort = require_import("onnxruntime", "ort-run")
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return options


def open_file(
    path: Path,
    settings: RunSettings,
    failure: type[BuildFailedError | MeasurementInvalidError],
    options: Any = None,
) -> Any:
    """Opens a model file on the CPU; raises `failure` with the operator and node that ONNX Runtime's message names.

    Args:
        path: The model.
        settings: How to run it.
        failure: What to raise.
        options: Of the session; None for those that every session has with these settings.
    """
    ort = require_import("onnxruntime", "ort-run")
    try:
        return ort.InferenceSession(str(path), options or session_options(settings), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for every status code
        raise failure(
            f"ONNX Runtime cannot load {path.name}{blame(error)}",
            hint="update onnxruntime, or export the model without this operator" if blame(error) else None,
            detail=str(error),
        ) from error


def blame(error: Exception) -> str:
    """Returns the operator and node that ONNX Runtime's message names, as `: operator X, node Y`."""
    text = str(error)
    operator, node = _NAMED_OPERATOR.search(text), _NAMED_NODE.search(text)
    parts = [
        f"{label} {next(group for group in match.groups() if group is not None)}"
        for label, match in (("operator", operator), ("node", node))
        if match
    ]
    return f": {', '.join(parts)}" if parts else ""
