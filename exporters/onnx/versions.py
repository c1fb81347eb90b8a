"""Files of the newest onnx, which ONNX Runtime follows some months later, brought to versions that it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.onnx.facts import ONNX_DOMAINS, find_opset
from modelwright.core.onnx.walk import iterate_graphs, iterate_tensors
from modelwright.core.outputs.reference import import_runtime

_PROBE_OPSET = 17
"""Any that every ONNX Runtime reads."""
_PROBE_IR = 8
"""Likewise."""


def lower_versions(path: Path, model: Any) -> list[str]:
    """Lowers a model's IR version and opset to what ONNX Runtime reads, in place.

    An opset is lowered where each operator of the model is defined alike in both, or where onnx's converter knows how.
    Types that an older IR version lacks are ONNX Runtime's to refuse.

    Args:
        path: For messages.
        model: Any ONNX model.

    Returns:
        A sentence for each version that was lowered.

    Raises:
        BadInputError: The model has operators as of an opset that ONNX Runtime does not know.
    """
    import onnx

    runtime = f"ONNX Runtime {import_runtime().__version__}"
    notes = []
    if model.ir_version <= onnx.IR_VERSION:  # what a newer one means, nobody here knows
        known = _find_newest(model.ir_version, lambda version: _is_read(version, _PROBE_OPSET))
        if known != model.ir_version:
            notes.append(f"IR version {model.ir_version} lowered to {known} in our copy: {runtime} reads no newer one")
            model.ir_version = known
    opset = find_opset(model)
    if opset > onnx.defs.onnx_opset_version():
        return notes
    known = _find_newest(opset, lambda version: _is_read(_PROBE_IR, version))
    if known == opset:
        return notes
    changed = sorted({name for name in _list_standard(model) if _since(name, opset) > known})
    if changed and not _convert(model, known):
        raise BadInputError(
            f"{path} has opset {opset}, of which {runtime} does not know {', '.join(changed)}; it reads up to {known}",
            hint=f"export it again at opset {known} or earlier (18 suits all targets)",
        )
    for holder in (model, *model.functions):
        for entry in holder.opset_import:
            if entry.domain in ONNX_DOMAINS:
                entry.version = min(entry.version, known)
    return [*notes, f"opset {opset} lowered to {known} in our copy: {runtime} reads no newer one"]


def _convert(model: Any, opset: int) -> bool:
    """Rewrites the graph by onnx's converter; returns whether it can.

    It knows the main graph alone, and drops weights that lie in files of their own.
    """
    import onnx
    from onnx import version_converter

    if model.functions or any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in iterate_tensors(model)):
        return False
    try:
        converted = version_converter.convert_version(model, opset)
    except Exception:  # bare C++ exceptions
        return False
    model.graph.CopyFrom(converted.graph)
    return True


def _find_newest(version: int, is_read: Callable[[int], bool]) -> int:
    """Returns the newest version up to this one that is read; this one where none is: then something else is wrong."""
    return next((older for older in range(version, 0, -1) if is_read(older)), version)


def _is_read(ir_version: int, opset: int) -> bool:
    """Whether ONNX Runtime loads a model of nothing but these versions."""
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "probe", [value], [helper.make_tensor_value_info("y", 1, [1])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnxruntime = import_runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its refusal is the answer
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime raises a class of its own for every status code
        return False
    return True


def _list_standard(model: Any) -> set[str]:
    """Returns the standard operators of all graphs and functions."""
    return {node.op_type for graph in iterate_graphs(model) for node in graph.node if node.domain in ONNX_DOMAINS}


def _since(operator: str, opset: int) -> int:
    """Returns the opset in which an operator got the meaning that it has in another one."""
    import onnx

    try:
        return int(onnx.defs.get_schema(operator, opset).since_version)
    except onnx.defs.SchemaError:
        return 0  # no operator of ONNX: ONNX Runtime says so itself
